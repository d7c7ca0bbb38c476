"""What containerd needs to pull through the gateway.

Without named registries, ``_default/hosts.toml`` sends every image to the gateway first. It names no ``server``, so
that containerd falls back to the very registry that an image names, Docker Hub's included, and a change of
``registry.allow`` needs no change here. A registry that has a folder of its own is not looked for in ``_default``: it
gets the gateway in its own file, where the gateway allows it.
"""

from __future__ import annotations

import posixpath
import re

from peer.runtime import hosts, toml_text
from peer.runtime.errors import Conflict
from peer.runtime.locating import Version, find_setting
from peer.runtime.names import EVERY, Wanted
from peer.runtime.plan import DEFAULT_MODE, Edit, Files, Plan
from peer.runtime.toml_text import Table

DEFAULT = "_default"
FILE = "hosts.toml"

_VERSION = re.compile(r"\bv?([0-9]+)\.([0-9]+)")
_PORT = re.compile(r"(.+)_([0-9]+)_")


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
    setting = find_setting(files, version)
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
