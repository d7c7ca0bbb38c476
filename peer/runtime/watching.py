"""Which runtimes are configured, and whether what dragonet wrote is still there. Blocking."""

from __future__ import annotations

from typing import Literal

import msgspec

from peer.runtime.journal import Entry, Journal
from peer.runtime.machine import Machine
from peer.runtime.names import EVERY, RUNTIMES
from peer.runtime.tree import Tree

State = Literal["as written", "changed", "put back"]


class FileState(msgspec.Struct, frozen=True):
    """A file that dragonet wrote. ``changed``: by somebody else since; ``put back``: it is what it was before."""

    path: str
    state: State


class RuntimeState(msgspec.Struct, frozen=True):
    """A runtime. ``registries`` are those that were asked for, "all" for every one that the gateway allows."""

    configured: bool
    gateway: str = ""
    registries: tuple[str, ...] = ()
    files: tuple[FileState, ...] = ()


def look(machine: Machine) -> dict[str, RuntimeState]:
    """All runtimes by name. Raises SetupError."""
    journal = machine.journal_file.load()
    return {name: _state(machine.tree, journal, name) for name in RUNTIMES}


def _state(tree: Tree, journal: Journal, name: str) -> RuntimeState:
    found = journal.runtimes.get(name)
    if found is None:
        return RuntimeState(configured=False)
    files = [
        FileState(entry.path, _file_state(tree, entry)) for entry in journal.files if name in entry.runtimes
    ]
    registries = tuple("all" if registry == EVERY else registry for registry in found.registries)
    return RuntimeState(True, found.gateway, registries, tuple(files))


def _file_state(tree: Tree, entry: Entry) -> State:
    content = tree.read(entry.path)
    if entry.is_ours(content):
        return "as written"
    return "put back" if entry.is_original(content) else "changed"
