"""Sending requests and keeping connections."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import httpcore
import httpx
import trio

from shared.errors import ConfigError, InvalidRequest
from shared.http.client.dialing import ConnectCheck
from shared.http.client.errors import HttpProtocolError, HttpTimeout
from shared.http.client.feed import Answer, Feed, Feeds
from shared.http.client.network import NetworkBackend, NetworkStream, mapped, opened_here, seconds
from shared.http.client.pipeline import Pipeline
from shared.http.client.stream import ClientStream
from shared.http.client.transport import PoolTransport
from shared.http.fields import Headers
from shared.task.identity import redact_url

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]

DEFAULT_BODY_LIMIT = 16 * 1024 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_TARGET_SAFE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class ClientResponse:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class HttpClient:
    """Requests over kept-alive connections. Use as ``async with HttpClient() as client``.

    All durations are seconds. ``uds``: connect to this unix socket whatever host a URL names.
    ``proxy``: an ``http://`` proxy for everything; ``connect_check`` then sees only the proxy's address.
    ``ca_file``: certificates to trust besides the system's. ``connect_check`` may forbid an address.
    """

    def __init__(
        self,
        *,
        uds: Path | str | None = None,
        proxy: str | None = None,
        ca_file: Path | str | None = None,
        connect_check: ConnectCheck | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float | None = 30.0,
        write_timeout: float | None = 30.0,
        keepalive: float = 30.0,
        max_connections: int = 128,
        user_agent: str = "dragonet",
    ) -> None:
        if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
            raise ConfigError(f"proxy {redact_url(proxy)!r} is not supported: write it as http://host:port")
        self._uds = None if uds is None else str(uds)
        self._proxy = proxy
        self._ca_file = ca_file
        self._backend = NetworkBackend(connect_check if proxy is None else None)
        self._timeouts = {
            "connect": connect_timeout,
            "read": read_timeout,
            "write": write_timeout,
            "pool": connect_timeout,
        }
        self._keepalive = keepalive
        self._max_connections = max_connections
        self._user_agent = user_agent
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, idle or not."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for client in self._clients.values():
                await client.aclose()
        self._clients.clear()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderItems = (),
        content: bytes = b"",
        timeout: float | None = 30.0,
        limit: int = DEFAULT_BODY_LIMIT,
    ) -> ClientResponse:
        """One exchange with a small body each way.

        ``timeout`` is for all of it, ``limit`` the longest body accepted, in bytes. Raises HttpError, or
        what the connect check raises. Any status is an answer, not an error.
        """
        with _deadline(timeout, url):
            async with self.stream(method, url, headers=headers, content=content) as answer:
                parts: list[bytes] = []
                size = 0
                while chunk := await answer.receive():
                    size += len(chunk)
                    if size > limit:
                        raise HttpProtocolError(
                            f"{redact_url(url)} answered with more than the {limit} bytes that are accepted"
                        )
                    parts.append(chunk)
                return ClientResponse(answer.status, answer.headers, b"".join(parts))

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderItems = (),
        content: bytes = b"",
        timeout: float | None = None,
        read_timeout: float | None = None,
    ) -> AsyncIterator[ClientStream]:
        """One exchange whose answer is read as it comes, for as long as it comes.

        ``timeout`` is for the answer's head to arrive, ``read_timeout`` the longest silence between two
        bytes (None: the client's own; ``math.inf``: no limit). Leaving the block before the body's end
        closes the connection. Raises HttpError, also while the body is read.
        """
        answer = await self.open(
            method, url, headers=headers, content=content, timeout=timeout, read_timeout=read_timeout
        )
        try:
            yield answer
        finally:
            await answer.aclose()

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: HeaderItems = (),
        content: bytes = b"",
        timeout: float | None = None,
        read_timeout: float | None = None,
    ) -> ClientStream:
        """As :meth:`stream`, for an answer that outlives the block it is asked in: the caller closes it."""
        timeouts = dict(self._timeouts)
        if read_timeout is not None:
            timeouts["read"] = read_timeout
        request = self._build(method, url, headers, content, timeouts)
        with _deadline(timeout, url):
            response = await self._send(request, url)
        return ClientStream(response, url, timeouts["read"])

    async def pipeline(
        self,
        url: str,
        *,
        headers: HeaderItems = (),
        limit: int,
        read_timeout: float | None = None,
    ) -> Pipeline | None:
        """A new connection to the server of ``url``, for many small GETs that are asked for ahead.

        ``headers`` go with each of them; ``limit`` is the longest body that is received, in bytes. None where
        requests go through a proxy or a unix socket. Raises HttpError, or what the connect check raises.
        """
        if self._proxy is not None or self._uds is not None:
            return None
        if self._closed:
            raise RuntimeError("this HttpClient is closed")
        target, fields = self._target(url, headers)
        wire = b"".join(b"%b: %b\r\n" % field for field in fields)
        if wire.count(b"\r") != len(fields) or wire.count(b"\n") != len(fields) or b"\0" in wire:
            raise InvalidRequest("a header holds a line break: remove it")
        patience = self._timeouts["read"] if read_timeout is None else read_timeout
        return Pipeline(await self._dial(target, url), wire, limit, redact_url(url), patience)

    @contextlib.asynccontextmanager
    async def feed(
        self,
        url: str,
        *,
        headers: HeaderItems = (),
        timeout: float | None = None,
        read_timeout: float | None = None,
        quiet: bytes = b"",
        feeds: Feeds | None = None,
    ) -> AsyncIterator[Answer]:
        """A GET whose answer comes for hours, on a connection of its own.

        Limits and errors as for :meth:`stream`. A chunk of just the bytes ``quiet`` says only that the server is there,
        and need not be given; ``feeds`` has that cost next to nothing.
        """
        if self._proxy is not None or self._uds is not None:
            async with self.stream(
                "GET", url, headers=headers, timeout=timeout, read_timeout=read_timeout
            ) as answer:
                yield answer
            return
        if self._closed:
            raise RuntimeError("this HttpClient is closed")
        target, fields = self._target(url, headers)
        patience = self._timeouts["read"] if read_timeout is None else read_timeout
        feed: Feed | None = None
        try:
            with _deadline(timeout, url):
                feed = Feed(await self._dial(target, url), url, patience, quiet, feeds)
                await feed.ask(target.raw_path, fields)
            yield feed
        finally:
            if feed is not None:
                with trio.CancelScope(shield=True):
                    await feed.aclose()

    async def _dial(self, target: httpx.URL, url: str) -> NetworkStream:
        default = 443 if target.scheme == "https" else 80
        with mapped(url):
            host, patient = target.raw_host.decode(), self._timeouts["connect"]
            stream = await self._backend.connect_tcp(host, target.port or default, patient)
            if target.scheme == "https":
                stream = await stream.start_tls(self._trust(), host, patient)
        return stream

    async def _send(self, request: httpx.Request, url: str) -> httpx.Response:
        client = self._client(request.url.scheme == "https")
        token = opened_here.set(False)
        try:
            with mapped(url):
                try:
                    return await client.send(request, stream=True)
                except (httpcore.ReadError, httpcore.RemoteProtocolError, httpcore.WriteError):
                    # A kept-alive connection that the server closed just now: once more on a new one
                    # (RFC 9112 §9.3.1), but never a request that might have had an effect.
                    if opened_here.get() or request.method not in _IDEMPOTENT:
                        raise
                    return await client.send(request, stream=True)
        finally:
            opened_here.reset(token)

    def _build(
        self, method: str, url: str, headers: HeaderItems, content: bytes, timeouts: dict[str, float | None]
    ) -> httpx.Request:
        target_url, wire = self._target(url, headers)
        if content or method in ("POST", "PUT", "PATCH"):
            wire.append((b"Content-Length", str(len(content)).encode()))
        return httpx.Request(
            method,
            target_url,
            headers=wire,
            stream=httpx.ByteStream(content),
            extensions={"timeout": timeouts},
        )

    def _target(self, url: str, headers: HeaderItems) -> tuple[httpx.URL, list[tuple[bytes, bytes]]]:
        """A URL in the library's form, and the header fields for a request to it. Raises InvalidRequest."""
        target_url, host_header = _split(url)
        items = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in items}
        wire = [] if "host" in names else [(b"Host", host_header)]
        if "user-agent" not in names:
            wire.append((b"User-Agent", self._user_agent.encode()))
        if "accept" not in names:
            wire.append((b"Accept", b"*/*"))
        wire += [(name.encode(), value.encode()) for name, value in items]
        return target_url, wire

    def _client(self, tls: bool) -> httpx.AsyncClient:
        if self._closed:
            raise RuntimeError("this HttpClient is closed")
        client = self._clients.get(tls)
        if client is None:
            proxy = None
            if self._proxy is not None:
                parts = urlsplit(self._proxy)
                auth = None
                if parts.username is not None:
                    auth = (parts.username, parts.password or "")
                bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
                proxy = httpcore.Proxy(bare, auth=auth)
            needs_tls = tls or (self._proxy is not None and self._proxy.startswith("https:"))
            pool = httpcore.AsyncConnectionPool(
                ssl_context=self._trust() if needs_tls else None,
                proxy=proxy,
                max_connections=self._max_connections,
                keepalive_expiry=self._keepalive,
                uds=self._uds,
                network_backend=self._backend,
            )
            client = self._clients[tls] = httpx.AsyncClient(
                transport=PoolTransport(pool), trust_env=False, follow_redirects=False
            )
        return client

    def _trust(self) -> ssl.SSLContext:
        if self._tls is not None:
            return self._tls
        context = ssl.create_default_context()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"certificates in {self._ca_file} cannot be read: {error}") from error
        self._tls = context
        return context

    def __repr__(self) -> str:
        where = f" on {self._uds}" if self._uds else ""
        return f"<HttpClient{where}: {'closed' if self._closed else f'{len(self._clients)} pools'}>"


@contextlib.contextmanager
def _deadline(limit: float | None, url: str) -> Iterator[None]:
    with trio.move_on_after(seconds(limit)) as scope:
        yield
    if scope.cancelled_caught:
        raise HttpTimeout(f"{redact_url(url)} did not answer within {limit:g} s")


def wire_target(url: str) -> bytes:
    """A URL's path and query as they stand in a request line."""
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=_TARGET_SAFE)
    return (target + "?" + quote(parts.query, safe=_TARGET_SAFE) if parts.query else target).encode()


def _split(url: str) -> tuple[httpx.URL, bytes]:
    """A URL in the library's form, and its Host header. Raises InvalidRequest."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        wire_host = host.encode("ascii") if host.isascii() else host.encode("idna")
    except (ValueError, UnicodeError) as error:
        raise InvalidRequest(f"{redact_url(url)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidRequest(f"{redact_url(url)!r} is not an HTTP URL: write it as https://host/path")
    # a link-local address goes by its zone here, but the zone means nothing elsewhere (RFC 6874 §1)
    header = b"[" + wire_host.partition(b"%")[0] + b"]" if b":" in wire_host else wire_host
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        header += b":%d" % port
    try:
        return httpx.URL(scheme=parts.scheme, host=host, port=port, raw_path=wire_target(url)), header
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest(f"{redact_url(url)!r} is not a URL: {error}") from None
