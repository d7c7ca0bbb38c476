"""What was there before dragonet changed it: the first bytes of every file, kept until they are put back.

One JSON file in the data folder, written before the first change and after the last one, so that a process that
ends in between leaves either nothing changed, or a record of all that it may have changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from peer.runtime import disk
from peer.runtime.errors import NotPermitted, SetupError
from peer.runtime.tree import Owner

VERSION = 1
FILE = "journal.json"
_MODE = 0o600


class Original(msgspec.Struct, frozen=True):
    """A file before dragonet; ``content`` is None where there was none."""

    content: bytes | None
    mode: int = 0
    uid: int = 0
    gid: int = 0

    def __repr__(self) -> str:
        # configuration files may hold credentials
        return f"<Original of {'nothing' if self.content is None else f'{len(self.content)} bytes'}>"

    @property
    def owner(self) -> Owner:
        """Who may do what with it."""
        return Owner(self.mode, self.uid, self.gid)


class Entry(msgspec.Struct, frozen=True):
    """A file that dragonet changed, or is about to. ``written`` are the digests of what it wrote; ``mixed`` tells
    that somebody else's changes went into it since."""

    path: str
    runtimes: tuple[str, ...]
    original: Original
    written: tuple[str, ...]
    mixed: bool = False

    def is_ours(self, content: bytes | None) -> bool:
        """Whether this is what dragonet wrote, unchanged."""
        return not self.mixed and digest(content) in self.written

    def is_original(self, content: bytes | None) -> bool:
        """Whether this is what was there before."""
        return content == self.original.content


class Configured(msgspec.Struct, frozen=True):
    """What a runtime was configured for; ``registries`` as they were asked for."""

    gateway: str
    registries: tuple[str, ...]


class Journal(msgspec.Struct, frozen=True):
    """All of it. ``folders`` were made for configuration files, ``own_folders`` for the journal itself."""

    version: int = VERSION
    runtimes: dict[str, Configured] = {}
    files: tuple[Entry, ...] = ()
    folders: tuple[str, ...] = ()
    own_folders: tuple[str, ...] = ()

    def entry(self, path: str) -> Entry | None:
        """The entry of a resolved path."""
        return next((entry for entry in self.files if entry.path == path), None)


class _Version(msgspec.Struct):
    version: int


def digest(content: bytes | None) -> str:
    """What a content is told by; "" for none."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


class JournalFile:
    """The journal in its folder. Raises SetupError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    def load(self) -> Journal:
        """What is recorded; an empty journal where there is none."""
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return Journal()
        except OSError as error:
            words = "run this as root" if isinstance(error, PermissionError) else error.strerror
            raise NotPermitted(f"{self.path} cannot be read: {words}") from None
        try:
            if (version := msgspec.json.decode(content, type=_Version).version) != VERSION:
                raise SetupError(
                    f"{self.path} was written by another version of dragonet (its version is {version}): use that one"
                )
            return msgspec.json.decode(content, type=Journal)
        except msgspec.MsgspecError:
            raise SetupError(
                f"{self.path} is damaged, so dragonet cannot tell what it changed: remove it when all is as you want it"
            ) from None

    def save(self, journal: Journal) -> None:
        """Write it; when this returns, it outlives a crash. OSErrors come through."""
        content = msgspec.json.format(msgspec.json.encode(journal))
        disk.replace(self.path, content, Owner(_MODE, os.geteuid(), os.getegid()))

    def remove(self, own_folders: tuple[Path, ...]) -> None:
        """Nothing is changed any more: remove the journal, and the folders that were made for it."""
        disk.remove(self.path)
        disk.remove(disk.draft_of(self.path))
        for folder in reversed(own_folders):
            disk.remove_folder(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile; the folder has to be there."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise SetupError("another `dragonet runtime` is at work on this machine: wait for it") from None
        finally:
            os.close(fd)
