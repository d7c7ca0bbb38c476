"""Sources behind file://, only below the folders that the configuration names.

A file is opened before it is judged, and judged by where the open file really lies, so no link and no
exchange in between leads out of the folders. Reads run in worker threads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import trio

from cdn.sources.bulk import BulkAnswers
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
from shared.errors import SourceError

MAX_ENTRIES = 200_000
"""Most names of a folder that are looked at."""
_NAME_SAFE = "!$'()*+,;=@~"
_AT_ONCE = 32
"""Files read in one go in a worker thread."""


class FileSource(AsyncResourceClient):
    """Reads regular files below ``roots``. Errors have the fault "reader": another host may have the file."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)

    async def get_content_length(self, request: SourceRequest) -> int:
        """The file's size."""
        return (await self._stat(request)).st_size

    async def is_support_range(self, request: SourceRequest) -> bool:
        """Always, for a file that can be opened."""
        await self._stat(request)
        return True

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """By ETag, made of modification time, size and inode; by date where no ETag is given."""
        found = await self._stat(request)
        if info.etag:
            return etag_of(found) != info.etag
        return formatdate(found.st_mtime, usegmt=True) != info.last_modified

    async def get_last_modified(self, request: SourceRequest) -> int:
        """The modification time."""
        return (await self._stat(request)).st_mtime_ns // 1_000_000

    async def download(self, request: SourceRequest) -> SourceResponse:
        """The file or its range; with an ``if_range`` of another version, the whole file."""
        fd, found = await trio.to_thread.run_sync(self._open, request)
        try:
            return _FileResponse(fd, found, request)
        except BaseException:
            os.close(fd)
            raise

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """Files and folders directly in the folder, sorted; what is neither, and links that lead out of the roots
        or round in a circle, are left out."""
        return await trio.to_thread.run_sync(self._list, request)

    def bulk_reader(self, folder: SourceRequest) -> FileBulkReader:
        """A reader that opens many files in one go."""
        return FileBulkReader(self._read_small)

    def _list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        fd = self._opened(path_of(request.url), os.O_DIRECTORY)
        base = request.url if request.url.endswith("/") else request.url + "/"
        entries = []
        try:
            with os.scandir(fd) as found:
                for number, item in enumerate(found):
                    if number == MAX_ENTRIES:
                        raise SourceError(
                            f"{path_of(request.url)} cannot be listed: it holds more than {MAX_ENTRIES} names",
                            fault="request",
                        )
                    entry = self._entry(fd, item.name, base)
                    if entry is not None:
                        entries.append(entry)
        except OSError as error:
            raise _unreadable(path_of(request.url), error) from error
        finally:
            os.close(fd)
        return sorted(entries, key=lambda entry: entry.url)

    def _entry(self, folder: int, name: str, base: str) -> SourceEntry | None:
        url = base + quote(os.fsencode(name), safe=_NAME_SAFE)
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                real = Path(os.path.realpath(f"/proc/self/fd/{folder}/{name}"))
                above = Path(os.readlink(f"/proc/self/fd/{folder}"))
                if not self._allows(real) or above.is_relative_to(real):
                    return None  # it leads out, or round in a circle
                found = os.stat(name, dir_fd=folder)
        except OSError:
            return None  # gone since, or a link to nowhere
        if stat.S_ISDIR(found.st_mode):
            return SourceEntry(url + "/", is_folder=True)
        if stat.S_ISREG(found.st_mode):
            return SourceEntry(url, size=found.st_size, version=etag_of(found), hint=found.st_size)
        return None

    def _read_small(self, url: str, limit: int) -> bytes | None:
        """The content, None when it is longer. Raises SourceError. Blocking."""
        fd, _ = self._open(SourceRequest(url))
        try:
            with open(fd, "rb", buffering=0, closefd=False) as file:
                content = b""
                while len(content) <= limit and (part := file.read(limit + 1 - len(content))):
                    content += part
        except OSError as error:
            raise _unreadable(path_of(url), error) from error
        finally:
            os.close(fd)
        return content if len(content) <= limit else None

    async def _stat(self, request: SourceRequest) -> os.stat_result:
        fd, found = await trio.to_thread.run_sync(self._open, request)
        os.close(fd)
        return found

    def _open(self, request: SourceRequest) -> tuple[int, os.stat_result]:
        path = path_of(request.url)
        fd = self._opened(path)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise SourceError(f"{path} is not a file", origin_status=403, fault="reader")
        except BaseException:
            os.close(fd)
            raise
        return fd, found

    def _opened(self, path: str, flags: int = 0) -> int:
        self._check(Path(os.path.realpath(path)))
        try:
            # Not blocking: a FIFO must not hold the thread.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags)
        except OSError as error:
            if flags and error.errno == errno.ENOTDIR and os.path.exists(path):
                raise SourceError(
                    f"{path} cannot be listed: it is not a folder", origin_status=404, fault="reader"
                ) from error
            raise _unreadable(path, error) from error
        try:
            self._check(Path(os.readlink(f"/proc/self/fd/{fd}")))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, real: Path) -> None:
        if not self._allows(real):
            raise SourceError(
                "the file is not below a folder that may be read: add its folder to source.file_roots",
                origin_status=403,
                fault="reader",
            )

    def _allows(self, real: Path) -> bool:
        return any(real.is_relative_to(root) for root in self._roots)

    def __repr__(self) -> str:
        return f"<FileSource below {', '.join(map(str, self._roots)) or 'nothing'}>"


class FileBulkReader:
    """Reads files one after the other in a worker thread."""

    def __init__(self, read: Callable[[str, int], bytes | None]) -> None:
        self._read = read

    async def read(self, urls: Sequence[str], limit: int, answers: BulkAnswers) -> None:
        """As in :class:`cdn.sources.bulk.BulkReader`."""
        for first in range(0, len(urls), _AT_ONCE):
            part = urls[first : first + _AT_ONCE]
            for number, (found, content) in enumerate(
                await trio.to_thread.run_sync(self._several, part, limit)
            ):
                if content is not None:
                    answers.content(first + number, memoryview(content))
                elif found:
                    answers.large(first + number)
            await answers.pause()

    def _several(self, urls: Sequence[str], limit: int) -> list[tuple[bool, bytes | None]]:
        results: list[tuple[bool, bytes | None]] = []
        for url in urls:
            try:
                results.append((True, self._read(url, limit)))
            except SourceError:
                results.append((False, None))  # asking in the ordinary way tells what is wrong
        return results

    async def aclose(self) -> None:
        """Nothing is held."""


class _FileResponse(SourceResponse):
    def __init__(self, fd: int, found: os.stat_result, request: SourceRequest) -> None:
        etag, size = etag_of(found), found.st_size
        part: ContentRange | None = None
        if request.range is not None and request.if_range in ("", etag):
            first, last = request.range
            if first >= size:
                raise RangeNotSatisfiable(
                    f"the file has {size} bytes, none from {first} on",
                    total=size,
                    etag=etag,
                    last_modified=formatdate(found.st_mtime, usegmt=True),
                )
            part = ContentRange(first, size - 1 if last is None else min(last, size - 1), size)
        super().__init__(
            status=200 if part is None else 206,
            range=part,
            etag=etag,
            last_modified=formatdate(found.st_mtime, usegmt=True),
            content_type="application/octet-stream",
            url=request.url,
        )
        self.content_length = size if part is None else len(part)
        self._fd = fd
        self._position = 0 if part is None else part.first
        self._stop = self._position + self.content_length

    async def receive_into(self, buffer: memoryview) -> int:
        wanted = buffer[: self._stop - self._position]
        if not wanted:
            return 0
        count = await trio.to_thread.run_sync(self._read, wanted)
        self._position += count
        return count

    def _read(self, buffer: memoryview) -> int:
        try:
            count = os.preadv(self._fd, [buffer], self._position)
            found = os.fstat(self._fd)
        except OSError as error:
            raise SourceError(f"the file cannot be read: {error.strerror}", fault="reader") from error
        if count == 0 or etag_of(found) != self.etag:
            raise SourceCut("the file changed while it was read")
        return count

    async def aclose(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _unreadable(path: str, error: OSError) -> SourceError:
    status = {errno.ENOENT: 404, errno.ENOTDIR: 404, errno.EACCES: 403, errno.EPERM: 403}
    return SourceError(
        f"{path} cannot be read: {error.strerror}",
        origin_status=status.get(error.errno or 0),
        fault="reader",
    )


def path_of(url: str) -> str:
    """The path a file:// URL names. Raises SourceError (fault "request") when it names another host."""
    parts = urlsplit(url)
    if parts.hostname not in (None, "", "localhost"):
        raise SourceError(f"file://{parts.hostname}/ names another host: write file:///path", fault="request")
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise SourceError("the file URL holds no full path: write file:///path", fault="request")
    return path


def etag_of(found: os.stat_result) -> str:
    """A strong validator: changes whenever the file is written or replaced."""
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"'
