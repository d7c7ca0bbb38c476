"""TOML as text: where its statements stand, so that a file can be changed without losing how it was written.

``tomllib`` reads; this finds the place and writes. Pure. Whatever is edited is read again by its caller and
compared with what it shall mean.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from peer.runtime.errors import BrokenFile

Table = dict[str, Any]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One header or one assignment. Offsets count characters: ``start`` is where its line begins, ``end`` is
    behind its last character, ``value`` where the value of an assignment begins. ``path`` is absolute."""

    kind: Literal["table", "array", "key"]
    path: tuple[str, ...]
    start: int
    end: int
    value: int = 0
    indent: str = ""


def decode(path: str, content: bytes) -> str:
    """The text of a file. Raises BrokenFile."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BrokenFile(path, f"it is not UTF-8 (at line {line})") from None


def load(path: str, text: str) -> Table:
    """What a text means. Raises BrokenFile, which tells the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BrokenFile(path, str(error)) from None


def statements(text: str) -> Iterator[Statement]:
    """The statements of a valid text, in order."""
    position = 0
    table: tuple[str, ...] = ()
    while (position := _skip_blank(text, position)) < len(text):
        start = text.rfind("\n", 0, position) + 1
        indent = text[start:position]
        if text[position] == "[":
            end = _header_end(text, position)
            table = _path_of(text[position:end])
            kind: Literal["table", "array"] = "array" if text.startswith("[[", position) else "table"
            yield Statement(kind, table, start, end, indent=indent)
        else:
            equals = _outside(text, position, "=")
            value = equals + 1
            while text[value] in " \t":
                value += 1
            end = _value_end(text, value)
            path = table + _path_of(f"{text[position:equals]}=0")
            yield Statement("key", path, start, end, value, indent)
        position = end


def line_end(text: str, position: int) -> int:
    """Where the line after the one of ``position`` begins; the text's end, where it is the last one."""
    found = text.find("\n", position)
    return len(text) if found < 0 else found + 1


def newline_of(text: str) -> str:
    """How the lines of a text end."""
    return "\r\n" if "\r\n" in text else "\n"


def quote(text: str) -> str:
    """A text as a basic string; JSON's escapes are TOML's too, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    """A key, bare where it may be."""
    return name if _BARE.fullmatch(name) else quote(name)


def header(path: tuple[str, ...]) -> str:
    """``[a."b.c"]``."""
    return f"[{'.'.join(map(key, path))}]"


def value(given: Any) -> str:
    """A value on one line."""
    if isinstance(given, str):
        return quote(given)
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, list):
        return f"[{', '.join(map(value, given))}]"
    if isinstance(given, Mapping):
        inner = ", ".join(f"{key(name)} = {value(part)}" for name, part in given.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(given, int | float):
        return repr(given)
    return str(given.isoformat())  # a date, a time, or both


def write(table: Table, path: tuple[str, ...] = ()) -> str:
    """A table in full, tables below it under headers of their own, in the order given."""
    plain = {name: part for name, part in table.items() if not isinstance(part, dict)}
    below = {name: part for name, part in table.items() if isinstance(part, dict)}
    indent = "  " if path else ""
    lines = [f"{indent}{key(name)} = {value(part)}\n" for name, part in plain.items()]
    text = "".join(lines)
    if path and (plain or not below):
        text = f"{header(path)}\n{text}"
    parts = [text, *(write(part, (*path, name)) for name, part in below.items())]
    return "\n".join(part for part in parts if part)


def _skip_blank(text: str, position: int) -> int:
    while True:
        match = _BLANK.match(text, position)
        position = match.end() if match else position
        if not text.startswith("#", position):
            return position
        position = line_end(text, position)


def _path_of(statement: str) -> tuple[str, ...]:
    """The dotted path of a header or an assignment, as ``tomllib`` understands it."""
    node: Any = tomllib.loads(statement)
    path = []
    while isinstance(node, dict | list) and node:
        if isinstance(node, list):
            node = node[0]
            continue
        ((name, node),) = node.items()
        path.append(name)
    return tuple(path)


def _outside(text: str, position: int, wanted: str) -> int:
    """Where the next ``wanted`` stands outside of quotes."""
    while text[position] != wanted:
        position = _string_end(text, position) if text[position] in "\"'" else position + 1
    return position


def _header_end(text: str, position: int) -> int:
    end = _outside(text, position, "]") + 1
    return end + 1 if text.startswith("[[", position) else end


def _string_end(text: str, position: int) -> int:
    mark = text[position]
    if text.startswith(mark * 3, position):
        end = position + 3
        while not text.startswith(mark * 3, end):
            end += 2 if mark == '"' and text[end] == "\\" else 1
        end += 3
        return end + sum(
            text.startswith(mark * more, end) for more in (1, 2)
        )  # up to two belong to the string
    end = position + 1
    while text[end] != mark:
        end += 2 if mark == '"' and text[end] == "\\" else 1
    return end + 1


def _value_end(text: str, position: int) -> int:
    depth = 0
    while position < len(text):
        letter = text[position]
        if letter in "\"'":
            position = _string_end(text, position)
            if not depth:
                return position
            continue
        if letter == "#" and depth:
            position = line_end(text, position)
            continue
        if letter in "#\r\n" and not depth:
            break
        if letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
            if not depth:
                return position + 1
        position += 1
    while text[position - 1] in " \t":
        position -= 1
    return position
