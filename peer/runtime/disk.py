"""Writes files so that each is there as a whole, before or after: the only module here that changes anything.

A file is written beside its place under :func:`draft_of` its name, synced and renamed. Where a process ends in
between, the draft is what may be left over; whoever knows the path removes it. Blocking; OSErrors come through.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from peer.runtime.tree import Owner

FOLDER_MODE = 0o755
DRAFT = ".dragonet-new"


def draft_of(path: Path) -> Path:
    """Where a file's new content is written; no runtime reads files of such a name."""
    return path.parent / f".{path.name}{DRAFT}"


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder, and see that it stays; its parent has to be there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
        os.chmod(path, mode)  # whatever the umask is
    _sync(path.parent)


def replace(path: Path, content: bytes, owner: Owner) -> None:
    """Put ``content`` at ``path``, with this owner, and with the other attributes of what is there (labels)."""
    draft = draft_of(path)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if (owner.uid, owner.gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, owner.uid, owner.gid)
        _copy_attributes(path, fd)
        os.fchmod(fd, owner.mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, path)
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _sync(path.parent)


def remove_folder(path: Path) -> bool:
    """Remove a folder if it is empty; whether it is gone."""
    try:
        os.rmdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    _sync(path.parent)
    return True


def _copy_attributes(path: Path, fd: int) -> None:
    """Extended attributes hold labels and access lists; file systems without any are fine."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(path):
            with contextlib.suppress(OSError):
                os.setxattr(fd, name, os.getxattr(path, name))


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
