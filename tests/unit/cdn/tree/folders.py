"""A source in memory that has folders, and can be told to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import trio

from cdn.config import SourceConfig
from cdn.sources.bulk import BulkAnswers, BulkReader
from cdn.sources.interface import (
    AsyncResourceClient,
    ExpireInfo,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.tree.frames import File, Head, Refused, TreeDecoder, TreeTaker
from cdn.tree.order import TreeOrder
from cdn.tree.source import TreeSource
from shared.errors import SourceError
from shared.nursery import open_nursery

ROOT = "mem://box/top/"
CONFIG = SourceConfig(retry_delay=0.01)


class FolderSource(AsyncResourceClient):
    """``files`` by path below ``ROOT``; ``errors`` by path are raised instead; ``listed`` replaces a listing."""

    def __init__(self, files: dict[str, bytes], *, bulk: bool = False) -> None:
        self.files = files
        self.errors: dict[str, SourceError] = {}
        self.listed: dict[str, Sequence[SourceEntry]] = {}
        self.sizes = True
        self.versions = True
        self.reads: Counter[str] = Counter()
        self.lists: Counter[str] = Counter()
        self.asked: list[SourceRequest] = []
        self.running = self.most = 0
        self.bulk = bulk
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        folder = request.url.removeprefix(ROOT)
        self.lists[folder] += 1
        self.asked.append(request)
        await trio.lowlevel.checkpoint()
        if folder in self.errors:
            raise self.errors[folder]
        if folder in self.listed:
            return self.listed[folder]
        found: dict[str, SourceEntry] = {}
        for path, content in self.files.items():
            if path.startswith(folder):
                name, slash, _ = path.removeprefix(folder).partition("/")
                url = ROOT + folder + name + slash
                size = len(content) if self.sizes and not slash else -1
                version = str(hash(content)) if self.versions and not slash else ""
                found[url] = SourceEntry(url, bool(slash), size, version)
        if not found and folder:
            raise SourceError("no such folder", origin_status=404)
        return list(found.values())

    async def download(self, request: SourceRequest) -> SourceResponse:
        path = request.url.removeprefix(ROOT)
        self.reads[path] += 1
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(0.001)
            if self.before is not None:
                await self.before(path)
        finally:
            self.running -= 1
        if path in self.errors:
            raise self.errors[path]
        return SourceResponse(self.files[path], url=request.url)

    def bulk_reader(self, folder: SourceRequest) -> BulkReader | None:
        return MemoryBulk(self) if self.bulk else None

    async def get_content_length(self, request: SourceRequest) -> int:
        return len(self.files[request.url.removeprefix(ROOT)])

    async def is_support_range(self, request: SourceRequest) -> bool:
        return False

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return False

    async def get_last_modified(self, request: SourceRequest) -> int:
        return -1


class MemoryBulk:
    """Leaves out every file with "odd" in its name."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source
        self.closed = False

    async def read(self, urls: Sequence[str], limit: int, answers: BulkAnswers) -> None:
        for number, url in enumerate(urls):
            path = url.removeprefix(ROOT)
            content = self._source.files[path]
            if "odd" in path or path in self._source.errors:
                continue
            self._source.reads[path] += 1
            if len(content) > limit:
                answers.large(number)
            else:
                answers.content(number, memoryview(content))
            await answers.pause()

    async def aclose(self) -> None:
        self.closed = True


class Collected(TreeTaker):
    """What came of a stream."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.files: dict[str, bytes] = {}
        self.large: list[str] = []
        self.refused: dict[str, str] = {}
        self.decoder = TreeDecoder(self)

    def head(self, head: Head) -> None:
        self.heads.append(head)
        if isinstance(head, File) and head.length < 0:
            self.large.append(head.name)
        elif isinstance(head, File):
            self.files[head.name] = b""
        elif isinstance(head, Refused):
            self.refused[head.name] = head.words

    def content(self, data: memoryview) -> None:
        head = self.heads[-1]
        assert isinstance(head, File)
        self.files[head.name] += bytes(data)


async def read_tree(
    source: AsyncResourceClient,
    order: TreeOrder = TreeOrder(),  # noqa: B008 - frozen
    *,
    root: str = ROOT,
    headers: dict[str, str] | None = None,
    buffer: int = 100_000,
) -> tuple[Collected, str]:
    """The whole tree, and its ETag."""
    collected = Collected()
    async with open_nursery() as nursery:
        tree = TreeSource(source, order.text, CONFIG, nursery)
        view = memoryview(bytearray(buffer))
        async with await tree.download(SourceRequest(root, headers or {})) as answer:
            while count := await answer.receive_into(view):
                collected.decoder.feed(view[:count])
            etag = answer.etag
        nursery.cancel_scope.cancel()
    return collected, etag
