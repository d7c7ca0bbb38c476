"""A sink in memory, and a small origin on loopback whose every wrong answer can be asked for."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.reader import SourceReader
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob
from shared.task.bitmap import Bitmap
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec

KIB = 1024
MIB = 1024 * KIB
PIECE = 512 * KIB


def random_bytes(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


class MemorySink:
    """Keeps pieces as the store does: a new version drops the old one's."""

    def __init__(self) -> None:
        self.metas: list[TaskMeta] = []
        self.pieces: dict[int, bytes] = {}
        self.digests: dict[int, bytes] = {}
        self.written: list[int] = []
        self.count = 0
        self.final: TaskMeta | None = None
        self.on_piece: Callable[[int], None] | None = None

    @property
    def meta(self) -> TaskMeta:
        return self.metas[-1]

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces[n] for n in range(len(self.pieces)))

    def hold(self, meta: TaskMeta, content: bytes, numbers: list[int]) -> None:
        """Begin with these pieces held."""
        self.metas.append(meta)
        for n in numbers:
            self.pieces[n] = content[n * meta.piece_length : (n + 1) * meta.piece_length]
            self.digests[n] = piece_digest(self.pieces[n])

    async def opened(self, meta: TaskMeta) -> None:
        await trio.lowlevel.checkpoint()
        if self.metas and meta.version != self.meta.version:
            self.pieces, self.digests, self.written = {}, {}, []
        self.metas.append(meta)

    def held(self) -> Bitmap:
        return Bitmap(self.pieces)

    def digest(self, number: int) -> bytes | None:
        return self.digests.get(number)

    async def piece(self, number: int, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        assert number not in self.pieces, "a piece was read twice"
        if self.on_piece is not None:
            self.on_piece(number)
        self.pieces[number] = bytes(data)
        self.digests[number] = piece_digest(data)
        self.written.append(number)

    def received(self, count: int) -> None:
        self.count += count

    async def throttle(self, count: int) -> None:
        await trio.lowlevel.checkpoint()

    async def finished(self, meta: TaskMeta) -> None:
        self.final = meta


@dataclass(frozen=True)
class Behaviour:
    """How the origin answers. ``cuts``: the body of the n-th answer (from 0) ends after so many bytes."""

    content: bytes = b""
    etag: str = '"one"'
    last_modified: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: str = "honour"  # ignore | shifted | wrong total | no header | gzip | no total | shorter | longer
    framing: str = "length"  # chunked | close
    gzipped: bool = False
    cuts: Mapping[int, int] = field(default_factory=dict)
    empty_is_416: bool = False


@dataclass
class Seen:
    """One request."""

    path: str
    headers: dict[str, str]
    status: int = 0
    body: int = 0

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


class FakeOrigin:
    """Serves ``behaviours`` by path; ``hook`` may change anything before each answer."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.seen: list[Seen] = []
        self.hook: Callable[[Seen], None] | None = None
        self.address = ""

    def url(self, path: str = "/file") -> str:
        return f"http://{self.address}{path}"

    def change(self, path: str = "/file", **changes: object) -> None:
        self.behaviours[path] = replace(self.behaviours[path], **changes)  # type: ignore[arg-type]

    async def handle(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await self._handle(stream)

    async def _handle(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await stream.receive_some(65536)
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in lines)
            seen = Seen(first.split(" ")[1], {name.lower(): value for name, value in pairs})
            index = len(self.seen)
            self.seen.append(seen)
            if self.hook is not None:
                self.hook(seen)
            behaviour = self.behaviours.get(seen.path, Behaviour(status=404))
            if not await self._answer(stream, seen, behaviour, index):
                return

    async def _answer(self, stream: trio.SocketStream, seen: Seen, b: Behaviour, index: int) -> bool:
        status, body, fields = b.status, b.content, dict(b.headers)
        if b.etag:
            fields["ETag"] = b.etag
        if b.last_modified:
            fields["Last-Modified"] = b.last_modified
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range)
        fits = seen.headers.get("if-range", b.etag) == b.etag
        if seen.headers.get("if-none-match") == b.etag and b.etag:
            status, body = 304, b""
        elif status == 200 and match and b.ranges != "ignore" and fits:
            first, total = int(match[1]), len(body)
            last = min(int(match[2] or total), total - 1)
            if first >= total and (total or b.empty_is_416):
                status, body = 416, b""
                fields["Content-Range"] = f"bytes */{total}"
            elif total:
                status, body = 206, body[first : last + 1]
                fields |= self._part(b.ranges, first, last, total)
                body = {"shorter": body[:-1], "longer": body + b"x"}.get(b.ranges, body)
                body = gzip.compress(body) if b.ranges == "gzip" else body
        elif status == 200 and b.gzipped:
            body = gzip.compress(body)
            fields["Content-Encoding"] = "gzip"
        elif status != 200:
            body = b"no"
        seen.status = status
        chunked = b.framing == "chunked" or b.ranges in ("shorter", "longer")
        if chunked:
            fields["Transfer-Encoding"] = "chunked"
        elif b.framing == "length":
            fields["Content-Length"] = str(len(body))
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        cut = b.cuts.get(index)
        whole = body if cut is None else body[:cut]
        payload = memoryview(whole)
        await stream.send_all("\r\n".join(lines).encode())
        for start in range(0, len(payload), 256 * KIB):
            chunk = payload[start : start + 256 * KIB]
            if chunked:
                await stream.send_all(b"%x\r\n" % len(chunk) + bytes(chunk) + b"\r\n")
            else:
                await stream.send_all(chunk)
            seen.body += len(chunk)
        if cut is not None:
            return False
        if chunked:
            await stream.send_all(b"0\r\n\r\n")
        return b.framing != "close"

    @staticmethod
    def _part(ranges: str, first: int, last: int, total: int) -> dict[str, str]:
        if ranges == "shifted":
            first, last = first + 1, last + 1
        shown = {"wrong total": str(total + 5), "no total": "*"}.get(ranges, str(total))
        fields = {} if ranges == "no header" else {"Content-Range": f"bytes {first}-{last}/{shown}"}
        return fields | ({"Content-Encoding": "gzip"} if ranges == "gzip" else {})


@asynccontextmanager
async def serving() -> AsyncIterator[FakeOrigin]:
    origin = FakeOrigin()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        origin.address = f"{host}:{port}"
        nursery.start_soon(trio.serve_listeners, origin.handle, listeners)
        yield origin
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def reading(**settings: object) -> AsyncIterator[tuple[SourceReader, CollectorRegistry]]:
    registry = CollectorRegistry()
    config = SourceConfig(**{"retry_delay": 0.0, "span": 16 * MIB, **settings})  # type: ignore[arg-type]
    async with SourceReader.open(config, registry) as reader:
        yield reader, registry


def job(url: str, byte_range: str = "", **rest: object) -> OriginJob:
    return OriginJob(TaskSpec(url=url, range=byte_range), **rest)  # type: ignore[arg-type]
