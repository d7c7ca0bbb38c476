"""A request as a handler sees it, and the response that it gives back."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote

import msgspec
import trio

from shared.errors import DragonetError
from shared.http.errors import RequestTooLarge
from shared.http.fields import Headers, Query
from shared.protocol import MSGPACK

__all__ = [
    "Body",
    "FileBody",
    "Handler",
    "Headers",
    "Push",
    "PushedBody",
    "Query",
    "Request",
    "RequestSource",
    "Response",
    "Upgrade",
    "error_response",
]


class RequestSource(Protocol):
    """Where the rest of a request comes from: its connection, or bytes in a test."""

    def announced_length(self) -> int | None:
        """The body's length as its head tells it; None when only its end will tell."""

    async def receive_body(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises RequestTimeout, ClientGone, InvalidRequest."""

    async def hangup(self) -> None:
        """Return when the client has closed its side."""

    def take_fds(self) -> list[int]:
        """File descriptors that came along; the caller closes them."""

    def body_limit(self) -> int:
        """The longest body to read at once, bytes, where the reader names no limit."""


class Request:
    """One HTTP request.

    ``target`` is as it came (RFC 9112 §3.2: origin, absolute, authority or asterisk form); ``path`` is its
    percent-decoded path, ``raw_path`` the same still encoded. ``params`` are the router's path parameters.
    ``peer`` is "ip:port" or "unix". ``tls`` tells whether the connection is encrypted.
    """

    __slots__ = (
        "_body",
        "_headers",
        "_path",
        "_query",
        "_raw_headers",
        "_source",
        "http_version",
        "method",
        "params",
        "peer",
        "raw_path",
        "raw_query",
        "target",
        "tls",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        source: RequestSource,
        *,
        peer: str = "",
        http_version: str = "1.1",
        tls: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.peer = peer
        self.http_version = http_version
        self.tls = tls
        self.params: dict[str, str] = {}
        self.raw_path, self.raw_query = _split_target(target)
        self._raw_headers = headers
        self._headers: Headers | None = None
        self._query: Query | None = None
        self._path: str | None = None
        self._body: bytes | None = None
        self._source = source

    @classmethod
    def make(
        cls,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        params: dict[str, str] | None = None,
        peer: str = "127.0.0.1:1",
    ) -> Request:
        """A request without a connection, to call a handler with (as tests do)."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        request = cls(method, target, raw, _GivenBody(body), peer=peer)
        request.params = params or {}
        return request

    @property
    def headers(self) -> Headers:
        """The header fields; names are in lower case."""
        if self._headers is None:
            self._headers = Headers((n.decode("latin-1"), v.decode("latin-1")) for n, v in self._raw_headers)
        return self._headers

    @property
    def path(self) -> str:
        """The decoded path. Bytes that are not UTF-8 become U+FFFD; dot segments stay as they are."""
        if self._path is None:
            self._path = unquote(self.raw_path) if "%" in self.raw_path else self.raw_path
        return self._path

    @property
    def query(self) -> Query:
        """The query's parameters. Raises InvalidRequest when there are absurdly many."""
        if self._query is None:
            self._query = Query(self.raw_query)
        return self._query

    @property
    def content_length(self) -> int | None:
        """The announced length of the body in bytes, 0 without a body, None when its end will tell."""
        return self._source.announced_length()

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body. The same bytes again when called again.

        ``limit`` in bytes defaults to the server's ``max_body_bytes``. Raises RequestTooLarge beyond it,
        RequestTimeout, ClientGone when the body is cut, InvalidRequest when it is malformed.
        """
        if self._body is not None:
            return self._body
        limit = self._source.body_limit() if limit is None else limit
        announced = self._source.announced_length()
        if announced is not None and announced > limit:
            raise RequestTooLarge(f"the request body has {announced} bytes: at most {limit} are taken here")
        body = bytearray()
        while chunk := await self._source.receive_body():
            body += chunk
            if len(body) > limit:
                raise RequestTooLarge(f"the request body is longer than {limit} bytes, the most taken here")
        self._body = bytes(body)
        return self._body

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes, without a limit of its length. Raises as :meth:`body` does."""
        while chunk := await self._source.receive_body():
            yield chunk

    async def hangup(self) -> None:
        """Return when the client has closed its side; to be waited for once the body has been read.

        For handlers that work long before they answer; stream bodies are watched by the server itself.
        """
        await self._source.hangup()

    def take_fds(self) -> list[int]:
        """File descriptors that came with the request (SCM_RIGHTS, unix sockets only).

        The caller owns and closes them. Those that nobody takes are closed by the server at the
        request's end.
        """
        return self._source.take_fds()

    def finish(self) -> None:
        """The request is over: nothing more can be read from it. Called by the server."""
        self._source = _OVER

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path} from {self.peer}>"


@dataclass(frozen=True, slots=True)
class FileBody:
    """Bytes of a file: an open descriptor (its owner closes it, e.g. in ``release``) or a path.

    ``length`` None means up to the end of the file as it is when the response begins.
    """

    file: int | str | Path
    offset: int = 0
    length: int | None = None

    def measure(self, fd: int) -> int:
        """The number of bytes to send from the open ``fd``. Raises OSError, ValueError when out of range."""
        available = os.fstat(fd).st_size - self.offset
        length = available if self.length is None else self.length
        if self.offset < 0 or not 0 <= length <= available:
            raise ValueError(f"{length} bytes from {self.offset} lie beyond the end of the file")
        return length


Body = bytes | bytearray | memoryview | FileBody | AsyncIterator[bytes] | AsyncIterator[memoryview] | None
Upgrade = Callable[[trio.abc.Stream], Awaitable[None]]


class Response:
    """What a handler answers.

    * ``body``: bytes; a memoryview of bytes (sent without a copy); a :class:`FileBody` (sendfile); an async
      iterator of bytes or memoryviews (sent without a copy, and not looked at any more when the next one is
      asked for), sent chunk by chunk (chunked, or exactly ``length`` bytes when given) and closed
      with ``aclose`` when the client hangs up (a client that only closed its sending side is served on as
      long as chunks follow within two seconds).
    * ``release`` is called exactly once when the response is over, however it ended.
    * ``upgrade`` with status 101, or 2xx for CONNECT: called with the connection's stream (what the client
      has sent early comes first) after the head is sent; the connection is closed when it returns.
    * ``endless`` marks an iterator that never ends by itself: a draining server ends it at once, cleanly,
      and a client that closes its side has hung up at once.

    A Content-Length among ``headers`` wins over the body's own (for HEAD answers); Date is added.
    """

    __slots__ = ("_release", "body", "content_type", "endless", "headers", "length", "status", "upgrade")

    def __init__(
        self,
        status: int = 200,
        body: Body = b"",
        headers: Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
        release: Callable[[], None] | None = None,
        length: int | None = None,
        *,
        upgrade: Upgrade | None = None,
        endless: bool = False,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = list(headers)
        self.content_type = content_type
        self.length = length
        self.upgrade = upgrade
        self.endless = endless
        self._release = release

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """A value that msgspec can encode, as JSON."""
        return cls(status, msgspec.json.encode(value), headers, "application/json")

    @classmethod
    def text(cls, text: str, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """Plain text in UTF-8."""
        return cls(status, text.encode(), headers, "text/plain; charset=utf-8")

    @classmethod
    def msgpack(cls, data: bytes, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
        """A message that is already encoded."""
        return cls(status, data, headers, MSGPACK)

    def finish(self) -> None:
        """Call ``release``, the first time. Called by the server (by whoever else drops a response)."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __repr__(self) -> str:
        return f"<Response {self.status} {type(self.body).__name__}>"


Handler = Callable[[Request], Awaitable[Response]]

Push = Callable[[bytes], bool]
"""Sends a chunk at once, without the task of its connection, if nothing else is being sent; whether it was taken."""


@runtime_checkable
class PushedBody(Protocol):
    """An iterator body that may also send chunks out of its turn, where its length is not told."""

    def attach(self, push: Push | None) -> None:
        """From now on by this; None: no more."""


def error_response(error: DragonetError) -> Response:
    """The error as ``{"error": {"message", "status"}}``, with Retry-After where it is known."""
    headers = []
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(0, math.ceil(error.retry_after)))))
    return failure_response(error.status, str(error), headers)


def failure_response(status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """An error of the HTTP layer itself, in the same form."""
    return Response.json({"error": {"message": message, "status": status}}, status, headers)


def _split_target(target: str) -> tuple[str, str]:
    """(raw path, raw query) of any form of request target."""
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or "?" in scheme:
            return target, ""  # authority form (CONNECT) or "*"
        start = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        target = rest[start:]
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return path, query


class _GivenBody:
    """A RequestSource with a body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def announced_length(self) -> int | None:
        return len(self._body)

    async def receive_body(self) -> bytes:
        await trio.lowlevel.checkpoint()
        body, self._body = self._body, b""
        return body

    async def hangup(self) -> None:
        await trio.sleep_forever()

    def take_fds(self) -> list[int]:
        return []

    def body_limit(self) -> int:
        return 1 << 62


class _Over:
    """The source of a request whose response is over."""

    def announced_length(self) -> int | None:
        return 0

    async def receive_body(self) -> bytes:
        raise RuntimeError("the request is over: its body must be read before its response ends")

    async def hangup(self) -> None:
        await trio.lowlevel.checkpoint()

    def take_fds(self) -> list[int]:
        return []

    def body_limit(self) -> int:
        return 0


_OVER = _Over()
