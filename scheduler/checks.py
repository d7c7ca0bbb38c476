"""What is checked of messages from outside before anything is made of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite

from scheduler.digests import DIGEST_SIZE
from shared.errors import InvalidRequest
from shared.protocol import (
    SECRET_SIZE,
    FreshWanted,
    HostLease,
    PeerHolding,
    PeerRegistered,
    PiecesHeld,
    Preheated,
    Report,
    Resolved,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
    TaskMeta,
)
from shared.swarm.metrics import SOURCES
from shared.task.bitmap import MAX_PIECES
from shared.task.digest import parse_content_digest
from shared.task.generation import is_generation
from shared.task.identity import MAX_URL_LENGTH
from shared.task.pieces import PieceLayout

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_TASK = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}")
_PLAIN = re.compile(r"[^\x00-\x20\x7f]{1,255}")
LONGEST_PIECE = 1 << 30
MAX_WORDS = 2000
MAX_TEXT = 1024
MAX_SCHEMES = 256
MAX_SLOTS = 100_000
MAX_ITEMS = 10_000


def check_lease(lease: HostLease, name: str) -> None:
    """Raises InvalidRequest when the lease of host ``name`` (of the path) cannot be taken."""
    if lease.host != name:
        raise InvalidRequest(f"the lease is for host {lease.host[:128]!r}, the path names {name[:128]!r}")
    if not _HOST.fullmatch(name):
        raise InvalidRequest("a host name has up to 128 letters, digits and . _ : @ -")
    if not _PLAIN.fullmatch(lease.address):
        raise InvalidRequest("the lease's address must be HOST:PORT without spaces")
    if not 0 < len(lease.instance) <= 128:
        raise InvalidRequest("the lease's instance must have 1 to 128 characters")
    if max(len(lease.location), len(lease.network)) > 255:
        raise InvalidRequest("the lease's location or network is longer than 255 characters")
    if not 1 <= lease.upload_slots <= MAX_SLOTS or lease.uploads < 0:
        raise InvalidRequest(f"the lease's upload slots must be 1 to {MAX_SLOTS}, its uploads not negative")
    if lease.secret and len(lease.secret) != SECRET_SIZE:
        raise InvalidRequest(f"the lease's secret must have {SECRET_SIZE} bytes")
    if not (isfinite(lease.secret_since) and lease.secret_since >= 0):
        raise InvalidRequest("when the lease's secret was made is told in seconds since 1970")
    if len(lease.schemes) > MAX_SCHEMES or not all(_SCHEME.fullmatch(name) for name in lease.schemes):
        raise InvalidRequest(f"the lease's schemes must be at most {MAX_SCHEMES} names of URL schemes")


def check_report(report: Report) -> None:
    """Raises InvalidRequest when a report cannot be true."""
    if isinstance(report, Resolved):
        _check_resolved(report)
        return
    if not _TASK.fullmatch(report.task):
        raise InvalidRequest("a task id has 64 lower-case hexadecimal digits")
    match report:
        case PeerRegistered():
            _check_spec(report)
        case PeerHolding():
            _check_spec(report)
            _check_meta(report.meta)
            _check_digests(report.digests)
            if len(report.held) > MAX_PIECES // 8:
                raise InvalidRequest("the bitmap is longer than any task needs")
            if not isfinite(report.fresh):
                raise InvalidRequest("how long content is fresh is told in seconds")
        case FreshWanted():
            _check_spec(report)
            _check_meta(report.meta)
        case SourcePieces():
            _check_digests(report.digests)
        case SourceOpened() | SourceFinished():
            _check_meta(report.meta)
        case PiecesHeld():
            _check_numbers(report.pieces)
        case SourceFailed():
            _check_words(report.failure.words)
        case Preheated():
            _check_words(report.failure.words if report.failure is not None else "")
            if report.length < 0 or not all(source in SOURCES for source in report.bytes):
                raise InvalidRequest(f"bytes are told by source: {', '.join(SOURCES)}")
        case _:
            pass


def _check_resolved(report: Resolved) -> None:
    if len(report.items) > MAX_ITEMS:
        raise InvalidRequest(f"a preheat brings at most {MAX_ITEMS} contents")
    for words in (report.image, *report.notes, report.failure.words if report.failure is not None else ""):
        _check_words(words)
    for item in report.items:
        _check_words(item.what)
        if len(item.spec.url) > MAX_URL_LENGTH or (item.length is not None and item.length < 0):
            raise InvalidRequest("a content has a URL, and a length that is not negative")


def _check_words(words: str) -> None:
    if len(words) > MAX_WORDS:
        raise InvalidRequest(f"a failure is told in at most {MAX_WORDS} characters")


def _check_spec(report: PeerRegistered | PeerHolding | FreshWanted) -> None:
    spec = report.spec
    if len(spec.url) > MAX_URL_LENGTH:
        raise InvalidRequest(f"the URL has {len(spec.url)} characters: at most {MAX_URL_LENGTH} are allowed")
    if not is_generation(spec.generation):
        raise InvalidRequest("a generation is 12 hexadecimal digits, or nothing")
    if spec.digest and ":".join(parse_content_digest(spec.digest)) != spec.digest:
        raise InvalidRequest("the digest of a task is written in lower case")
    if spec.task_id != report.task:
        raise InvalidRequest("the task id does not belong to the task's URL, tag, application and range")


def _check_meta(meta: TaskMeta) -> None:
    if not 0 < meta.piece_length <= LONGEST_PIECE:
        raise InvalidRequest(f"a piece length is 1 to {LONGEST_PIECE} bytes, not {meta.piece_length}")
    if meta.length is not None and meta.length < 0:
        raise InvalidRequest("a length is not negative")
    if meta.length is not None and PieceLayout(meta.length, meta.piece_length).count > MAX_PIECES:
        raise InvalidRequest(f"a task has at most {MAX_PIECES} pieces")
    if meta.revalidate is not None and not (isfinite(meta.revalidate) and meta.revalidate >= 0):
        raise InvalidRequest("the age at which content is checked is a number of seconds")
    texts = (meta.version, meta.etag, meta.last_modified, meta.content_type, meta.digest)
    if not meta.version or any(len(text) > MAX_TEXT for text in texts):
        raise InvalidRequest(f"metadata has a version, and texts of at most {MAX_TEXT} characters")


def _check_digests(digests: dict[int, bytes]) -> None:
    _check_numbers(digests)
    if any(len(digest) != DIGEST_SIZE for digest in digests.values()):
        raise InvalidRequest(f"a piece digest has {DIGEST_SIZE} bytes")


def _check_numbers(numbers: Iterable[int]) -> None:
    if any(not 0 <= number < MAX_PIECES for number in numbers):
        raise InvalidRequest(f"piece numbers are 0 to {MAX_PIECES - 1}")
