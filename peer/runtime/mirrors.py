"""What podman and CRI-O need to pull through the gateway: one drop-in of ``registries.conf``. Pure but for reading.

A ``[[registry]]`` of a drop-in takes the place of an earlier one with the same prefix as a whole, files in the order of
their names; so the drop-in repeats what was said about a registry, with the gateway as its first mirror. There is no
table for "every registry": without named ones, those that the gateway allows by name are taken
(containers-registries.conf(5), containers-registries.conf.d(5)).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from cdn.sources.oci.names import canonical_registry
from peer.runtime import toml_text
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.names import EVERY, Wanted
from peer.runtime.plan import Edit, Files, Plan
from peer.runtime.toml_text import Table

MAIN = "/etc/containers/registries.conf"
FOLDER = "/etc/containers/registries.conf.d"
NAME = "50-dragonet.conf"
LAST = "zz-dragonet.conf"
COMMENT = """\
# Written by `dragonet runtime configure`; `dragonet runtime restore` takes it away.
# Each table takes the place of an earlier one with the same prefix.
"""

_WITH_PORT = re.compile(r"(.+):([0-9]+)")


def plan_mirrors(files: Files, wanted: Wanted, runtime: str) -> Plan:
    """``runtime`` is "podman" or "crio". Raises SetupError."""
    known: dict[str, Table] = {}
    places: dict[str, str] = {}
    for name, table in _loaded(files):
        for entry in _entries(name, table):
            prefix = entry.get("prefix") or entry["location"]
            known[prefix] = entry
            places[prefix] = name
    names, notes = _registries(wanted, known)
    tables: dict[str, Table] = {}
    for name in names:
        for prefix, entry in _of_registry(known, name):
            tables[prefix] = _mirrored(prefix, entry, wanted)
            if entry.get("blocked") is True:
                notes.append(f"{prefix} is blocked in {places.get(prefix, MAIN)}, and stays so")
                continue
            place = canonical_registry(tables[prefix]["location"].partition("/")[0].lower())
            if place != name and not wanted.allowed(place):
                notes.append(
                    f"{prefix} is read from {place} ({places.get(prefix, MAIN)}), which the gateway refuses: add "
                    f'"{place}" to registry.allow in dragonet\'s configuration'
                )
    own = _own_name([place for prefix, place in places.items() if prefix in tables])
    content = _written(files, own, tables).encode()
    path = posixpath.join(FOLDER, own)
    edits = {path: Edit(content)} if files.read(path) != content else {}
    return Plan(runtime, edits, tuple(names), tuple(notes))


def mirror_path(location: str) -> str | None:
    """How the gateway is told a location in a path; None where it cannot be.

    The clients take no colon there, so a port follows an underline; and the gateway takes only what looks like a
    registry for one: a name with a dot, or ``localhost``.
    """
    registry, slash, rest = location.partition("/")
    match = _WITH_PORT.fullmatch(registry)
    host = match[1] if match else registry
    if registry.startswith("[") or ("." not in host and host != "localhost"):
        return None
    return f"{f'{match[1]}_{match[2]}' if match else registry}{slash}{rest}"


def _registries(wanted: Wanted, known: dict[str, Table]) -> tuple[list[str], list[str]]:
    """The registries to be mirrored, and notes. Raises Conflict."""
    names = {name for name in wanted.registries if name != EVERY}
    for name in names:
        if mirror_path(name) is None:
            raise Conflict(
                f"podman and CRI-O cannot tell a mirror the name {name}: only names with a dot in them, and localhost"
            )
    notes = []
    if EVERY in wanted.registries:
        listed = {prefix.partition("/")[0] for prefix in known if not prefix.startswith("*")}
        found = {*wanted.allowed_names(), *filter(wanted.allowed, listed)}
        names |= {name for name in found if mirror_path(name) is not None}
        patterns = [entry for entry in wanted.allow if EVERY in entry]
        if patterns:
            notes.append(
                f"registry.allow has {', '.join(patterns)}: podman and CRI-O need registries by name, so name those "
                "with --registry"
            )
    if not names:
        raise Conflict(
            "registry.allow names no registry: name those to be pulled through the gateway with --registry"
        )
    return sorted(names), notes


def _of_registry(known: dict[str, Table], name: str) -> Iterator[tuple[str, Table]]:
    """The tables that decide for a registry's images, by prefix: its own, or a new one, and those of its parts."""
    if name in known:
        yield name, known[name]
    else:
        wild = [p for p in known if p.startswith("*.") and name.partition(":")[0].endswith(p[1:])]
        yield name, known[max(wild, key=len)] if wild else {}
    for prefix, entry in known.items():
        if prefix.startswith(f"{name}/"):
            yield prefix, entry


def _mirrored(prefix: str, entry: Table, wanted: Wanted) -> Table:
    """A table with the gateway as its first mirror, everything else as it was."""
    location = entry.get("location") or prefix
    told = mirror_path(location)
    if told is None:
        raise Conflict(
            f"{prefix} is at {location}, a name that podman and CRI-O cannot tell a mirror: only names with a dot in "
            "them, and localhost"
        )
    gateways = {wanted.gateway.address, *(url.partition("://")[2] for url in wanted.former)}
    ours: Table = {"location": f"{wanted.gateway.address}/{told}"}
    if wanted.gateway.plain:
        ours["insecure"] = True
    others = [m for m in entry.get("mirror", []) if m["location"].partition("/")[0] not in gateways]
    kept = {key: part for key, part in entry.items() if key not in ("prefix", "location", "mirror")}
    return {"prefix": prefix, "location": location, **kept, "mirror": [ours, *others]}


def _own_name(places: list[str]) -> str:
    """A name for the drop-in that comes after all files that say something about its registries."""
    latest = max((posixpath.basename(place) for place in places if place != MAIN), default="")
    name = NAME if latest <= NAME else LAST
    while name < latest:
        name = f"z{name}"
    return name


def _written(files: Files, own: str, tables: dict[str, Table]) -> str:
    """The drop-in; what a file of this name says besides is kept."""
    path = posixpath.join(FOLDER, own)
    content = files.read(path)
    before = toml_text.load(path, toml_text.decode(path, content)) if content else {}
    others = {e.get("prefix") or e["location"]: e for e in _entries(path, before)}
    before.pop("registry", None)
    parts = [COMMENT + toml_text.write(before)]
    for prefix, table in {**others, **tables}.items():
        plain = {key: part for key, part in table.items() if key != "mirror"}
        text = f"[[registry]]\n{toml_text.write({'prefix': prefix, **plain})}"
        for mirror in table.get("mirror", []):
            text += f"\n[[registry.mirror]]\n{toml_text.write(mirror)}"
        parts.append(text)
    return "\n".join(parts)


def _loaded(files: Files) -> Iterator[tuple[str, Table]]:
    """The configuration files in the order in which they take effect."""
    drop_ins = [posixpath.join(FOLDER, name) for name in files.names(FOLDER) if name.endswith(".conf")]
    for path in (MAIN, *sorted(drop_ins)):
        content = files.read(path)
        if content is None:
            continue
        table = toml_text.load(path, toml_text.decode(path, content))
        if "registries" in table:
            raise Conflict(
                f"{path} is written in version 1 of the format ([registries.search]), which has no mirrors: rewrite "
                "it in version 2 (containers-registries.conf(5)), and try again"
            )
        yield path, table


def _entries(path: str, table: Table) -> list[Table]:
    """The ``[[registry]]`` tables of a file. Raises BrokenFile."""
    entries: Any = table.get("registry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BrokenFile(path, "`registry` is no array of tables: write [[registry]]")
    for entry in entries:
        mirrors = entry.get("mirror", [])
        texts = [entry.get("prefix", ""), entry.get("location", "")]
        if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
            raise BrokenFile(path, "`mirror` is no array of tables: write [[registry.mirror]]")
        texts += [mirror.get("location") for mirror in mirrors]
        if not all(isinstance(text, str) for text in texts) or not any(texts[:2]):
            raise BrokenFile(path, "a [[registry]] has neither prefix nor location, or a mirror no location")
    return entries
