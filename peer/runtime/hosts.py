"""containerd's ``hosts.toml``: the gateway as the first host, all others after it as they were. Pure.

containerd tries the hosts in the order of their tables, then ``server``, which without being named is the
registry that the image names. It takes relative paths (``ca``, ``client``) from the file's own folder. A folder
without the file, or with an empty one, has its certificates in ``*.crt``, ``*.cert`` and ``*.key`` (all: containerd
docs/hosts.md and core/remotes/docker/config/hosts.go).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any

from cdn.sources.oci.names import DOCKER_HUB
from peer.runtime import toml_text
from peer.runtime.errors import BrokenFile
from peer.runtime.names import Gateway
from peer.runtime.toml_text import Table

CAPABILITIES = ("pull", "resolve")
REMOTE_DIAL = "2s"
COMMENT = "# Written by `dragonet runtime configure`; `dragonet runtime restore` takes it away."
_HUB_SERVER = "https://registry-1.docker.io"


def with_gateway(path: str, text: str, gateway: Gateway, former: Iterable[str] = ()) -> str:
    """The text of a ``hosts.toml`` with the gateway as the first host, and without its ``former`` URLs.

    Where it is the first one already, the text is given back as it is. Raises BrokenFile.
    """
    table = toml_text.load(path, text)
    hosts = hosts_of(path, table)
    dropped = {url for url in hosts if url.rstrip("/") in {*former, gateway.url}}
    if next(iter(hosts), "").rstrip("/") == gateway.url and len(dropped) == 1:
        return text
    wanted = {gateway.url: _entry(gateway)}
    wanted |= {url: options for url, options in hosts.items() if url not in dropped}
    meant = {**table, "host": wanted}
    if not dropped:
        inserted = _inserted(text, gateway)
        if _means(inserted, meant):
            return inserted
    return f"{COMMENT}\n{toml_text.write(_in_order(meant))}"


def new(gateway: Gateway, server: str, base: Table | None = None) -> str:
    """A new ``hosts.toml``. ``base`` is what has held for the registry so far, with absolute paths."""
    meant = {**({"server": server} if server else {}), **(base or {})}
    hosts = meant.pop("host", {})
    meant["host"] = {
        gateway.url: _entry(gateway),
        **{url: o for url, o in hosts.items() if url != gateway.url},
    }
    return f"{COMMENT}\n{toml_text.write(_in_order(meant))}"


def hosts_of(path: str, table: Table) -> Table:
    """The hosts of a parsed file, in order. Raises BrokenFile."""
    hosts = table.get("host", {})
    if not isinstance(hosts, dict) or not all(isinstance(options, dict) for options in hosts.values()):
        raise BrokenFile(path, '`host` is not made of tables such as [host."https://mirror.example"]')
    return hosts


def server_of(registry: str) -> str:
    """The upstream to be written for a registry; "" where containerd's own way is better: it speaks plain HTTP
    to this machine's registries when they do."""
    if registry == DOCKER_HUB:
        return _HUB_SERVER
    host = registry.rpartition(":")[0] or registry
    return "" if host in ("localhost", "[::1]") or host.startswith("127.") else f"https://{registry}"


def certificates(folder: str, names: Iterable[str]) -> Table:
    """What containerd makes of a folder's files where there is no ``hosts.toml``, as settings of one."""
    names = sorted(names)
    ca = [posixpath.join(folder, name) for name in names if name.endswith(".crt")]
    client = []
    for name in names:
        if name.endswith(".cert"):
            secret = name.removesuffix(".cert") + ".key"
            pair = (name, secret) if secret in names else (name,)
            client.append([posixpath.join(folder, part) for part in pair] + [""] * (2 - len(pair)))
    return {**({"ca": ca} if ca else {}), **({"client": client} if client else {})}


def absolute(table: Table, folder: str) -> Table:
    """The same settings for a file in another folder: with absolute paths."""
    made = {name: _moved(part, folder) if name in ("ca", "client") else part for name, part in table.items()}
    hosts = made.get("host")
    if isinstance(hosts, dict):
        made["host"] = {
            url: absolute(options, folder) if isinstance(options, dict) else options
            for url, options in hosts.items()
        }
    return made


def _moved(given: Any, folder: str) -> Any:
    if isinstance(given, list):
        return [_moved(part, folder) for part in given]
    return posixpath.join(folder, given) if isinstance(given, str) and given else given


def _entry(gateway: Gateway) -> Table:
    entry: Table = {"capabilities": list(CAPABILITIES)}
    if not gateway.local:
        # understood since containerd 2.1 (30 s otherwise), ignored before; nothing to wait for on loopback
        entry["dial_timeout"] = REMOTE_DIAL
    return entry


def _inserted(text: str, gateway: Gateway) -> str:
    """The text with the gateway's table before the first host's, and before the comment that belongs to that."""
    newline = toml_text.newline_of(text)
    block = toml_text.write({"host": {gateway.url: _entry(gateway)}}).replace("\n", newline)
    at = next(
        (s.start for s in toml_text.statements(text) if s.kind == "table" and s.path[0] == "host"), None
    )
    if at is None:
        gap = "" if not text or text.endswith("\n") else newline
        return f"{text}{gap}{newline}{block}"
    at = _before_comment(text, at)
    return f"{text[:at]}{block}{newline}{text[at:]}"


def _before_comment(text: str, at: int) -> int:
    while at:
        above = text.rfind("\n", 0, at - 1) + 1
        if not text[above:at].lstrip().startswith("#"):
            break
        at = above
    return at


def _means(text: str, meant: Table) -> bool:
    try:
        found = toml_text.load("", text)
    except BrokenFile:
        return False
    return found == meant and list(found["host"]) == list(meant["host"])


def _in_order(table: Table) -> Table:
    """Hosts last, as people write them."""
    return {name: table[name] for name in sorted(table, key=lambda name: name == "host")}
