"""containerd's ``config.toml``: which folder has the ``hosts.toml`` files, set with as little change as can be. Pure.

Up to version 2 of the file the setting belongs to the plugin ``io.containerd.grpc.v1.cri`` (``cri`` in version 1),
from version 3 on to ``io.containerd.cri.v1.images``. It may name several folders, with colons between them. The
older tables ``registry.mirrors`` and ``registry.configs.*.tls`` do not go with it: containerd refuses to start its
CRI plugin with both.
"""

from __future__ import annotations

from typing import Any

from peer.runtime import toml_text
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.toml_text import Table

MAIN = "/etc/containerd/config.toml"
FOLDER = "/etc/containerd/certs.d"
COMMENT = "# Written by `dragonet runtime configure`; `dragonet runtime restore` takes it away."
KEY = "config_path"

_CRI = "io.containerd.grpc.v1.cri"
_IMAGES = "io.containerd.cri.v1.images"
_PLUGINS = {1: "cri", 2: _CRI, 3: _IMAGES, 4: _IMAGES}
NEWEST = max(_PLUGINS)


def version_of(path: str, table: Table) -> int:
    """The version of a file. Raises BrokenFile."""
    version = table.get("version", 1)
    if version not in _PLUGINS or isinstance(version, bool):
        raise BrokenFile(path, f"its `version` is {version!r}, and dragonet knows 1 to {NEWEST}")
    return int(version)


def plugin_of(path: str, table: Table, version: int) -> Table | None:
    """The settings of the plugin that has the registries; None where the file has none. Raises BrokenFile."""
    return _below(path, table, ("plugins", _PLUGINS[version]))


def folders_of(path: str, table: Table, version: int) -> str:
    """The folders as they are set, "" where they are not. Raises BrokenFile, Conflict."""
    registry = _below(path, table, registry_path(version)) or {}
    configs = registry.get("configs", {})
    old = "registry.mirrors" if registry.get("mirrors") else ""
    if isinstance(configs, dict) and any(isinstance(c, dict) and c.get("tls") for c in configs.values()):
        old = old or "registry.configs.….tls"
    if old:
        raise Conflict(
            f"{path} sets the mirrors of registries in the old way ({old}), which containerd does not take "
            f"together with hosts.toml files: move each of them to {FOLDER}/REGISTRY/hosts.toml (as "
            '[host."https://mirror.example"]), remove them there, and try again'
        )
    found = registry.get(KEY, "")
    if not isinstance(found, str):
        raise BrokenFile(path, f"{KEY} is no text")
    return found


def registry_path(version: int) -> tuple[str, ...]:
    """The table that has the setting."""
    return ("plugins", _PLUGINS[version], "registry")


def disabled(table: Table, version: int) -> bool:
    """Whether the plugin that pulls for Kubernetes is turned off."""
    given = table.get("disabled_plugins", [])
    return isinstance(given, list) and bool({"cri", _CRI, _PLUGINS[version]} & set(map(str, given)))


def new(version: int) -> str:
    """A new file that sets the folder and nothing else."""
    return f"{COMMENT}\nversion = {version}\n\n{_table(version)}"


def with_folder(path: str, text: str, version: int, folder: str = FOLDER) -> str:
    """The text with the folder set. Raises BrokenFile; Conflict where there is no safe way to write it."""
    where = registry_path(version)
    meant = toml_text.load(path, text)
    _below(path, meant, where)
    node = meant
    for name in where:
        node = node.setdefault(name, {})
    node[KEY] = folder
    edited = _edited(text, where, version, folder)
    try:
        if toml_text.load(path, edited) == meant:
            return edited
    except BrokenFile:
        pass  # told below: the table is written in a way that cannot be added to
    raise Conflict(
        f"{path} writes {'.'.join(where)} in a way that cannot be edited safely: add {KEY} = "
        f'"{folder}" to it by hand, and try again'
    )


def _edited(text: str, where: tuple[str, ...], version: int, folder: str) -> str:
    newline = toml_text.newline_of(text)
    found = list(toml_text.statements(text))
    for statement in found:
        if statement.kind == "key" and statement.path == (*where, KEY):
            return f"{text[: statement.value]}{toml_text.quote(folder)}{text[statement.end :]}"
    for statement in found:
        if statement.kind == "table" and statement.path == where:
            at = toml_text.line_end(text, statement.end)
            gap = "" if text[:at].endswith("\n") else newline
            line = f"{statement.indent}  {KEY} = {toml_text.quote(folder)}{newline}"
            return f"{text[:at]}{gap}{line}{text[at:]}"
    gap = "" if not text or text.endswith("\n") else newline
    return f"{text}{gap}{newline}{_table(version, folder).replace(chr(10), newline)}"


def _table(version: int, folder: str = FOLDER) -> str:
    return f"{toml_text.header(registry_path(version))}\n  {KEY} = {toml_text.quote(folder)}\n"


def _below(path: str, table: Table, names: tuple[str, ...]) -> Table | None:
    node: Any = table
    for depth, name in enumerate(names, 1):
        node = node.get(name)
        if node is None:
            return None
        if not isinstance(node, dict):
            raise BrokenFile(path, f"{'.'.join(names[:depth])} is no table")
    return node  # type: ignore[no-any-return]  # the loop has looked
