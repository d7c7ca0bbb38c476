"""The machine whose runtimes are set up: its files, its journal, and how a change is made. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peer.runtime import disk
from peer.runtime.errors import ChangedSince, SetupError
from peer.runtime.journal import Journal, JournalFile
from peer.runtime.plan import Change
from peer.runtime.tree import Owner, Tree

_COMMANDS = {
    "containerd": "systemctl restart containerd",
    "podman": "",
    "crio": "systemctl reload crio",
    "docker": "systemctl reload docker",
}
"""What makes a runtime read its files again; podman reads them whenever it runs."""
_READ_AT_EVERY_PULL = "/hosts.toml"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was, or is to be, changed. ``commands`` have to be run by the user then. ``registries`` tells what is
    pulled through the gateway; ``changed_since`` are files that somebody else has changed, ``saved`` is where such
    changes were kept."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    changed_since: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """Where all this happens: the files below ``root``, and the journal in ``data_dir`` below it."""

    root: Path
    data_dir: Path

    @property
    def tree(self) -> Tree:
        """The files."""
        return Tree(self.root)

    @property
    def journal_path(self) -> str:
        """The folder of the journal, resolved, as seen from the root."""
        return self.tree.resolve(f"{self.data_dir.absolute()}/runtime")

    @property
    def journal_file(self) -> JournalFile:
        """The journal."""
        return JournalFile(self.tree.real(self.journal_path))


def commands_for(read: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What has to be run before files are read again, given as (runtime, path)."""
    found: dict[str, None] = {}
    for runtime, path in read:
        if _COMMANDS[runtime] and not path.endswith(_READ_AT_EVERY_PULL):
            found[_COMMANDS[runtime]] = None
    return tuple(found)


def readers(changes: Iterable[Change], journal: Journal) -> list[tuple[str, str]]:
    """Who reads what is changed, as (runtime, path)."""
    entries = [(change.path, journal.entry(change.path)) for change in changes]
    return [(name, path) for path, entry in entries if entry is not None for name in entry.runtimes]


@contextmanager
def changing(machine: Machine, journal: Journal, changes: list[Change]) -> Iterator[tuple[str, ...]]:
    """Alone with the journal, which is still the one that was read; gives the folders made for it."""
    tree = machine.tree
    place = f"{machine.journal_path}/journal"
    for path in (place, *(change.path for change in changes)):
        tree.check_writable(path)
    own = tree.missing_folders(place)
    try:
        for folder in own:
            disk.make_folder(tree.real(folder), 0o700 if folder == own[-1] else disk.FOLDER_MODE)
        with machine.journal_file.locked():
            if machine.journal_file.load() != journal:
                raise SetupError("another `dragonet runtime` has just changed something: try again")
            yield tuple(dict.fromkeys([*journal.own_folders, *own]))
    except OSError as error:
        raise SetupError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}. What was changed so far is put back "
            "by `dragonet runtime restore`"
        ) from None


def make(tree: Tree, change: Change, owner: Owner | None = None) -> None:
    """Make one change. ``owner`` is for what is put back; without it, an existing file's stays."""
    if tree.read(change.path) != change.old:
        raise ChangedSince(f"{change.path} was changed by somebody else just now: try again")
    for folder in tree.missing_folders(change.path):
        disk.make_folder(tree.real(folder))
    path = tree.real(change.path)
    if change.new is None:
        disk.remove(path)
        return
    if owner is None:
        found = tree.owner(change.path)
        owner = found if change.old is not None else Owner(change.mode, found.uid, found.gid)
    disk.replace(path, change.new, owner)


def settle(machine: Machine, journal: Journal) -> list[str]:
    """Remove the folders that are not needed any more, and write the journal, or remove it when it is empty; the
    folders that stay though dragonet made them."""
    tree = machine.tree
    kept = []
    needed = []
    for folder in reversed(journal.folders):
        if any(entry.path.startswith(f"{folder}/") for entry in journal.files):
            needed.append(folder)
        elif not disk.remove_folder(tree.real(folder)):
            kept.append(folder)
    if journal.runtimes:
        machine.journal_file.save(msgspec.structs.replace(journal, folders=tuple(reversed(needed))))
    else:
        machine.journal_file.remove(tuple(tree.real(folder) for folder in journal.own_folders))
    return kept
