"""Restore: what was there before dragonet is put back. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from peer.runtime import disk
from peer.runtime.errors import ChangedSince
from peer.runtime.journal import Journal
from peer.runtime.machine import Machine, Outcome, changing, commands_for, make, readers, settle
from peer.runtime.names import SPOKEN
from peer.runtime.plan import Change
from peer.runtime.tree import Owner, Tree

SAVED = ".dragonet-saved"


def restore(
    machine: Machine, runtimes: Iterable[str] = (), *, dry_run: bool = False, force: bool = False
) -> Outcome:
    """Put back what was there before, for some runtimes or all. Raises SetupError; ChangedSince before anything is
    put back, unless ``force`` keeps the changed files beside the restored ones."""
    tree, journal = machine.tree, machine.journal_file.load()
    asked = tuple(runtimes)
    chosen = set(asked or journal.runtimes)
    notes = [
        f"{SPOKEN[name]} is not configured: nothing to put back"
        for name in asked
        if name not in journal.runtimes
    ]
    entries = [entry for entry in journal.files if chosen.issuperset(entry.runtimes)]
    for entry in journal.files:
        if chosen & set(entry.runtimes) and entry not in entries:
            others = sorted(set(entry.runtimes) - chosen)
            notes.append(f"{entry.path} stays, since {_spoken(others)} uses it too")
    changes = []
    foreign = []
    for entry in entries:
        content = tree.read(entry.path)
        if entry.is_original(content):
            continue
        changes.append(Change(entry.path, content, entry.original.content, entry.original.mode))
        if not entry.is_ours(content):
            foreign.append(entry.path)
    if foreign and not (force or dry_run):
        raise ChangedSince(_refusal(foreign, journal))
    commands = commands_for(readers(changes, journal))
    outcome = Outcome(tuple(changes), tuple(notes), commands, changed_since=tuple(foreign))
    if dry_run or not (chosen & set(journal.runtimes)):
        return outcome
    with changing(machine, journal, changes):
        saved = []
        for change in changes:
            if change.path in foreign and change.old is not None:
                saved.append(_save_beside(tree, change))
            make(tree, change, _owner_of(journal, change.path))
        for entry in entries:
            disk.remove(disk.draft_of(tree.real(entry.path)))
        kept = settle(machine, _without(journal, chosen))
    notes += [f"the folder {path} stays, since there is something else in it" for path in kept]
    return replace(outcome, notes=tuple(notes), saved=tuple(saved))


def _without(journal: Journal, chosen: set[str]) -> Journal:
    files = [
        msgspec.structs.replace(entry, runtimes=tuple(name for name in entry.runtimes if name not in chosen))
        for entry in journal.files
        if not chosen.issuperset(entry.runtimes)
    ]
    runtimes = {name: found for name, found in journal.runtimes.items() if name not in chosen}
    return msgspec.structs.replace(journal, runtimes=runtimes, files=tuple(files))


def _spoken(runtimes: Iterable[str]) -> str:
    return " and ".join(SPOKEN[name] for name in runtimes)


def _owner_of(journal: Journal, path: str) -> Owner | None:
    entry = journal.entry(path)
    return entry.original.owner if entry is not None else None


def _save_beside(tree: Tree, change: Change) -> str:
    """Keep a file that somebody else changed; the name under which it is kept."""
    number = 0
    while os.path.lexists(tree.real(path := f"{change.path}{SAVED}{f'.{number}' if number else ''}")):
        number += 1
    disk.replace(tree.real(path), change.old or b"", tree.owner(change.path))
    return path


def _refusal(foreign: list[str], journal: Journal) -> str:
    names = ", ".join(foreign)
    gateways = " or ".join(sorted({found.gateway for found in journal.runtimes.values()}))
    was, it = ("was", "it") if len(foreign) == 1 else ("were", "them")
    return (
        f"{names} {was} changed by somebody else since dragonet wrote {it}, so nothing was put back: see `dragonet "
        f"runtime restore --dry-run`; then take {gateways} out of {it} by hand and use --force, which puts the first "
        f"content back and keeps the present one beside it as …{SAVED}"
    )
