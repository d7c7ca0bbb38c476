"""Where containerd looks for ``hosts.toml`` files, in all the files of its configuration, and what to write there."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from peer.runtime import settings, toml_text
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.plan import Edit, Files
from peer.runtime.toml_text import Table

MAX_IMPORTS = 100

Version = tuple[int, int]
"""(major, minor) of containerd."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The folders, and what has to be written to have it so."""

    folders: tuple[str, ...]
    edits: dict[str, Edit]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the configuration."""

    path: str
    text: str
    table: Table
    version: int


def find_setting(files: Files, containerd: Version | None) -> Setting:
    """``containerd`` is None where its version is not known. Raises SetupError."""
    main = files.read(settings.MAIN)
    if main is None:
        version = 3 if containerd is not None and containerd >= (2, 0) else 2  # 2 is understood by all
        return Setting((settings.FOLDER,), {settings.MAIN: Edit(settings.new(version).encode())})
    loaded = [*_chain(files, main)]
    notes = _doubts(loaded[0], containerd)
    file, found = _deciding(loaded, containerd)
    folders = tuple(folder for folder in found.split(":") if folder)
    for folder in folders:
        if not folder.startswith("/"):
            raise Conflict(
                f"{file.path} sets {settings.KEY} to {folder!r}, which is not absolute: make it so"
            )
    if not folders:
        return Setting((settings.FOLDER,), _edit(files, file, settings.FOLDER), notes)
    if len(folders) == 1 or (containerd is not None and containerd < (2, 1)):
        return Setting(folders, {}, notes)
    # containerd 2.1 and later ignore more than one folder in pulls by their transfer service (issue 12808 of
    # containerd), and yet `containerd config default` of 2.2 names two
    words = f"{settings.KEY} to more than one folder, which containerd 2.1 and later ignore in most pulls"
    if containerd is None or any(files.names(folder) for folder in folders[1:]):
        note = f"{file.path} sets {words}: move all to {folders[0]}, and set it to that alone"
        return Setting(folders, {}, (*notes, note))
    note = f"{file.path} had set {words}: it is {folders[0]} alone now, the others are empty"
    return Setting(folders[:1], _edit(files, file, folders[0]), (*notes, note))


def _edit(files: Files, file: _File, folder: str) -> dict[str, Edit]:
    text = settings.with_folder(file.path, file.text, file.version, folder)
    return {file.path: Edit(text.encode(), files.mode(file.path))}


def _doubts(main: _File, containerd: Version | None) -> tuple[str, ...]:
    """What keeps the setting from having an effect, as notes. Raises Conflict where something has to be done."""
    if main.version == 1 and containerd is not None and containerd >= (2, 0):
        raise Conflict(
            f"{main.path} is of version 1, from which containerd {containerd[0]}.{containerd[1]} does not take its "
            "registries: write what `containerd config migrate` prints to it, and try again"
        )
    if not settings.disabled(main.table, main.version):
        return ()
    return (
        f"{main.path} turns containerd's CRI plugin off (disabled_plugins): Kubernetes cannot pull with it. For "
        "Docker, use `dragonet runtime configure docker`",
    )


def _deciding(loaded: list[_File], containerd: Version | None) -> tuple[_File, str]:
    """The file that has, or is to have, the setting, and the folders as set.

    Of the plugin's settings in several files, containerd 1 takes those of the last one alone; containerd 2 puts
    them together.
    """
    merged = containerd >= (2, 0) if containerd is not None else loaded[0].version > 2
    chosen = loaded[0]
    found = settings.folders_of(chosen.path, chosen.table, chosen.version)
    for file in loaded[1:]:
        if settings.plugin_of(file.path, file.table, file.version) is None:
            continue
        here = settings.folders_of(file.path, file.table, file.version)
        if here or not merged:
            chosen, found = file, here
    return chosen, found


def _chain(files: Files, content: bytes) -> Iterator[_File]:
    """The main file, and all that it imports, in containerd's order."""
    seen: set[str] = set()
    pending = [settings.MAIN]
    root: int | None = None
    while pending and len(seen) < MAX_IMPORTS:
        path = pending.pop(0)
        found = content if not seen else files.read(path)
        if path in seen or found is None:
            continue
        seen.add(path)
        text = toml_text.decode(path, found)
        table = toml_text.load(path, text)
        version = settings.version_of(path, table) if root is None or "version" in table else root
        root = version if root is None else root
        if version > root:
            raise Conflict(
                f"{path} is of version {version} and {settings.MAIN}, which imports it, of version {root}: "
                "containerd then ignores settings of the latter. Bring them to the same version, and try again"
            )
        yield _File(path, text, table, version)
        pending += _imports(files, path, table)


def _imports(files: Files, parent: str, table: Table) -> list[str]:
    given = table.get("imports", [])
    if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
        raise BrokenFile(parent, "`imports` is not a list of paths")
    paths = [posixpath.normpath(posixpath.join(posixpath.dirname(parent), part)) for part in given]
    return [found for path in paths for found in _matches(files, path)]


def _matches(files: Files, path: str) -> list[str]:
    if "*" not in path:
        return [path]
    folder, name = posixpath.split(path)
    return [
        posixpath.join(parent, entry)
        for parent in _matches(files, folder)
        for entry in files.names(parent)
        if fnmatch.fnmatchcase(entry, name)
    ]
