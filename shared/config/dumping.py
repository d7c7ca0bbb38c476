"""Writes a configuration as TOML with a comment for each key; reading it back gives the same. Pure."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

import msgspec

from shared.config.fields import Key, keys_of
from shared.config.loading import Loaded, Root
from shared.task.identity import redact_url
from shared.units import write_size

_WIDTH = 100


def dump(loaded: Loaded[Root], *, shown: Container[str] = ()) -> str:
    """The effective configuration as TOML text. Secrets are shown as ``***``, but for the entries of secret
    tables that are in ``shown``, as "source.options.s3.region"."""
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for key in keys_of(type(loaded.config)):
        if key.path[:-1] != section:
            section = key.path[:-1]
            lines += ["", f"[{'.'.join(section)}]"] if lines else [f"[{'.'.join(section)}]"]
        lines.append("")
        lines += _comment(key.description)
        origin = loaded.origins.get(key.name)
        lines.append(
            _assignment(key, _value(loaded.config, key.path), shown)
            + (f"  # from {origin}" if origin else "")
        )
    return "\n".join(lines) + "\n"


def _value(config: msgspec.Struct, path: tuple[str, ...]) -> Any:
    value: Any = config
    for name in path:
        value = getattr(value, name)
    return value


def _comment(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def _assignment(key: Key, value: Any, shown: Container[str]) -> str:
    if value is None:
        return f"# {key.path[-1]} ="
    if key.unit == "secret" and value:
        return f"{key.path[-1]} = {_toml(_hidden(key.name, value, shown))}"
    if key.unit == "size" and value >= 1024:
        return f"{key.path[-1]} = {_toml(write_size(value))}"
    if key.unit == "rate" and value >= 1024:
        return f"{key.path[-1]} = {_toml(write_size(value) + '/s')}"
    if key.unit == "seconds" and float(text := f"{value:.9g}") == value and "e" not in text:
        return f"{key.path[-1]} = {_toml(f'{text}s')}"
    return f"{key.path[-1]} = {_toml(value)}"


def _hidden(name: str, value: Any, shown: Container[str]) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(f"{name}.{key}", inner, shown) for key, inner in value.items()}
    return value if name in shown else "***"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        shown = redact_url(value) if "://" in value else value
        return json.dumps(shown, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    raise TypeError(f"settings of type {type(value).__name__} cannot be written")
