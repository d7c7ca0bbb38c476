"""From the rest of a URL to the path of a file: whatever could lead elsewhere is refused. Pure.

Both sides hold names against these rules: the host that lists, and the command that writes.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

MAX_NAME = 255
"""Bytes that a file name may have on the file systems of Linux."""
MAX_PATH = 2048
MAX_DEPTH = 128

_PLAIN = re.compile(
    r"[A-Za-z0-9_+=@,~-][A-Za-z0-9._+=@,~ -]{0,254}(?:/[A-Za-z0-9_+=@,~-][A-Za-z0-9._+=@,~ -]{0,254}){0,15}"
)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_C1 = re.compile(r"[\x80-\x9f\u2028\u2029]")


class UnsafeName(ValueError):
    """The name cannot be that of a file below a folder; the message says why."""


def relative_path(name: str) -> str:
    """The path that ``name`` stands for: what follows a folder's URL, percent-encoded, without the query.

    Names are joined by "/"; bytes that are not UTF-8 are kept as ``os.fsdecode`` does. Raises UnsafeName.
    """
    name = name.partition("?")[0].partition("#")[0]
    if len(name) <= 512 and _PLAIN.fullmatch(name):
        return name
    if len(name) > 3 * MAX_PATH:
        raise UnsafeName("its path is too long")
    parts = name.split("/")
    if len(parts) > MAX_DEPTH:
        raise UnsafeName(f"it lies more than {MAX_DEPTH} folders deep")
    path = "/".join(_decoded(part) for part in parts)
    if len(path) > MAX_PATH:
        raise UnsafeName("its path is too long")
    return path


def _decoded(part: str) -> str:
    data = unquote_to_bytes(part)
    if not data:
        raise UnsafeName("a name in its path is empty")
    if data in (b".", b".."):
        raise UnsafeName(f"a name in its path is {data.decode()!r}")
    if b"/" in data or b"\\" in data:
        raise UnsafeName("a name in its path holds a slash or backslash")
    if len(data) > MAX_NAME:
        raise UnsafeName(f"a name in its path has {len(data)} bytes, more than {MAX_NAME}")
    text = data.decode("utf-8", "surrogateescape")
    if _CONTROL.search(data) or _C1.search(text):
        raise UnsafeName("a name in its path holds a control character")
    return text


def shown(name: str) -> str:
    """A name from outside as people may see it: no control characters, not endless."""
    text = unquote_to_bytes(name[: 3 * MAX_PATH]).decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 200 else text[:197] + "…"
