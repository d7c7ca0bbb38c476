"""Sizes, durations and rates as people write them. Pure.

``256MiB`` is 256 · 2^20 bytes, ``1.5GB`` is 1.5 · 10^9, ``64K`` and ``10G`` are binary; ``1h30m`` is 5400
seconds, ``250ms`` a quarter of one; ``20MiB/s`` is a rate, and so is ``20MiB``. A bare number is in the base
unit: bytes, seconds, bytes per second.
"""

from __future__ import annotations

import re

_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b|)", re.IGNORECASE)
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """Bytes in ``10G``, ``256MiB``, ``1.5GB``, ``4096``. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write it as 256MiB, 10G or 1.5GB")
    factors = _DECIMAL if match[3].lower() == "b" else _BINARY
    whole, _, fraction = match[1].partition(".")
    factor = factors[match[2].lower()]
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def parse_rate(text: str) -> int:
    """Bytes per second in ``20MiB/s``, ``1.5GB``, ``0``. Raises ValueError."""
    stripped = text.strip()
    try:
        return parse_size(stripped.removesuffix("/s"))
    except ValueError:
        raise ValueError(f"{text!r} is not a rate: write it as 20MiB/s or 100MB/s, 0 for no limit") from None


def parse_duration(text: str) -> float:
    """Seconds in ``10s``, ``1h30m``, ``250ms``, ``2.5``. Raises ValueError."""
    stripped = text.strip().lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", stripped):
        return float(stripped)
    total, position = 0.0, 0
    while match := _DURATION.match(stripped, position):
        total += float(match[1]) * _DURATIONS[match[2]]
        position = match.end()
    if not stripped or position != len(stripped):
        raise ValueError(f"{text!r} is not a duration: write it as 10s, 5m or 1h30m")
    return total


def format_size(count: float) -> str:
    """For people, three digits or so: ``1.5 MiB``, ``0 B``."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    units = ["PiB", "TiB", "GiB", "MiB", "KiB"]
    while units and abs(count) >= 1024:
        count /= 1024
        unit = units.pop()
    return f"{count:.0f} {unit}" if abs(count) >= 100 else f"{count:.1f} {unit}"


def format_rate(rate: float) -> str:
    """For people: ``20.0 MiB/s``."""
    return f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """For people: ``0.35s``, ``12.0s``, ``3m05s``, ``2h07m``."""
    if seconds < 1:
        return f"{seconds:.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def write_size(count: int) -> str:
    """The shortest exact form that :func:`parse_size` reads back: ``256MiB``, ``1000001``."""
    for prefix, name in (("p", "PiB"), ("t", "TiB"), ("g", "GiB"), ("m", "MiB"), ("k", "KiB")):
        if count and count % _BINARY[prefix] == 0:
            return f"{count // _BINARY[prefix]}{name}"
    return str(count)
