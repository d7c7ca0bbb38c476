"""A storage behind a hub or a registry: content at signed URLs that expire, for whoever has them and for nobody
who shows other credentials (as object stores refuse a second way to sign)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from shared.errors import SourceError
from shared.http.fields import Headers
from shared.http.messages import Handler, Request, Response
from shared.http.ranges import select
from shared.http.server import HttpServer, bound_address, listen_tcp


@dataclass(frozen=True)
class Seen:
    """One request, and the status of its answer."""

    method: str
    target: str
    headers: Headers
    status: int

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass
class Storage:
    """``cuts``: the body of the n-th answer (from 0) ends after so many bytes. ``hook`` is called before each
    answer with its number. ``refusal`` is the status for a signature that is not (or no longer) good; one for GET
    is good for HEAD too where ``heads``."""

    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    cuts: dict[int, int] = field(default_factory=dict)
    hook: Callable[[int], None] | None = None
    refusal: int = 403
    heads: bool = True
    signature: int = 1
    address: str = ""
    seen: list[Seen] = field(default_factory=list)

    def put(self, content: bytes, etag: str = "") -> str:
        """Keep an object; gives its name. Its ETag is of the storage's own making."""
        name = f"object-{len(self.objects)}"
        self.objects[name] = content
        self.etags[name] = etag or f'"{name}-of-{len(content)}"'
        return name

    def sign(self, name: str) -> str:
        """A URL at which the object can be read until :meth:`expire`."""
        return f"http://{self.address}/{name}?Expires=1&Signature=secret-{self.signature}"

    def expire(self) -> None:
        """Let every URL given so far expire."""
        self.signature += 1

    async def __call__(self, request: Request) -> Response:
        number = len(self.seen)
        if self.hook is not None:
            self.hook(number)
        response = self._answer(request, number)
        self.seen.append(Seen(request.method, request.target, request.headers, response.status))
        return response

    def _answer(self, request: Request, number: int) -> Response:
        name = request.raw_path.strip("/")
        if "authorization" in request.headers:
            return Response.text("one way to sign is enough", 400)
        signed = request.query.get("Signature") == f"secret-{self.signature}"
        if not signed or name not in self.objects or (request.method == "HEAD" and not self.heads):
            return Response.text("the signature has expired", self.refusal)
        answer = content_response(request, self.objects[name], self.etags[name])
        if number in self.cuts and isinstance(answer.body, memoryview):
            answer.length = len(answer.body)
            answer.body = _cut(bytes(answer.body[: self.cuts[number]]))
        return answer


async def _cut(front: bytes) -> AsyncIterator[bytes]:
    yield front
    raise SourceError("cut here by the test")


def content_response(
    request: Request, content: bytes, etag: str, headers: list[tuple[str, str]] | None = None
) -> Response:
    """Content, or the range of it that is asked for."""
    chosen = select(request.method, request.headers, length=len(content), etag=etag)
    span = chosen.span
    body = memoryview(content)[span.start : span.stop] if span is not None else b""
    return Response(chosen.status, body, [*chosen.headers, *(headers or [])], "application/octet-stream")


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """Serve on loopback; gives "host:port"."""
    server = HttpServer(handler)
    listeners = await listen_tcp("127.0.0.1:0")
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await server.serve(listeners, task_status=task_status)

        await nursery.start(serve)
        yield bound_address(listeners[0])
        nursery.cancel_scope.cancel()
