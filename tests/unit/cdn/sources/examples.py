"""Sources for the conformance suite that need nothing from outside the process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

from cdn.policy import SourcePolicy
from cdn.sources.file import FileSource
from cdn.sources.http import HttpSource
from cdn.sources.interface import AsyncResourceClient, ExpireInfo, SourceRequest, SourceResponse
from cdn.sources.testing import Example
from shared.errors import SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import Behaviour, random_bytes, serving

CONTENT = random_bytes(300_000)
OTHER = random_bytes(280_000, seed=2)
CHANGED = 1_700_000_000
DATE = formatdate(CHANGED, usegmt=True)

MakeExample = Callable[[Path], AbstractAsyncContextManager[Example]]


class MemorySource(AsyncResourceClient):
    """The smallest client that is one: no ranges."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.version = 1

    def _of(self, request: SourceRequest) -> bytes:
        if request.url not in self.contents:
            raise SourceError("no such content", origin_status=404)
        return self.contents[request.url]

    async def get_content_length(self, request: SourceRequest) -> int:
        return len(self._of(request))

    async def is_support_range(self, request: SourceRequest) -> bool:
        self._of(request)
        return False

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return request.url in self.contents and info.etag != f'"{self.version}"'

    async def download(self, request: SourceRequest) -> SourceResponse:
        return SourceResponse(
            self._of(request), etag=f'"{self.version}"', last_modified=DATE, url=request.url
        )

    async def get_last_modified(self, request: SourceRequest) -> int:
        self._of(request)
        return CHANGED * 1000


async def read(response: SourceResponse, size: int = 7001) -> bytes:
    """The rest of an answer; closes it."""
    buffer, content = memoryview(bytearray(size)), b""
    async with response:
        while count := await response.receive_into(buffer):
            content += buffer[:count]
    return content


@asynccontextmanager
async def memory(tmp_path: Path) -> AsyncIterator[Example]:
    """Whole contents only."""
    client = MemorySource({"memory://a": CONTENT})

    def change() -> None:
        client.contents["memory://a"] = OTHER
        client.version += 1

    yield Example(client, "memory://a", CONTENT, missing="memory://b", change=change)


@asynccontextmanager
async def files(tmp_path: Path) -> AsyncIterator[Example]:
    """A file whose name needs quoting."""
    path = tmp_path / "ä file"
    path.write_bytes(CONTENT)
    os.utime(path, (CHANGED, CHANGED))

    def change() -> None:
        path.write_bytes(OTHER)

    (tmp_path / "below").mkdir()
    folder, url = f"file://{quote(str(tmp_path))}/", f"file://{quote(str(path))}"
    yield Example(
        FileSource([tmp_path]),
        url,
        CONTENT,
        missing=url + "x",
        folder=folder,
        children={path.name: False, "below": True},
        change=change,
    )


@asynccontextmanager
async def http(tmp_path: Path) -> AsyncIterator[Example]:
    """An origin with ranges and validators."""
    async with serving() as origin, HttpClient() as client:
        origin.behaviours["/a"] = Behaviour(CONTENT, last_modified=DATE)

        def change() -> None:
            origin.change("/a", content=OTHER, etag='"two"')

        yield Example(
            HttpSource(client, SourcePolicy(["http"])),
            origin.url("/a"),
            CONTENT,
            missing=origin.url("/b"),
            change=change,
        )


@asynccontextmanager
async def bare_http(tmp_path: Path) -> AsyncIterator[Example]:
    """An origin that tells nothing: neither length nor version, and knows no ranges."""
    async with serving() as origin, HttpClient() as client:
        origin.behaviours["/a"] = Behaviour(CONTENT, etag="", framing="chunked", ranges="ignore")

        def change() -> None:
            origin.change("/a", content=OTHER)

        yield Example(HttpSource(client, SourcePolicy(["http"])), origin.url("/a"), CONTENT, change=change)
