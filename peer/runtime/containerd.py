"""What containerd needs to pull through the gateway.

Without named registries, ``_default/hosts.toml`` sends every image to the gateway first. It names no ``server``, so
that containerd falls back to the very registry that an image names, Docker Hub's included, and a change of
``registry.allow`` needs no change here. A registry that has a folder of its own is not looked for in ``_default``: it
gets the gateway in its own file, where the gateway allows it.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from peer.runtime import hosts, settings, toml_text
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.names import EVERY, Wanted
from peer.runtime.plan import DEFAULT_MODE, Edit, Files, Plan
from peer.runtime.toml_text import Table

DEFAULT = "_default"
FILE = "hosts.toml"
MAX_IMPORTS = 100

Version = tuple[int, int]

_VERSION = re.compile(r"\bv?([0-9]+)\.([0-9]+)")
_PORT = re.compile(r"(.+)_([0-9]+)_")


@dataclass(frozen=True, slots=True)
class _Setting:
    """Where ``hosts.toml`` files are looked for, and what has to be written to have it so."""

    folders: tuple[str, ...]
    edits: dict[str, Edit]
    notes: tuple[str, ...] = ()


def parse_version(text: str) -> Version | None:
    """``containerd --version``'s answer as (major, minor)."""
    match = _VERSION.search(text.partition(" ")[2])
    return (int(match[1]), int(match[2])) if match else None


def plan_containerd(files: Files, wanted: Wanted, version: Version | None) -> Plan:
    """``version`` is that of the installed containerd, None where it is not known. Raises SetupError."""
    if version is not None and version < (2, 0) and ":" in wanted.gateway.host:
        raise Conflict(
            f"containerd {version[0]}.{version[1]} cannot read IPv6 addresses in hosts.toml: let the gateway listen "
            "on 127.0.0.1 (peer.gateway)"
        )
    setting = _setting(files, version)
    edits = dict(setting.edits)
    for name in _targets(files, wanted, setting.folders):
        path, edit = _hosts_file(files, wanted, setting.folders, name)
        if files.read(path) != edit.content:
            edits[path] = edit
    covered = ("every registry",) if EVERY in wanted.registries else wanted.registries
    return Plan("containerd", edits, covered, setting.notes)


def _targets(files: Files, wanted: Wanted, folders: tuple[str, ...]) -> list[str]:
    """The folders' names that are to have a ``hosts.toml`` with the gateway in it."""
    if EVERY not in wanted.registries:
        return list(wanted.registries)
    own = {_registry_of(name) for folder in folders for name in files.names(folder)} - {DEFAULT}
    own = {name for name in own if any(_own_folder(files, folder, name) for folder in folders)}
    return [DEFAULT, *sorted(name for name in own if name in wanted.registries or wanted.allowed(name))]


def _registry_of(folder: str) -> str:
    return f"{match[1]}:{match[2]}" if (match := _PORT.fullmatch(folder)) else folder


def _own_folder(files: Files, folder: str, name: str) -> str:
    """A registry's own folder in one of the folders, "" where it has none; containerd's order of names."""
    host, colon, port = name.rpartition(":")
    for own in (f"{host}_{port}_", name) if colon else (name,):
        if files.is_folder(path := posixpath.join(folder, own)):
            return path
    return ""


def _hosts_file(files: Files, wanted: Wanted, folders: tuple[str, ...], name: str) -> tuple[str, Edit]:
    """The file that decides for a registry, and what it shall hold."""
    server = "" if name == DEFAULT else hosts.server_of(name)
    for folder in folders:
        if own := _own_folder(files, folder, name):
            return _edited(files, wanted, own, server)
        shared = posixpath.join(folder, DEFAULT)
        if name != DEFAULT and files.is_folder(shared):
            base = hosts.absolute(_held(files, shared), shared)
            base["host"] = {
                url: options
                for url, options in hosts.hosts_of(shared, base).items()
                if url not in wanted.former
            }
            content = hosts.new(wanted.gateway, server, base).encode()
            mode = files.mode(posixpath.join(shared, FILE))
            return posixpath.join(folder, name, FILE), Edit(content, mode)
    folder = folders[0]
    if name == DEFAULT and any(
        files.is_folder(posixpath.join(more, own)) for more in folders[1:] for own in files.names(more)
    ):
        folder = folders[-1]  # before them it would hide the registries' folders in the later ones
    path = posixpath.join(folder, name, FILE)
    return path, Edit(hosts.new(wanted.gateway, server).encode())


def _edited(files: Files, wanted: Wanted, folder: str, server: str) -> tuple[str, Edit]:
    path = posixpath.join(folder, FILE)
    content = files.read(path)
    if content:
        text = hosts.with_gateway(path, toml_text.decode(path, content), wanted.gateway, wanted.former)
    else:
        base = hosts.certificates(folder, files.names(folder))
        text = hosts.new(wanted.gateway, server, base)
    return path, Edit(text.encode(), files.mode(path) if content is not None else DEFAULT_MODE)


def _held(files: Files, folder: str) -> Table:
    """What holds for the registries of a folder so far."""
    path = posixpath.join(folder, FILE)
    content = files.read(path)
    if content:
        return toml_text.load(path, toml_text.decode(path, content))
    return hosts.certificates(folder, files.names(folder))


def _setting(files: Files, containerd: Version | None) -> _Setting:
    """Raises SetupError."""
    main = files.read(settings.MAIN)
    if main is None:
        version = 3 if containerd is not None and containerd >= (2, 0) else 2  # 2 is understood by all
        return _Setting((settings.FOLDER,), {settings.MAIN: Edit(settings.new(version).encode())})
    loaded = [*_chain(files, settings.MAIN, main)]
    _, _, table, version = loaded[0]
    if version == 1 and containerd is not None and containerd >= (2, 0):
        raise Conflict(
            f"{settings.MAIN} is of version 1, from which containerd {containerd[0]}.{containerd[1]} does not take "
            "its registries: write what `containerd config migrate` prints to it, and try again"
        )
    notes = []
    if settings.disabled(table, version):
        notes.append(
            f"{settings.MAIN} turns containerd's CRI plugin off (disabled_plugins): Kubernetes cannot pull with it. "
            "For Docker, use `dragonet runtime configure docker`"
        )
    path, text, version, found = _deciding(loaded, containerd)
    folders = tuple(folder for folder in found.split(":") if folder)
    if not folders:
        edited = settings.with_folder(path, text, version)
        return _Setting((settings.FOLDER,), {path: Edit(edited.encode(), files.mode(path))}, tuple(notes))
    for folder in folders:
        if not folder.startswith("/"):
            raise Conflict(f"{path} sets {settings.KEY} to {folder!r}, which is not absolute: make it so")
    if len(folders) > 1 and (containerd is None or containerd >= (2, 1)):
        notes.append(
            f"{path} sets {settings.KEY} to more than one folder, which containerd 2.1 and later ignores in most "
            f"pulls (its issue 12808): set it to {folders[0]} alone"
        )
    return _Setting(folders, {}, tuple(notes))


def _deciding(
    loaded: list[tuple[str, str, Table, int]], containerd: Version | None
) -> tuple[str, str, int, str]:
    """The file that has, or is to have, the setting: (path, text, version, folders as set).

    Of the plugin's settings in several files, containerd 1 takes those of the last one alone; containerd 2 puts
    them together.
    """
    merged = containerd >= (2, 0) if containerd is not None else loaded[0][3] > 2
    chosen = loaded[0]
    found = settings.folders_of(chosen[0], chosen[2], chosen[3])
    for entry in loaded[1:]:
        path, _, table, version = entry
        if settings.plugin_of(path, table, version) is None:
            continue
        here = settings.folders_of(path, table, version)
        if here or not merged:
            chosen, found = entry, here
    return chosen[0], chosen[1], chosen[3], found


def _chain(files: Files, path: str, content: bytes) -> Iterator[tuple[str, str, Table, int]]:
    """A configuration file and all that it imports, in containerd's order."""
    seen: set[str] = set()
    pending = [path]
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
        yield path, text, table, version
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
