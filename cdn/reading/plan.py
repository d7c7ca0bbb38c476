"""What to ask of a source, and what its answer means. Pure.

Offsets are of two kinds: *source* offsets count from the source's first byte, *content* offsets from the
first byte of the task (they differ for a task that is a range of its source; see :class:`Window`).

Signals that end an attempt, caught by the session::

    ReadSignal
    ├── ContentChanged    the source has another version than the one being read: begin again
    └── RangesUnusable    its ranges cannot be trusted, in words: read it whole, from the front
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from cdn.sources.interface import ContentRange, SourceResponse
from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.task.bitmap import Bitmap
from shared.task.pieces import MAX_PIECE_LENGTH, PieceLayout, piece_length_for


class ReadSignal(Exception):
    """Ends one attempt to read; never leaves this package."""


class ContentChanged(ReadSignal):
    """What comes now is not of the version that is being read."""


class RangesUnusable(ReadSignal):
    """The source's answers to ranges are wrong; the message says how."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the source the task is: from ``first`` to ``last`` (inclusive; None: to the end)."""

    first: int = 0
    last: int | None = None

    @classmethod
    def of(cls, byte_range: tuple[int, int] | None) -> Window:
        """The window for ``TaskSpec.byte_range``."""
        return cls() if byte_range is None else cls(*byte_range)

    @property
    def longest(self) -> int | None:
        """Bytes in the window when the source is long enough; None: no bound."""
        return None if self.last is None else self.last - self.first + 1

    def length(self, total: int) -> int:
        """Content bytes when the source has ``total``: the window is cut at the source's end.

        Raises SourceError (416, fault "request") when the source ends before the window begins.
        """
        if self.last is None:
            return total
        if total <= self.first:
            raise beyond_end(total)
        return min(self.last, total - 1) - self.first + 1


def beyond_end(total: int | None) -> SourceError:
    """The error for a requested range of which the source holds nothing."""
    known = "" if total is None else f" of {total} bytes"
    error = SourceError(
        f"the requested range lies beyond the end{known}: ask for a range that the source has",
        origin_status=416,
        fault="request",
    )
    error.status = 416
    return error


@dataclass(frozen=True, slots=True)
class Validators:
    """What an answer says about its version."""

    etag: str = ""
    last_modified: str = ""

    @property
    def strong(self) -> str:
        """The ETag when it may be used for If-Range (RFC 9110 §8.8.1), else ""."""
        return "" if self.etag.startswith("W/") else self.etag

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)

    def version(self, total: int | None, *, decoded: bool = False) -> str:
        """A short name for this version: equal validators and length, equal version.

        "" without validators: then nothing tells one version from another. Last-Modified counts only
        where there is no strong ETag.
        """
        if not self and total != 0:
            return ""
        parts = [self.etag, "" if self.strong else self.last_modified]
        parts += ["" if total is None else str(total), "decoded" if decoded else ""]
        hasher = hashlib.sha256()
        for part in parts:
            data = part.encode()
            hasher.update(len(data).to_bytes(4, "big") + data)
        return hasher.hexdigest()[:16]

    def contradicts(self, other: Validators) -> bool:
        """Whether ``other`` (of a later answer) is of another version; missing fields say nothing."""
        if self.etag and other.etag:
            if self.etag != other.etag:
                return True
            if self.strong:
                return False
        return bool(self.last_modified and other.last_modified and self.last_modified != other.last_modified)


@dataclass(frozen=True, slots=True)
class Ask:
    """A range of the source (inclusive), and the strong ETag it must belong to ("" for none)."""

    first: int
    last: int
    if_range: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What the first answer told. ``ranged``: it is the part that was asked for, and more can be asked for;
    otherwise it is the source from its first byte on. ``compare``: nothing but the digests of pieces tells
    whether this is the version that is known already."""

    meta: TaskMeta
    validators: Validators
    total: int | None
    ranged: bool
    compare: bool = False


def first_ask(window: Window, known: TaskMeta | None, wanted: Bitmap | None, span: int) -> Ask | None:
    """The range for the first request; None: ask for the whole source.

    With a known version that can be told from others, the first run of wanted pieces; with nothing known,
    the front, so that one request tells length, range support and version, and nothing is read twice.
    """
    if known is None:
        longest = window.longest
        return Ask(window.first, window.first + min(span, longest or span) - 1)
    validators = Validators(known.etag, known.last_modified)
    if not validators or known.length is None or not wanted:
        return None
    run = next(iter(cut_runs(wanted, known.piece_length, span)))
    layout = PieceLayout(known.length, known.piece_length)
    first, last = content_bytes(layout, run)
    return Ask(window.first + first, window.first + last, validators.strong)


def understand(
    answer: SourceResponse,
    ask: Ask | None,
    window: Window,
    known: TaskMeta | None,
    fresh_version: str,
    digest: str = "",
) -> Found:
    """What the first answer of an attempt means.

    ``fresh_version`` names the version when the answer has no validators. ``digest`` is that by which the
    content is known: then it makes the version, whatever the place where it is read says, so that pieces from
    several places go together. Raises SourceError, RangesUnusable, or ContentChanged when the answer is a later
    part of another version than ``known``.
    """
    validators = Validators(answer.etag, answer.last_modified)
    ranged = answer.status == 206
    if ranged:
        if ask is None:
            raise SourceError("the origin sent a part (206) when the whole was asked for", origin_status=206)
        total: int | None = check_part(answer, ask, None)
    else:
        total = answer.content_length if answer.content_length >= 0 else None
    length = None if total is None else window.length(total)
    version = validators.version(total, decoded=answer.decoded) if answer.repeatable else ""
    if digest:
        version = digest_version(digest, length, known)
    at_front = ask is None or not ranged or ask.first == window.first
    whole = at_front and ask is not None and ask.last - window.first + 1 >= (length or 0)
    if ranged and not version and not whole:
        raise RangesUnusable("its parts carry neither ETag nor Last-Modified")
    described = TaskMeta(
        version=version or fresh_version,
        piece_length=piece_length_for(answer.expected if length is None else length),
        length=length,
        etag=validators.etag,
        last_modified=validators.last_modified,
        content_type=answer.content_type,
    )
    found = Found(described, validators, total, ranged)
    if known is None:
        return found
    if version:
        if version == known.version:
            kept = described.length if known.length is None else known.length
            return Found(msgspec.structs.replace(known, length=kept), validators, total, ranged)
    elif _may_be(known, length, validators):
        kept = known.length if length is None else length
        return Found(msgspec.structs.replace(known, length=kept), validators, total, ranged, compare=True)
    if not at_front:
        raise ContentChanged
    return found


def digest_version(digest: str, length: int | None, known: TaskMeta | None) -> str:
    """The version of content that is known by its digest: the known one, unless it has another length."""
    if known is not None and (known.length is None or length in (None, known.length)):
        return known.version
    return hashlib.sha256(f"{digest} {'' if length is None else length}".encode()).hexdigest()[:16]


def _may_be(known: TaskMeta, length: int | None, validators: Validators) -> bool:
    """Whether an answer whose validators do not tell may be of the known version: the digests will."""
    same_length = length is None or known.length is None or length == known.length
    return same_length and Validators(known.etag, known.last_modified) == validators


def check_part(answer: SourceResponse, ask: Ask, total: int | None) -> int:
    """Hold a 206 against what was asked for and the total known so far; gives the total.

    Raises RangesUnusable in words, or ContentChanged when the total is another than before.
    """
    part = answer.range
    if part is None:
        raise RangesUnusable("a part came without a valid Content-Range")
    if answer.decoded:
        raise RangesUnusable("a part came compressed")
    if part.total is None:
        raise RangesUnusable("a part does not tell the whole length")
    if total is not None and part.total != total:
        raise ContentChanged
    expected = ContentRange(ask.first, min(ask.last, part.total - 1), part.total)
    if part != expected:
        raise RangesUnusable(
            f"bytes {expected.first}-{expected.last} were asked for and "
            f"Content-Range says {part.first}-{part.last}"
        )
    if answer.content_length not in (-1, len(part)):
        raise RangesUnusable(f"a part of {len(part)} bytes has Content-Length {answer.content_length}")
    return part.total


def check_follow_up(answer: SourceResponse, ask: Ask, found: Found) -> None:
    """Hold a later answer against the first one. Raises RangesUnusable or ContentChanged."""
    validators = Validators(answer.etag, answer.last_modified)
    if found.validators.contradicts(validators):
        raise ContentChanged
    if answer.status != 206:
        if validators and validators.version(
            answer.content_length if answer.content_length >= 0 else None, decoded=answer.decoded
        ) != found.validators.version(found.total):
            raise ContentChanged
        raise RangesUnusable("it answered a range with the whole content")
    check_part(answer, ask, found.total)
    if not validators and not ask.if_range:
        raise RangesUnusable("a later part carries neither ETag nor Last-Modified")


def wanted_pieces(count: int, pieces: Iterable[tuple[int, int]] | None, held: Bitmap) -> Bitmap:
    """Which of ``count`` pieces are to be read: those in the (first, count) runs (None: all) and not held."""
    if pieces is None:
        return Bitmap.full(count) - held
    asked = Bitmap()
    for first, length in pieces:
        start = min(max(first, 0), count)
        stop = min(max(first + length, start), count)
        asked = asked | (Bitmap.full(stop) - Bitmap.full(start))
    return asked - held


def cut_runs(wanted: Bitmap, piece_length: int, span: int) -> list[tuple[int, int]]:
    """The wanted pieces as (first, count) runs of at most ``span`` bytes (at least a piece), ascending."""
    most = max(1, span // piece_length)
    return [
        (start, min(most, first + count - start))
        for first, count in wanted.spans()
        for start in range(first, first + count, most)
    ]


def content_bytes(layout: PieceLayout, run: tuple[int, int]) -> tuple[int, int]:
    """First and last content byte (inclusive) of a run of pieces."""
    first, count = run
    last = first + count - 1
    return layout.offset(first), layout.offset(last) + layout.size(last) - 1


def round_span(span: int) -> int:
    """``span`` rounded up to whole longest pieces, so that a span never ends inside a piece."""
    return -(-span // MAX_PIECE_LENGTH) * MAX_PIECE_LENGTH


ASKING = 0.25
"""The most that waiting for an answer should take, as a share of the time that reading it takes."""


def worthwhile_span(span: int, asking: float, reading: float, received: int) -> int:
    """How many bytes to ask for at once, after an answer took ``asking`` seconds to begin, and its ``received``
    bytes ``reading`` seconds to come: never fewer than ``span``, the most so far."""
    if asking <= ASKING * reading:
        return span
    return max(span, int(received * asking / (ASKING * max(reading, 1e-6))))
