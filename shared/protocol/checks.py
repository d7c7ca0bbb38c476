"""What is checked of messages from outside before anything is made of them. Pure.

Whoever is on the network may be taken for a host or, where hosts schedule for each other, for a scheduler. All raise
InvalidRequest with what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite

from shared.errors import InvalidRequest
from shared.protocol.assignments import (
    Assignment,
    CheckGranted,
    ParentsAssigned,
    PieceDigests,
    SourceGranted,
    TaskDescribed,
    TaskFailed,
    TaskFresh,
    TaskMoved,
)
from shared.protocol.values import MAX_PLACES, Failure, Parent, TaskMeta
from shared.task.bitmap import MAX_PIECES
from shared.task.digest import PIECE_DIGEST_LENGTH, parse_content_digest
from shared.task.generation import is_generation
from shared.task.identity import MAX_URL_LENGTH, TaskSpec
from shared.task.pieces import PieceLayout

LONGEST_PIECE = 1 << 30
MAX_WORDS, LONGEST_WORDS = 2000, 32_000
MAX_TEXT = 1024
MAX_NAME = 128
MAX_PARENTS = 64
"""Parents of one task, as many as may be set (``scheduler.parents``)."""
MAX_STRIPES = 1 << 20

_TASK = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"[^\x00-\x20\x7f]{1,255}")


def check_task(task: str) -> None:
    """The id of a task."""
    if not _TASK.fullmatch(task):
        raise InvalidRequest("a task id has 64 lower-case hexadecimal digits")


def check_spec(task: str, spec: TaskSpec) -> None:
    """What a task is, and that it is this one."""
    if len(spec.url) > MAX_URL_LENGTH:
        raise InvalidRequest(f"the URL has {len(spec.url)} characters: at most {MAX_URL_LENGTH} are allowed")
    if not is_generation(spec.generation):
        raise InvalidRequest("a generation is 12 hexadecimal digits, or nothing")
    if spec.digest and ":".join(parse_content_digest(spec.digest)) != spec.digest:
        raise InvalidRequest("the digest of a task is written in lower case")
    if spec.task_id != task:
        raise InvalidRequest("the task id does not belong to the task's URL, tag, application and range")


def check_meta(meta: TaskMeta) -> None:
    """What is known of a content."""
    if not 0 < meta.piece_length <= LONGEST_PIECE:
        raise InvalidRequest(f"a piece length is 1 to {LONGEST_PIECE} bytes, not {meta.piece_length}")
    if meta.length is not None and meta.length < 0:
        raise InvalidRequest("a length is not negative")
    if meta.length is not None and PieceLayout(meta.length, meta.piece_length).count > MAX_PIECES:
        raise InvalidRequest(f"a task has at most {MAX_PIECES} pieces")
    if meta.revalidate is not None and not (isfinite(meta.revalidate) and meta.revalidate >= 0):
        raise InvalidRequest("the age at which content is checked is a number of seconds")
    texts = (meta.version, meta.etag, meta.last_modified, meta.content_type, meta.digest, meta.sha256)
    if not meta.version or any(len(text) > MAX_TEXT for text in texts):
        raise InvalidRequest(f"metadata has a version, and texts of at most {MAX_TEXT} characters")


def check_digests(digests: Mapping[int, bytes]) -> None:
    """Digests of pieces."""
    check_numbers(digests)
    if any(len(digest) != PIECE_DIGEST_LENGTH for digest in digests.values()):
        raise InvalidRequest(f"a piece digest has {PIECE_DIGEST_LENGTH} bytes")


def check_numbers(numbers: Iterable[int]) -> None:
    """Numbers of pieces."""
    if any(not 0 <= number < MAX_PIECES for number in numbers):
        raise InvalidRequest(f"piece numbers are 0 to {MAX_PIECES - 1}")


def check_words(words: str, most: int = MAX_WORDS) -> None:
    """A sentence for people."""
    if len(words) > most:
        raise InvalidRequest(f"a failure is told in at most {most} characters")


def check_failure(failure: Failure | None, most: int = MAX_WORDS) -> None:
    """Why something failed, if it did."""
    if failure is not None:
        check_words(failure.words, most)
        check_seconds(failure.retry_after or 0.0)


def check_seconds(seconds: float) -> None:
    """A time from now."""
    if not (isfinite(seconds) and seconds >= 0):
        raise InvalidRequest("a time is a number of seconds")


def check_address(address: str) -> None:
    """Where a host is reached."""
    if not _ADDRESS.fullmatch(address):
        raise InvalidRequest("an address must be HOST:PORT without spaces")


def check_assignment(assignment: Assignment) -> None:
    """A decision of a scheduler, but for orders of preheats, which only a trusted one gives."""
    task = getattr(assignment, "task", None)
    if task is not None:
        check_task(task)
    match assignment:
        case TaskDescribed():
            check_meta(assignment.meta)
        case PieceDigests():
            check_digests(assignment.digests)
        case ParentsAssigned():
            if len(assignment.parents) > MAX_PARENTS:
                raise InvalidRequest(f"a host gets at most {MAX_PARENTS} parents for a task")
            for parent in assignment.parents:
                _check_parent(parent)
        case SourceGranted():
            _check_granted(assignment)
        case CheckGranted():
            _check_name(assignment.grant)
            check_spec(assignment.task, assignment.spec)
            check_meta(assignment.meta)
            check_seconds(assignment.patience)
        case TaskFresh():
            check_seconds(assignment.seconds)
        case TaskMoved():
            if not is_generation(assignment.generation):
                raise InvalidRequest("a generation is 12 hexadecimal digits, or nothing")
        case TaskFailed():
            if len(assignment.places) > MAX_PLACES:
                raise InvalidRequest(f"at most {MAX_PLACES} places of a content are kept")
            for failure in (assignment.failure, *assignment.places.values()):
                check_failure(failure, LONGEST_WORDS)  # more than one may be told in a sentence
        case _:
            pass


def _check_granted(granted: SourceGranted) -> None:
    _check_name(granted.grant)
    check_spec(granted.task, granted.spec)
    check_digests(granted.digests)
    if granted.meta is not None:
        check_meta(granted.meta)
    total = 0
    for first, count in granted.pieces or ():
        total += count
        if first < 0 or count < 0 or first + count > MAX_PIECES or total > MAX_PIECES:
            raise InvalidRequest(f"what is to be read are runs of pieces 0 to {MAX_PIECES - 1}")


def _check_parent(parent: Parent) -> None:
    _check_name(parent.host)
    check_address(parent.address)
    index, count = (0, 1) if parent.stripe is None else parent.stripe
    if not 0 <= index < count <= MAX_STRIPES:
        raise InvalidRequest(f"a stripe is one of at most {MAX_STRIPES}")


def _check_name(name: str) -> None:
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidRequest(f"hosts and grants are named with at most {MAX_NAME} characters")
