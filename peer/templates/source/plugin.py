"""Gives dragonet the scheme templatefs://

    templatefs://anything/path/to/file   is the file path/to/file below the folder of the option "root"

The methods are plain functions: dragonet runs them in threads, and gives a call up that does not end.
They may as well be `async def` (on trio). Replace their insides by what your source needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from cdn.sources.interface import (
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    ResourceClient,
    SourceCut,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from shared.errors import SourceError


class Client(ResourceClient):
    """Reads files below a folder. Many calls may run at once: what is shared has to bear that."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def get_content_length(self, request: SourceRequest) -> int:
        """The length in bytes."""
        return self._status(self._path(request.url)).st_size

    def is_support_range(self, request: SourceRequest) -> bool:
        """Parts can be asked for: long files are then read over several connections, and cuts resumed."""
        return True

    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Whether the file is another version than the one that `info` tells."""
        status = self._status(self._path(request.url))
        if info.etag:
            return info.etag != _etag(status)
        return info.last_modified != _date(status)

    def download(self, request: SourceRequest) -> SourceResponse:
        """The file, or the part of it that is asked for."""
        path = self._path(request.url)
        status = self._status(path)
        etag, modified = _etag(status), _date(status)
        first, last, part = 0, status.st_size - 1, None
        if request.range is not None and request.if_range in (
            "",
            etag,
        ):  # else: another version, so all of it
            first, until = request.range
            last = last if until is None else min(last, until)
            if first >= status.st_size:
                raise RangeNotSatisfiable(
                    "the file is shorter than that", total=status.st_size, etag=etag, last_modified=modified
                )
            part = ContentRange(first, last, status.st_size)
        length = last - first + 1
        return SourceResponse(
            _chunks(path, etag, first, length),
            status=200 if part is None else 206,
            content_length=length,
            range=part,
            etag=etag,
            last_modified=modified,
            url=request.url,
        )

    def get_last_modified(self, request: SourceRequest) -> int:
        """Milliseconds since 1970."""
        return self._status(self._path(request.url)).st_mtime_ns // 1_000_000

    def list(self, request: SourceRequest) -> list[SourceEntry]:
        """What lies directly in a folder; leave this method out where there are no folders."""
        folder = self._path(request.url)
        base = request.url.rstrip("/")
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            raise _refused(folder, error) from None
        return [
            SourceEntry(
                f"{base}/{quote(child.name)}" + ("/" if child.is_dir() else ""),
                is_folder=child.is_dir(),
                size=-1 if child.is_dir() else child.stat().st_size,
            )
            for child in children
        ]

    def _path(self, url: str) -> Path:
        """The file that a URL means; nothing outside the folder is ever given."""
        path = (self.root / unquote(urlsplit(url).path).lstrip("/")).resolve()
        if path != self.root and self.root not in path.parents:
            raise SourceError("the URL leads out of the folder", origin_status=403)
        return path

    @staticmethod
    def _status(path: Path) -> os.stat_result:
        try:
            status = path.stat()
        except OSError as error:
            raise _refused(path, error) from None
        if not path.is_file():
            raise SourceError(f"{path.name} is not a file", origin_status=404)
        return status


def _refused(path: Path, error: OSError) -> SourceError:
    """What is wrong, in words for the one who asked, and as an HTTP status: 404 nothing there, 403 forbidden."""
    status = {FileNotFoundError: 404, NotADirectoryError: 404, PermissionError: 403}.get(type(error))
    return SourceError(f"{path.name} cannot be read: {error.strerror}", origin_status=status)


def _etag(status: os.stat_result) -> str:
    """Tells one version of a file from another: what is read in parts is never mixed from two."""
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _date(status: os.stat_result) -> str:
    return formatdate(status.st_mtime, usegmt=True)


def _chunks(path: Path, etag: str, first: int, length: int) -> Iterator[bytes]:
    """The bytes, as they are read: the file is never in memory as a whole."""
    with path.open("rb") as file:
        file.seek(first)
        while length > 0 and (chunk := file.read(min(length, 256 * 1024))):
            if _etag(os.fstat(file.fileno())) != etag:
                raise SourceCut("the file changed while it was read")
            length -= len(chunk)
            yield chunk


def dragonet_plugin_init(options: dict[str, str]) -> tuple[Client, dict[str, str]]:
    """Called once. `options` are those of [source.options.templatefs] in dragonet's configuration."""
    if "root" not in options:
        raise ValueError("say which folder to read: source.options.templatefs.root = FOLDER")
    return Client(Path(options["root"])), {
        "type": "resource",
        "scheme": "templatefs",
        "name": "templatefs",
        "vendor": "",
        "version": "0.1",
    }
