"""A folder as a source: its content is the stream of a tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from cdn.config import SourceConfig
from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    ExpireInfo,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.tree.order import TreeOrder
from cdn.tree.reading import TreeStream
from cdn.tree.walk import walk
from shared.errors import InvalidRequest, SourceError

CONTENT_TYPE = "application/vnd.dragonet.tree"


class TreeSource(AsyncResourceClient):
    """Reads folders through ``client``. ``text`` is what ``TaskSpec.tree`` holds.

    ``nursery`` is where the reading goes on while the stream is received; without one, nothing can be
    downloaded. Raises SourceError (fault "request") when the text is not understood.
    """

    def __init__(
        self,
        client: AsyncResourceClient,
        text: str,
        config: SourceConfig,
        nursery: trio.Nursery | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        try:
            self._order = TreeOrder.parse(text)
        except InvalidRequest as error:
            raise SourceError(str(error), fault="request") from None
        self._client = client
        self._config = config
        self._nursery = nursery
        self._alive = alive
        self.plugin = client.plugin

    async def get_content_length(self, request: SourceRequest) -> int:
        """Never known beforehand."""
        return UNKNOWN_SOURCE_FILE_LENGTH

    async def is_support_range(self, request: SourceRequest) -> bool:
        """Never: a stream is read from its beginning."""
        return False

    async def get_last_modified(self, request: SourceRequest) -> int:
        """Not known."""
        return -1

    def is_immutable(self, request: SourceRequest) -> bool:
        """What the URL's source says of it."""
        return self._client.is_immutable(request)

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Lists again, and compares what is listed."""
        listing = await walk(self._client, request, self._order, self._alive)
        return listing.etag != info.etag

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """As the client below."""
        return await self._client.list(request)

    async def download(self, request: SourceRequest) -> SourceResponse:
        """Lists the folder, and begins to read what it holds; a range is not looked at."""
        assert self._nursery is not None, "a tree is read in a nursery"
        root = SourceRequest(request.url, request.headers)
        listing = await walk(self._client, root, self._order, self._alive)
        stream = TreeStream(self._client, root, listing, self._config, contents=self._order.contents)
        scope = trio.CancelScope()
        self._nursery.start_soon(_run, stream, scope)
        response = _TreeResponse(stream, request.url, listing.etag, scope)
        response.expected = None
        return response

    def __repr__(self) -> str:
        return f"<TreeSource of {self._client!r}, {self._order.text}>"


async def _run(stream: TreeStream, scope: trio.CancelScope) -> None:
    with scope:
        await stream.run()


class _TreeResponse(SourceResponse):
    """The stream. Not repeatable: a file may have been gone when the same listing was read before."""

    repeatable = False

    def __init__(self, stream: TreeStream, url: str, etag: str, scope: trio.CancelScope) -> None:
        super().__init__(etag=etag, content_type=CONTENT_TYPE, url=url, close=scope.cancel)
        self._stream = stream

    async def receive_into(self, buffer: memoryview) -> int:
        return await self._stream.receive_into(buffer)
