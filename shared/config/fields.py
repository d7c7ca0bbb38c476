"""The keys of a configuration: their types, what each takes, and how a written value becomes one. Pure."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from shared.units import parse_duration, parse_rate, parse_size

Size = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "size"})]
"""Bytes; may be written as ``256MiB``, ``10G``, ``1.5GB``."""
Seconds = Annotated[float, msgspec.Meta(ge=0, extra={"unit": "seconds"})]
"""Seconds; may be written as ``10s``, ``5m``, ``1h30m``."""
Rate = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "rate"})]
"""Bytes per second; may be written as ``20MiB/s``. 0 means no limit."""
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1, extra={"unit": "fraction"})]
"""A share, 0 to 1."""
Address = Annotated[
    str,
    msgspec.Meta(pattern=r"^(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]]*):[0-9]{1,5}$", extra={"unit": "address"}),
]
"""HOST:PORT to listen on; IPv6 addresses in brackets; * for all interfaces; port 0 takes a free one."""
Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s]+$", extra={"unit": "url"})]
"""An http:// or https:// URL."""
Secret = Annotated[str, msgspec.Meta(extra={"unit": "secret"})]
"""Text that is never shown."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_UNITS: dict[str, tuple[Any, str]] = {
    "size": (parse_size, "a size such as 256MiB, 10G or a number of bytes"),
    "seconds": (parse_duration, "a duration such as 10s, 5m or a number of seconds"),
    "rate": (parse_rate, "a rate such as 20MiB/s or a number of bytes per second, 0 for no limit"),
}
SHAPES = {
    "address": "HOST:PORT, as in 127.0.0.1:8002, [::1]:0 or *:8002",
    "url": "a URL as in http://scheduler.example:8002",
}
"""Units whose form is a pattern, in words that help more than the pattern does."""
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    list: "a list of values (in the environment separated by commas)",
    tuple: "a list of values (in the environment separated by commas)",
    dict: "a table of name = value (in the environment name=value, separated by commas)",
}


class WrongSetting(ValueError):
    """Raised by a section's ``__post_init__`` for the value of one of its keys.

    The words follow the key's name and where it was written: "cannot be 'x': write …".
    """

    def __init__(self, key: str, words: str) -> None:
        super().__init__(words)
        self.key = key


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: where it stands (``("host", "upload_rate")``), its type and what its author says of it."""

    path: tuple[str, ...]
    type: Any
    description: str
    unit: str

    @property
    def name(self) -> str:
        """``host.upload_rate``."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable without its prefix: ``HOST_UPLOAD_RATE``."""
        return "_".join(self.path).upper()

    @property
    def is_table(self) -> bool:
        """Whether the value is a table."""
        base = _base(self.type)
        return (typing.get_origin(base) or base) is dict

    @property
    def nested(self) -> bool:
        """Whether the value is a table of tables."""
        base = _base(self.type)
        return self.is_table and any(typing.get_origin(part) is dict for part in typing.get_args(base))

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        if self.unit in SHAPES:
            return SHAPES[self.unit]
        if self.nested:
            return "tables of name = value (in the environment table.name=value, separated by commas)"
        if self.unit in _UNITS:
            return _UNITS[self.unit][1] + _bounds(self.type).replace(", 0 or more", "")
        base = _base(self.type)
        if typing.get_origin(base) is Literal:
            return " or ".join(str(choice) for choice in typing.get_args(base))
        words = _WORDS.get(typing.get_origin(base) or base, "a value of the right type")
        return words + _bounds(self.type)

    def convert(self, raw: object) -> Any:
        """A written value (a TOML value, or text from the environment or a flag) as the key's type.

        Raises ValueError; the message does not repeat the key's name.
        """
        base = _base(self.type)
        value = self._read(raw, typing.get_origin(base) or base) if isinstance(raw, str) else raw
        if isinstance(value, bool) and base is not bool:
            raise ValueError("true and false are not allowed here")
        if isinstance(value, Path):
            value = str(value)
        if isinstance(value, dict):
            value = _as_text(value)
        return msgspec.convert(value, self.type, dec_hook=_decode)

    def _read(self, text: str, kind: Any) -> object:
        if self.unit in _UNITS:
            return _UNITS[self.unit][0](text)
        text = text if kind in (str, Path) else text.strip()
        if kind is bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError("neither true nor false")
            return text.lower() in _TRUE
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
        if kind in (list, tuple, set, frozenset):
            return [part.strip() for part in text.split(",") if part.strip()]
        if kind is dict:
            pairs = (part.partition("=") for part in text.split(",") if part.strip())
            table: dict[str, Any] = {}
            for name, _, value in pairs:
                put(table, name.strip().split(".") if self.nested else [name.strip()], value.strip())
            return table
        return text


def keys_of(root: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[Key]:
    """All settings below a struct, in order of definition; a field that is a struct is a section."""
    for field in msgspec.structs.fields(root):
        path = (*above, field.name)
        base = _base(field.type)
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            yield from keys_of(base, path)
            continue
        metas = _metas(field.type)
        description = next((m.description for m in reversed(metas) if m.description), "")
        unit = next((m.extra["unit"] for m in metas if m.extra and "unit" in m.extra), "")
        yield Key(path, _merged(field.type, metas), description, unit)


def put(table: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value in tables within tables. Raises ValueError when something else is in the way."""
    *above, name = path
    for part in above:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"{part} is a value and not a table")
    table[name] = value


def _as_text(table: dict[str, Any]) -> dict[str, Any]:
    """Tables hold text: numbers and truth values may be written without quotes, and several texts as a list."""
    return {
        name: _as_text(value)
        if isinstance(value, dict)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
        if isinstance(value, (int, float))
        else ",".join(value)
        if isinstance(value, list) and all(isinstance(part, str) for part in value)
        else value
        for name, value in table.items()
    }


def _metas(annotation: Any) -> list[msgspec.Meta]:
    return [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, msgspec.Meta)]


def _merged(annotation: Any, metas: list[msgspec.Meta]) -> Any:
    """The type with one set of bounds; those of a key (``gt=0``) replace those of its unit (``ge=0``),
    which msgspec does not do by itself."""
    bounds: dict[str, Any] = {}
    for meta in metas:
        for one, other in (("ge", "gt"), ("gt", "ge"), ("le", "lt"), ("lt", "le"), ("pattern", "pattern")):
            value = getattr(meta, one)
            if value is not None:
                bounds.pop(other, None)
                bounds[one] = value
    plain = annotation.__origin__ if metas else annotation
    return Annotated[plain, msgspec.Meta(**bounds)] if bounds else plain


def _base(annotation: Any) -> Any:
    """The type without its annotations, and without None where it is optional."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        real = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _base(real[0]) if len(real) == 1 else annotation
    return annotation


def _bounds(annotation: Any) -> str:
    words = []
    for meta in _metas(annotation):
        if meta.ge is not None:
            words.append(f"{meta.ge:g} or more")
        if meta.gt is not None:
            words.append(f"more than {meta.gt:g}")
        if meta.le is not None:
            words.append(f"{meta.le:g} or less")
        if meta.lt is not None:
            words.append(f"less than {meta.lt:g}")
        if meta.pattern is not None:
            words.append(f"matching {re.compile(meta.pattern).pattern}")
    return ", " + ", ".join(words) if words else ""


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError("not a path")
        if "\0" in value:
            raise ValueError("a path holds no null character")
        return Path(value).expanduser()
    raise ValueError(f"settings of type {kind.__name__} are not supported")
