"""Configure: a runtime's files are planned from their first content, recorded, and changed. Blocking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from peer.runtime.before import Before
from peer.runtime.containerd import plan_containerd
from peer.runtime.docker import plan_docker
from peer.runtime.errors import Conflict
from peer.runtime.journal import Configured, Entry, Journal, Original, digest
from peer.runtime.locating import Version
from peer.runtime.machine import Machine, Outcome, changing, commands_for, make, readers, settle
from peer.runtime.mirrors import plan_mirrors
from peer.runtime.names import Gateway, Wanted
from peer.runtime.plan import Change, Edit, Files, Plan
from peer.runtime.tree import Tree

_SHARING = ({"podman", "crio"},)
"""Runtimes that read the same files."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user wants a runtime to do; ``allow`` and ``default`` are settings of the gateway, ``version`` that of
    the installed containerd."""

    runtime: str
    gateway: Gateway
    registries: tuple[str, ...]
    allow: tuple[str, ...]
    default: str
    version: Version | None = None


def configure(machine: Machine, asked: Asked, *, dry_run: bool = False) -> Outcome:
    """Have a runtime pull through the gateway. Raises SetupError; what can be known to fail fails before anything
    is changed."""
    tree, journal = machine.tree, machine.journal_file.load()
    group = _sharing(asked.runtime)
    had = {name: found for name, found in journal.runtimes.items() if name in group}
    registries = _united([*(found.registries for found in had.values()), asked.registries])
    former = {found.gateway for found in had.values()} - {asked.gateway.url}
    wanted = Wanted(asked.gateway, registries, asked.allow, asked.default, tuple(sorted(former)))
    plan = _planned(Before(tree, journal), wanted, asked)
    changes, left = _changes(tree, journal, plan, group)
    notes = (
        *plan.notes,
        *(f"{path} was changed by somebody else since, and is left as it is" for path in left),
    )
    recorded = _recorded(tree, journal, changes, plan, asked)
    read = readers(changes, recorded)
    if asked.runtime not in journal.runtimes:  # what is there for another one is new to it
        read += [(asked.runtime, entry.path) for entry in recorded.files if asked.runtime in entry.runtimes]
    outcome = Outcome(tuple(changes), notes, commands_for(read), plan.registries)
    if dry_run or (not changes and recorded == journal):
        return outcome
    with changing(machine, journal, changes) as own:
        recorded = msgspec.structs.replace(recorded, own_folders=own)
        machine.journal_file.save(recorded)
        for change in changes:
            make(tree, change)
        settle(machine, _settled(recorded, changes))
    return outcome


def _planned(files: Files, wanted: Wanted, asked: Asked) -> Plan:
    if asked.runtime == "containerd":
        return plan_containerd(files, wanted, asked.version)
    if asked.runtime == "docker":
        return plan_docker(files, wanted)
    return plan_mirrors(files, wanted, asked.runtime)


def _sharing(runtime: str) -> set[str]:
    return next((group for group in _SHARING if runtime in group), {runtime})


def _united(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for group in names for name in group}))


def _changes(tree: Tree, journal: Journal, plan: Plan, group: set[str]) -> tuple[list[Change], list[str]]:
    """What has to be changed, and files that are not wanted any more but changed by somebody else."""
    changes = []
    paths: dict[str, Edit] = {}
    for path, edit in plan.edits.items():
        resolved = tree.resolve(path)
        if resolved in paths:
            if paths[resolved] != edit:
                raise Conflict(
                    f"{path} leads to {resolved}, as another one does: give each a file of its own"
                )
            continue
        paths[resolved] = edit
        current = tree.read(resolved)
        if current != edit.content:
            changes.append(Change(resolved, current, edit.content, edit.mode))
    left = []
    for entry in journal.files:
        if entry.path in paths or not group & set(entry.runtimes):
            continue
        current = tree.read(entry.path)
        if entry.is_ours(current) and not entry.is_original(current):
            changes.append(Change(entry.path, current, entry.original.content, entry.original.mode))
        elif not entry.is_original(current):
            left.append(entry.path)
    return changes, left


def _recorded(
    tree: Tree,
    journal: Journal,
    changes: list[Change],
    plan: Plan,
    asked: Asked,
) -> Journal:
    """The journal as it has to be before the first change."""
    files = {entry.path: entry for entry in journal.files}
    folders = dict.fromkeys(journal.folders)
    for path in map(tree.resolve, plan.edits):
        if entry := files.get(path):
            runtimes = tuple(sorted({*entry.runtimes, asked.runtime}))
            files[path] = msgspec.structs.replace(entry, runtimes=runtimes)
    for change in changes:
        files[change.path] = _entry(tree, files.get(change.path), change, asked.runtime)
        folders |= dict.fromkeys(tree.missing_folders(change.path))
    configured = Configured(asked.gateway.url, asked.registries)
    if before := journal.runtimes.get(asked.runtime):
        configured = Configured(asked.gateway.url, _united([before.registries, asked.registries]))
    runtimes_now = {**journal.runtimes, asked.runtime: configured}
    for name in _sharing(asked.runtime) & set(journal.runtimes):
        runtimes_now[name] = Configured(asked.gateway.url, runtimes_now[name].registries)
    return msgspec.structs.replace(
        journal, runtimes=runtimes_now, files=tuple(files.values()), folders=tuple(folders)
    )


def _entry(tree: Tree, entry: Entry | None, change: Change, runtime: str) -> Entry:
    if entry is None:
        owner = tree.owner(change.path)
        original = Original(change.old, owner.mode, owner.uid, owner.gid)
        return Entry(change.path, (runtime,), original, (digest(change.new),))
    written = (digest(change.new),)
    if entry.is_original(change.old):
        return msgspec.structs.replace(entry, written=written, mixed=False)
    if entry.is_ours(change.old):
        return msgspec.structs.replace(entry, written=(digest(change.old), *written))
    return msgspec.structs.replace(entry, written=written, mixed=True)


def _settled(journal: Journal, changes: list[Change]) -> Journal:
    """The journal when all changes are made."""
    made = {change.path: change for change in changes}
    files = []
    for entry in journal.files:
        change = made.get(entry.path)
        if change is None:
            files.append(entry)
        elif not entry.is_original(change.new):
            files.append(msgspec.structs.replace(entry, written=(digest(change.new),)))
    return msgspec.structs.replace(journal, files=tuple(files))
