"""The resource client for HDFS."""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.interface import (
    AsyncResourceClient,
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceCut,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.webhdfs.body import open_file
from cdn.sources.webhdfs.calls import Asked, WebHdfsCalls
from cdn.sources.webhdfs.credentials import HostCredentials
from cdn.sources.webhdfs.places import Places
from cdn.sources.webhdfs.protocol import FileStatus, child_url, path_of
from shared.errors import SourceError

_TRIES = 3
"""Of opening a file that changes between the look at it and the first byte."""


class WebHdfsSource(AsyncResourceClient):
    """Reads files and lists folders; each read is of one version (see ``FileResponse``)."""

    def __init__(self, context: SourceContext, places: Places, credentials: HostCredentials) -> None:
        self._calls = WebHdfsCalls(context.http, context.config)
        self._places = places
        self._credentials = credentials

    async def get_content_length(self, request: SourceRequest) -> int:
        """The file's length; it is always known."""
        return (await self._file(self._asked(request))).length

    async def is_support_range(self, request: SourceRequest) -> bool:
        """Always, for a file that is there."""
        await self._file(self._asked(request))
        return True

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """By ETag, made of time of change, length and file id; by time where no ETag is given."""
        found = await self._file(self._asked(request))
        if info.etag:
            return found.etag != info.etag
        return found.last_modified != info.last_modified

    async def get_last_modified(self, request: SourceRequest) -> int:
        """The time of change."""
        return (await self._file(self._asked(request))).modification_time or -1

    async def download(self, request: SourceRequest) -> SourceResponse:
        """The file or its range; with an ``if_range`` of another version, the whole file."""
        asked = self._asked(request)
        for tries_left in reversed(range(_TRIES)):
            found = await self._file(asked)
            part = _part(request, found)
            try:
                return await open_file(self._calls, asked, found, part)
            except SourceCut:
                if not tries_left:
                    raise
        raise AssertionError

    async def list(self, request: SourceRequest) -> list[SourceEntry]:
        """What lies directly in a folder."""
        asked = self._asked(request)
        children = await self._calls.children(asked)
        if len(children) == 1 and not children[0].path_suffix:
            raise SourceError(f"{asked.shown} is a file, not a folder: it cannot be listed", fault="request")
        return [_entry(request, asked.path, child) for child in children]

    def _asked(self, request: SourceRequest) -> Asked:
        service = self._places.service(request.url)
        return Asked(request, service, path_of(request), self._credentials.for_request(request, service))

    async def _file(self, asked: Asked) -> FileStatus:
        found = await self._calls.status(asked)
        if found.type == "DIRECTORY":
            raise SourceError(
                f"{asked.shown} is a folder: name a file in it, or get all of it with -r",
                origin_status=404,
                fault="request",
            )
        return found

    def __repr__(self) -> str:
        return f"<WebHdfsSource for {self._places.scheme}>"


def _part(request: SourceRequest, found: FileStatus) -> ContentRange | None:
    """What of the file is to be read; None: all of it. Raises RangeNotSatisfiable."""
    if request.range is None or request.if_range not in ("", found.etag):
        return None
    first, last = request.range
    if first >= found.length:
        raise RangeNotSatisfiable(
            f"the file has {found.length} bytes, none from {first} on",
            total=found.length,
            etag=found.etag,
            last_modified=found.last_modified,
        )
    return ContentRange(
        first, found.length - 1 if last is None else min(last, found.length - 1), found.length
    )


def _entry(request: SourceRequest, path: str, child: FileStatus) -> SourceEntry:
    url = child_url(request, path, child)
    if child.type == "DIRECTORY":
        return SourceEntry(url, is_folder=True)
    return SourceEntry(url, size=child.length if child.type == "FILE" else -1, version=child.etag)
