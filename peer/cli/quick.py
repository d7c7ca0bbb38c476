"""``get`` command lines that need no full parser: it takes longer to load than a small download takes.

What is understood here means what ``app`` makes of it, which a test holds for true; everything else, and every
mistake, is left to ``app``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FLAGS = {
    "--json": "json",
    "--no-origin": "no_origin",
    "--no-env-credentials": "no_env_credentials",
    "--verbose": "verbose",
    "-r": "recursive",
    "--recursive": "recursive",
    "--list": "list",
}
_TEXTS = {
    "--digest": "digest",
    "--range": "range_",
    "--tag": "tag",
    "--application": "application",
    "--filter": "filter_",
    "--timeout": "timeout",
    "--limit": "limit",
}
_PATHS = {"-o": "output", "--output": "output", "--socket": "socket", "--config": "config"}
_REPEATED = {
    "--header": "header",
    "--include": "include",
    "--exclude": "exclude",
    "--source-option": "source_option",
    "--set": "settings",
}
_VALUES = _TEXTS | _PATHS | _REPEATED
_GROUPS = {
    "tree": ("recursive", "include", "exclude", "level", "list"),
    "credentials": ("source_option", "no_env_credentials"),
    "options": ("config", "settings", "verbose"),
}
"""Which of them ``get`` takes in a group."""


def quick(tokens: Sequence[str]) -> dict[str, Any] | None:
    """What ``get`` is to be called with, its URL as ``url``; None: parse it in full."""
    if len(tokens) < 2 or tokens[0] != "get":
        return None
    found: dict[str, Any] = {}
    rest = iter(tokens[1:])
    for token in rest:
        if not token.startswith("-"):
            if "url" in found or not token:
                return None
            found["url"] = token
        elif token in _FLAGS:
            if _FLAGS[token] in found:
                return None
            found[_FLAGS[token]] = True
        elif token in _VALUES:
            value = next(rest, "")
            name = _VALUES[token]
            # an empty value, or one that looks like an option, is for the full parser to judge
            if not value or value.startswith("-") or (name in found and token not in _REPEATED):
                return None
            if token in _REPEATED:
                found[name] = (*found.get(name, ()), value)
            else:
                found[name] = Path(value) if token in _PATHS else value
        else:
            return None
    return _grouped(found) if "url" in found else None


def _grouped(found: dict[str, Any]) -> dict[str, Any]:
    from peer.cli.credentials import Credentials
    from peer.cli.get import Tree
    from peer.cli.options import Common

    kinds = {"tree": Tree, "credentials": Credentials, "options": Common}
    for group, names in _GROUPS.items():
        given = {name: found.pop(name) for name in names if name in found}
        if given:
            found[group] = kinds[group](**given)
    return found
