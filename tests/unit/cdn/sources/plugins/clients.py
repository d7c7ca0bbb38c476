"""Source plugins as their authors write them: one that keeps its promises, and ways of breaking them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.reader import SourceReader
from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    ResourceClient,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.plugins.adapter import adapt
from cdn.sources.registry import Opener
from tests.unit.cdn.fakes import MIB, MemorySink, job, random_bytes

CONTENT = random_bytes(40 * MIB + 77, 5)
"""Long enough to be asked for in three ranges."""
SHORT = random_bytes(300_000, 6)
MEMORY = 1024 * MIB
PATIENCE = 60.0
"""Longer than any test takes: nothing may wait for it."""
SOON = 0.25
"""For what is to run into its deadline."""


def url(name: str = "good") -> str:
    return f"{name}://host:56001/path"


class Good(ResourceClient):
    """Plain methods, ranges, and an ETag."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.etag = '"one"'
        self.asked: list[tuple[int, int | None] | None] = []

    def get_content_length(self, request: SourceRequest) -> int:
        return len(self.content)

    def is_support_range(self, request: SourceRequest) -> bool:
        return True

    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return info.etag != self.etag

    def get_last_modified(self, request: SourceRequest) -> int:
        return 1_700_000_000_000

    def download(self, request: SourceRequest) -> SourceResponse:
        self.asked.append(request.range)
        if request.range is None or request.if_range not in ("", self.etag):
            return self.whole(request)
        last = len(self.content) - 1
        if request.range[0] > last:
            raise RangeNotSatisfiable("beyond the end", total=len(self.content), etag=self.etag)
        return self.part(request, request.range[0], min(last, request.range[1] or last))

    def whole(self, request: SourceRequest) -> SourceResponse:
        return SourceResponse(chunks(self.content), content_length=len(self.content), etag=self.etag)

    def part(self, request: SourceRequest, first: int, last: int) -> SourceResponse:
        return SourceResponse(
            chunks(self.content[first : last + 1]),
            status=206,
            range=ContentRange(first, last, len(self.content)),
            etag=self.etag,
        )


class Simple(Good):
    """The seed's example: no ranges, no version, no length told."""

    def is_support_range(self, request: SourceRequest) -> bool:
        return False

    def get_content_length(self, request: SourceRequest) -> int:
        return UNKNOWN_SOURCE_FILE_LENGTH

    def download(self, request: SourceRequest) -> SourceResponse:
        self.asked.append(request.range)
        return SourceResponse(chunks(self.content))


class Gives(Good):
    """Its ``download`` gives (or does) what it is made with."""

    def __init__(self, give: Callable[[SourceRequest], Any], content: bytes = SHORT) -> None:
        super().__init__(content)
        self._give = give

    def download(self, request: SourceRequest) -> SourceResponse:
        self.asked.append(request.range)
        given: SourceResponse = self._give(request)  # (or what else it gives: a coroutine, say)
        return given


def chunks(content: bytes, size: int = 65536) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


class Gate:
    """Where plugin code waits until the test lets it go."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.entered = threading.Semaphore(0)
        self.left = threading.Semaphore(0)

    def wait(self) -> None:
        self.entered.release()
        try:
            self._event.wait()
        finally:
            self.left.release()

    def open(self) -> None:
        self._event.set()


@contextmanager
def gate() -> Iterator[Gate]:
    found = Gate()
    try:
        yield found
    finally:
        found.open()


class Finds:
    """A finder of these clients, by scheme."""

    places = "this test"

    def __init__(self, clients: dict[str, AsyncResourceClient]) -> None:
        self._clients = clients

    def schemes(self) -> Iterable[str]:
        return self._clients

    def find(self, scheme: str) -> Opener | None:
        async def opened() -> AsyncResourceClient:
            return self._clients[scheme]

        return opened if scheme in self._clients else None


@asynccontextmanager
async def reading(
    *, timeout: float = PATIENCE, retries: int = 1, memory: int = MEMORY, **clients: Any
) -> AsyncIterator[SourceReader]:
    """A reader with these plugins, by scheme; those that are not ``good`` have the ``timeout``."""
    found = {
        name: adapt(client, name=name, timeout=PATIENCE if name == "good" else timeout, memory=memory)
        for name, client in clients.items()
    }
    config = SourceConfig(retry_delay=0.0, retries=retries, restarts=2, span=16 * MIB)
    async with SourceReader.open(config, CollectorRegistry(), finder=Finds(found)) as reader:
        yield reader


async def read(reader: SourceReader, name: str = "good", **rest: Any) -> MemorySink:
    sink = MemorySink()
    await reader.read(job(url(name), **rest), sink)
    return sink


def wrong_pieces(sink: MemorySink, content: bytes) -> list[int]:
    """The pieces that hold anything else than the content."""
    length = sink.meta.piece_length if sink.metas else 1
    return [n for n, data in sink.pieces.items() if data != content[n * length : n * length + len(data)]]


# --- without the engine ---------------------------------------------------------------------------

REQUEST = SourceRequest(url("d7yfs"))
INFO = ExpireInfo(etag='"one"')


def adapted(client: Any, timeout: float = PATIENCE, **rest: Any) -> AsyncResourceClient:
    return adapt(client, name="d7yfs", timeout=timeout, memory=MEMORY, **rest)


async def content(answer: SourceResponse, size: int = 70_000) -> bytes:
    buffer, found = memoryview(bytearray(size)), b""
    async with answer:
        while count := await answer.receive_into(buffer):
            found += buffer[:count]
        assert await answer.receive_into(buffer) == 0
    return found


def with_method(name: str, method: Any) -> Good:
    """A good client one of whose methods is another."""
    client = Good(SHORT)
    setattr(client, name, method)
    return client
