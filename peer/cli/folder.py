"""The folder that ``get -r`` writes into. Nothing is written anywhere else, whatever names come.

Every step into a folder opens it without following a link; a file is written where nobody sees it, and gets
its name when it is whole. What was there under that name is replaced; nothing else is touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from peer.cli.execution import UsageError
from peer.cli.output import OutputError

_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CLOEXEC
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
"""Errors that are not about one file: going on makes no sense."""


class FileRefused(Exception):
    """This one file cannot be written; the message says why."""


class TargetFolder:
    """A context manager around the folder ``path``, made where it is missing.

    Paths are relative, joined by "/", and safe (``cdn.tree.paths``). Raises UsageError when ``path`` can never
    be a folder, OutputError when nothing can be written there any more, FileRefused for one file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"-o {path} is not a folder: with -r, name one") from None
        except OSError as error:
            raise OutputError(f"cannot write in {path}: {error.strerror}") from None
        # the folders from the root down to the last one used: files come sorted
        self._names: list[str] = []
        self._opened: list[int] = []
        self._last, self._last_fd = "", self._root
        self._nameless = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")

    def write(self, path: str, data: memoryview | bytes) -> None:
        """A whole file at once."""
        above, _, name = path.rpartition("/")
        self.write_in(self.folder(above), name, path, data)

    def folder(self, path: str) -> int:
        """An open folder, made where it is missing; valid until another one is asked for."""
        if path == self._last:
            return self._last_fd
        try:
            return self._enter(path)
        except OSError as error:
            raise _told(path, error) from None

    def write_in(self, folder: int, name: str, path: str, data: memoryview | bytes) -> None:
        """A whole file in an open folder; ``path`` is what it is called in errors. Threads may do this at the same
        time."""
        try:
            fd, temporary = self.open_new(folder)
            try:
                _write_all(fd, data)
                put_in_place(fd, temporary, folder, name)
            except BaseException:
                _discard(temporary, folder)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise _told(path, error) from None

    def create(self, path: str) -> NewFile:
        """A new file, which gets its name with ``commit``. Use it as a context manager."""
        above, _, name = path.rpartition("/")
        try:
            folder = os.dup(self.folder(above))
            try:
                fd, temporary = self.open_new(folder)
            except BaseException:
                os.close(folder)
                raise
        except OSError as error:
            raise _told(path, error) from None
        return NewFile(path, fd, temporary, folder, name)

    def open_new(self, folder: int) -> tuple[int, str]:
        """A file without a name in an open folder, or with a temporary one. Raises OSError."""
        if self._nameless:
            try:
                return os.open(".", _NEW | os.O_TMPFILE, 0o666, dir_fd=folder), ""
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                    raise
                self._nameless = False  # this file system has no such files
        name = _temporary_name()
        return os.open(name, _NEW | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder), name

    def _enter(self, path: str) -> int:
        """An open folder, made where it is missing; valid until the next call. Raises OSError."""
        names = path.split("/") if path else []
        same = 0
        while same < min(len(names), len(self._names)) and names[same] == self._names[same]:
            same += 1
        self._leave(same)
        for name in names[same:]:
            self._opened.append(_step_into(self._opened[-1] if self._opened else self._root, name))
            self._names.append(name)
        self._last, self._last_fd = path, self._opened[-1] if self._opened else self._root
        return self._last_fd

    def _leave(self, depth: int) -> None:
        self._last, self._last_fd = "", self._root
        while len(self._opened) > depth:
            self._names.pop()
            os.close(self._opened.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(0)
        os.close(self._root)

    def __repr__(self) -> str:
        return f"<TargetFolder {self.path}>"


class NewFile:
    """A file on its way; ``fd`` is open for reading and writing. Left without ``commit``, it is gone."""

    def __init__(self, path: str, fd: int, temporary: str, folder: int, name: str) -> None:
        self.path = path
        self.fd = fd
        self._temporary = temporary
        self._folder = folder
        self._name = name

    def write(self, data: memoryview | bytes) -> None:
        """Append. Raises as the folder does."""
        try:
            _write_all(self.fd, data)
        except OSError as error:
            raise _told(self.path, error) from None

    def commit(self) -> None:
        """Give the file its name. Raises as the folder does."""
        try:
            put_in_place(self.fd, self._temporary, self._folder, self._name)
        except OSError as error:
            raise _told(self.path, error) from None
        self._temporary = ""

    def close(self) -> None:
        """Close it; without a name by now, it is gone."""
        _discard(self._temporary, self._folder)
        os.close(self.fd)
        os.close(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def put_in_place(fd: int, temporary: str, folder: int, name: str) -> None:
    """Give an open file its name, in place of whatever is there; a folder stays. Raises OSError."""
    if not temporary:
        own = f"/proc/self/fd/{fd}"
        try:
            os.link(own, name, dst_dir_fd=folder, follow_symlinks=True)
            return
        except FileExistsError:
            temporary = _temporary_name()
            os.link(own, temporary, dst_dir_fd=folder, follow_symlinks=True)
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _discard(temporary, folder)
        raise


def _step_into(above: int, name: str) -> int:
    for _ in range(3):
        try:
            return os.open(name, _STEP, dir_fd=above)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
    return os.open(name, _STEP, dir_fd=above)


def _temporary_name() -> str:
    return f".dragonet-{os.urandom(8).hex()}.part"


def _discard(temporary: str, folder: int) -> None:
    if temporary:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)


def _write_all(fd: int, data: memoryview | bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _told(path: str, error: OSError) -> Exception:
    if error.errno in _HOPELESS:
        return OutputError(f"{path} cannot be written: {error.strerror}")
    words = {
        errno.ELOOP: "a symbolic link is in its way",
        errno.ENOTDIR: "a file or symbolic link is where a folder is needed",
        errno.EISDIR: "a folder is in its place",
    }.get(error.errno or 0, error.strerror)
    return FileRefused(f"{path} cannot be written: {words}")
