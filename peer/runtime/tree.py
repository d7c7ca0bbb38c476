"""A machine's files below a root, which need not be this machine's own: symbolic links stay below it. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from peer.runtime.errors import NotPermitted, SetupError
from peer.runtime.plan import DEFAULT_MODE

MAX_LINKS = 40
MAX_FILE = 16 * 1024 * 1024
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may do what with a file."""

    mode: int
    uid: int
    gid: int


class Tree:
    """Reads below ``root``. Paths are absolute as seen from there, with ``/`` for the root itself."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def real(self, path: str) -> Path:
        """Where the file of a (resolved) path really is."""
        return self.root / path.lstrip("/")

    def resolve(self, path: str) -> str:
        """The path without symbolic links, an absolute one starting at the root. Raises SetupError."""
        done: list[str] = []
        pending = [part for part in reversed(PurePosixPath(path).parts) if part != "/"]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del done[-1:]
                continue
            try:
                target = os.readlink(self.real("/".join([*done, part])))
            except OSError as error:
                if error.errno not in (errno.EINVAL, *_ABSENT):
                    raise _failed("read", path, error) from None
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise SetupError(f"{path} is a symbolic link that leads in a circle")
            if target.startswith("/"):
                done.clear()
            pending += [more for more in reversed(PurePosixPath(target).parts) if more != "/"]
        return "/" + "/".join(done)

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none. Raises SetupError."""
        path = self.resolve(path)
        try:
            with open(self.real(path), "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
                    raise SetupError(f"{path} is not a file that dragonet could edit")
                return file.read()
        except IsADirectoryError:
            raise SetupError(f"{path} is a folder, where there should be a file") from None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise _failed("read", path, error) from None

    def owner(self, path: str) -> Owner:
        """Permissions and owner of a file, those of a new one where there is none. Raises SetupError."""
        try:
            status = os.stat(self.real(self.resolve(path)))
        except OSError as error:
            if error.errno in _ABSENT:
                return Owner(DEFAULT_MODE, os.geteuid(), os.getegid())
            raise _failed("read", path, error) from None
        return Owner(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    def names(self, path: str) -> list[str]:
        """What is in a folder, sorted; [] where there is none. Raises SetupError."""
        try:
            return sorted(os.listdir(self.real(self.resolve(path))))
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise _failed("read", path, error) from None

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there."""
        return self.real(self.resolve(path)).is_dir()

    def missing_folders(self, path: str) -> list[str]:
        """The folders that are to be made for a (resolved) path, outermost first."""
        found = []
        for parent in PurePosixPath(path).parents:
            if os.path.lexists(self.real(str(parent))):
                break
            found.append(str(parent))
        return found[::-1]

    def check_writable(self, path: str) -> None:
        """Raises SetupError when a (resolved) file cannot be replaced or made."""
        folder = self.real(next(iter(self.missing_folders(path)), path)).parent
        if not folder.is_dir():
            raise SetupError(f"{folder} is no folder, so nothing was changed: {path} has to be in it")
        if not os.access(folder, os.W_OK | os.X_OK):
            cure = "it is on a read-only file system" if os.geteuid() == 0 else "run this as root"
            raise NotPermitted(f"{folder} cannot be written to, so nothing was changed: {cure}")


def _open_at_once(path: str, flags: int) -> int:
    """Nobody needs to be at the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _failed(what: str, path: str, error: OSError) -> SetupError:
    if isinstance(error, PermissionError):
        return NotPermitted(f"{path} cannot be {what}, so nothing was changed: run this as root")
    return SetupError(f"{path} cannot be {what}: {error.strerror}")
