"""Heads of messages: what a request's must hold to be served, and a response's in bytes.

h11 reads requests and keeps the connection's state. Response heads are made and checked here, because
h11 builds and validates each one twice, which is a third of a small request's time. Pure, but for the
clock behind the Date field.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import h11

from shared.http.limits import ServerLimits
from shared.http.messages import Response

STATUS_LINES = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
BODYLESS = frozenset({204, 304})
"""Final statuses that never have a body (RFC 9110 §15)."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_OURS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding"})
"""Fields that frame a message or live with it: a handler's are understood, not passed on blindly."""


class Refusal(Exception):
    """A request that is not served: the status to answer, and why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class RequestFrame:
    """``length`` of the body (None: its end will tell), and whether the client allows another request."""

    length: int | None
    keep_alive: bool


_PLAIN = RequestFrame(0, True)


def check_request(head: h11.Request, limits: ServerLimits, received: int) -> RequestFrame:
    """How the request is framed.

    ``received`` is how many bytes came since the last request, to spare the exact count where the limit
    cannot have been passed. Raises Refusal for what h11 lets through and a careful server does not (RFC
    9112): other versions, a Content-Length beside a Transfer-Encoding, sizes beyond ``limits``.
    """
    version = head.http_version
    if version != b"1.1" and not version.startswith(b"1."):
        raise Refusal(505, "this server speaks HTTP/1.1")
    if len(head.target) > limits.max_target_bytes:
        raise Refusal(414, f"the request target is longer than {limits.max_target_bytes} bytes")
    if len(head.headers) > limits.max_headers:
        raise Refusal(431, f"the request has more than {limits.max_headers} header fields")
    if received > limits.max_header_bytes:
        size = len(head.method) + len(head.target) + 12 + sum(len(n) + len(v) + 4 for n, v in head.headers)
        if size > limits.max_header_bytes:
            raise Refusal(431, f"the request's headers are longer than {limits.max_header_bytes} bytes")
    length: int | None = None
    chunked = host = False
    keep_alive = version != b"1.0"
    for name, value in head.headers:
        if name == b"host":
            host = True
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"connection":
            keep_alive = keep_alive and b"close" not in [v.strip() for v in value.lower().split(b",")]
        elif name == b"expect" and value.lower() != b"100-continue":
            raise Refusal(417, "the only expectation that is met is 100-continue")
    if not host and version != b"1.0":
        raise Refusal(400, "the request has no Host header")
    if chunked:
        if length is not None:
            raise Refusal(400, "the request has a Content-Length and a Transfer-Encoding: send one of them")
        if version == b"1.0":
            raise Refusal(400, "an HTTP/1.0 request cannot have a Transfer-Encoding")
        return RequestFrame(None, keep_alive)
    return _PLAIN if keep_alive and not length else RequestFrame(length or 0, keep_alive)


def refusal_of(error: h11.RemoteProtocolError, unread: bytes, limits: ServerLimits) -> Refusal:
    """What to answer to bytes that h11 cannot take for a request."""
    status = error.error_status_hint
    if status == 431:
        if b"\n" not in unread:
            return Refusal(414, f"the request target is longer than {limits.max_target_bytes} bytes")
        return Refusal(431, f"the request's headers are longer than {limits.max_header_bytes} bytes")
    if status == 501:
        return Refusal(501, "the only transfer coding that is understood is chunked")
    return Refusal(400, "the request is not valid HTTP/1.1")


@dataclass(frozen=True, slots=True)
class ResponseFrame:
    """A response's head in bytes, and how its body is framed.

    ``length`` is the announced one; None is either ``chunked`` or up to the connection's end.
    """

    head: bytes
    length: int | None
    chunked: bool
    close: bool


def frame_response(
    response: Response, length: int | None, *, date: bytes, close: bool, bare: bool, old: bool
) -> ResponseFrame:
    """Frame ``response`` with a body of ``length`` bytes (None: unknown).

    ``close``: the connection ends after it. ``bare``: the body is not sent (HEAD, 204, 304), and may be
    announced as anything. ``old``: to an HTTP/1.0 client, which does not know chunks. Raises ValueError
    when a field is not valid HTTP (a line break in it, say) or contradicts the body.
    """
    status = response.status
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is not the status of a final response")
    line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    parts = [line]
    announced: int | None = None
    dated = False
    for name, value in response.headers:
        lower = name.lower()
        if lower in _OURS:
            if lower == "content-length":
                announced = _number(value)
            elif lower == "connection":
                close = close or "close" in value.lower()
            elif lower == "date":
                dated = True
                parts.append(_field(name, value))
            continue
        parts.append(_field(name, value))
    if response.content_type is not None:
        parts.append(_field("content-type", response.content_type))
    if announced is None:
        announced = None if status in BODYLESS else length
    elif not bare and length is not None and announced != length:
        raise ValueError(f"Content-Length says {announced}, the body has {length} bytes")
    chunked = False
    if announced is not None:
        parts.append(b"content-length: %d\r\n" % announced)
    elif status not in BODYLESS:
        chunked = not old
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        close = close or (old and not bare)
    if not dated:
        parts.append(date)
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return ResponseFrame(b"".join(parts), announced, chunked, close)


def _field(name: str, value: str) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"the header name {name!r} is not valid")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value of header {name!r} holds a control character")
    line = f"{name}: {value}\r\n"
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode()


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"the Content-Length {value!r} is not a number")
    return int(value)


class DateField:
    """The Date field (RFC 9110 §6.6.1), made once a second."""

    __slots__ = ("_second", "_value")

    def __init__(self) -> None:
        self._second = -1
        self._value = b""

    def now(self) -> bytes:
        """The whole field line."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._value = b"date: %s\r\n" % formatdate(second, usegmt=True).encode()
        return self._value
