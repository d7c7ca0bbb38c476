"""Byte ranges and conditional requests (RFC 9110 §13 and §14). Pure.

:func:`select` turns a request's header fields and what is known of the content into the status to answer,
the bytes to send, and the header fields that go with them. One range is served; several that touch or
overlap are served as the one that covers them, others are ignored and the whole is sent (§14.2 allows it:
a server may ignore Range, and many small ranges are an old attack).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shared.http.fields import Headers

MAX_RANGES = 16
"""More ranges than this in one request are ignored."""

_ETAG = re.compile(r'\s*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))\s*(?:,|$)')
_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` (included) to ``stop`` (excluded)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def content_range(self, length: int | None) -> str:
        """The value of Content-Range for content of ``length`` bytes (None: unknown)."""
        return f"bytes {self.start}-{self.stop - 1}/{'*' if length is None else length}"


def parse_range_header(value: str, length: int) -> tuple[Span, ...] | None:
    """The satisfiable spans of a Range value, cut to ``length``, in their order.

    None: to be ignored (another unit, malformed, too many). Empty: valid, but none can be satisfied (416).
    """
    unit, equals, text = value.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    parts = [part.strip() for part in text.split(",")]
    spans: list[Span] = []
    seen = 0
    for part in parts:
        if not part:
            continue  # empty list members are allowed (§5.6.1)
        match = _RANGE.fullmatch(part)
        if match is None or not (match[1] or match[2]):
            return None
        seen += 1
        if not match[1]:
            suffix = min(int(match[2]), length)
            if suffix:
                spans.append(Span(length - suffix, length))
            continue
        start = int(match[1])
        stop = length if not match[2] else int(match[2]) + 1
        if match[2] and stop <= start:
            return None  # "invalid if the last-pos value is present and less than first-pos" (§14.1.1)
        if start < length:
            spans.append(Span(start, min(stop, length)))
    return tuple(spans) if 0 < seen <= MAX_RANGES else None


def merge(spans: tuple[Span, ...]) -> Span | None:
    """The one span that covers exactly what ``spans`` cover together; None when they leave gaps."""
    ordered = sorted(spans, key=lambda span: span.start)
    covering: Span | None = None
    for span in ordered:
        if covering is None:
            covering = span
        elif span.start > covering.stop:
            return None
        else:
            covering = Span(covering.start, max(covering.stop, span.stop))
    return covering


@dataclass(frozen=True, slots=True)
class Selection:
    """What to answer: 200 or 206 with the bytes of ``span``, or 304, 412, 416 without a body.

    ``span`` is None without a body, and when the length is not known (then everything is to be sent).
    ``headers`` holds ETag, Last-Modified, Accept-Ranges and Content-Range as they apply.
    """

    status: int
    span: Span | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def has_body(self) -> bool:
        """Whether bytes of the content are to be sent."""
        return self.status in (200, 206)


def select(
    method: str,
    headers: Headers,
    *,
    length: int | None,
    etag: str = "",
    last_modified: str = "",
) -> Selection:
    """Decide the answer to a GET or HEAD of existing content.

    ``length`` in bytes, None when it is not known (ranges are then ignored); ``etag`` as it stands in a
    header field (quoted, perhaps with W/), ``last_modified`` as an HTTP date; "" where there is none.
    Preconditions are looked at in the order of §13.2.2.
    """
    described = [(name, value) for name, value in (("etag", etag), ("last-modified", last_modified)) if value]
    modified = parse_date(last_modified)
    if (wanted := headers.get("if-match")) is not None:
        if not _matches(", ".join(headers.get_all("if-match")), etag, weak=False):
            return Selection(412, headers=described)
    elif (
        (date := parse_date(headers.get("if-unmodified-since", ""))) is not None
        and modified is not None
        and modified > date
    ):
        return Selection(412, headers=described)
    reading = method in ("GET", "HEAD")
    if (wanted := headers.get("if-none-match")) is not None:
        if _matches(", ".join(headers.get_all("if-none-match")), etag, weak=True):
            return Selection(304 if reading else 412, headers=described)
    elif (
        reading
        and (date := parse_date(headers.get("if-modified-since", ""))) is not None
        and modified is not None
        and modified <= date
    ):
        return Selection(304, headers=described)
    if length is None:
        return Selection(200, None, described)
    described.append(("accept-ranges", "bytes"))
    whole = Selection(200, Span(0, length), described)
    wanted = headers.get("range")
    if method != "GET" or wanted is None or not if_range_holds(headers.get("if-range"), etag, last_modified):
        return whole
    spans = parse_range_header(wanted, length)
    if spans is None:
        return whole
    if not spans:
        return Selection(416, headers=[*described, ("content-range", f"bytes */{length}")])
    span = merge(spans)
    if span is None:
        return whole
    return Selection(206, span, [*described, ("content-range", span.content_range(length))])


def if_range_holds(value: str | None, etag: str, last_modified: str) -> bool:
    """Whether the If-Range condition holds (§13.1.5): strong comparison, or exactly the same date."""
    if value is None:
        return True
    value = value.strip()
    if value.startswith(('"', "W/")):
        return bool(etag) and value == etag and not etag.startswith("W/")
    date = parse_date(value)
    return date is not None and date == parse_date(last_modified)


def parse_date(text: str) -> datetime | None:
    """An HTTP date (§5.6.7) as a time in UTC; None when it is not one."""
    if not text or len(text) > 64:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def _matches(value: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags (or "*") names ``etag``, by weak or strong comparison (§8.8.3.2)."""
    if value.strip() == "*":
        return True
    if not etag:
        return False
    own_weak, own = etag.startswith("W/"), etag.removeprefix("W/")
    at = 0
    while at < len(value):
        match = _ETAG.match(value, at)
        if match is None:
            return False
        if match[2] == own and (weak or not (match[1] or own_weak)):
            return True
        at = match.end()
    return False
