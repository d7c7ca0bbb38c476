"""What the names of registries look like. Pure, and quick to load: the configuration is checked with it."""

from __future__ import annotations

import ipaddress
import re

LONGEST_REGISTRY = 255 + len(":65535")

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[([0-9a-f:.]{{2,45}})\])(?::([0-9]{{1,5}}))?")
_PATTERN = re.compile(r"[a-z0-9*.:\[\]-]+")


def is_registry(text: str) -> bool:
    """Whether this is "host", "host:port" or "[address]:port", in whatever case."""
    match = _REGISTRY.fullmatch(text.lower()) if len(text) <= LONGEST_REGISTRY else None
    return match is not None and _is_address(match[1]) and 0 < int(match[2] or 443) < 65536


def is_pattern(text: str) -> bool:
    """Whether this may stand for registries: a registry, in which * stands for any part of the name."""
    name = text.lower()
    return is_registry(name) or ("*" in name and _PATTERN.fullmatch(name) is not None)


def _is_address(text: str | None) -> bool:
    """Whether what stands in brackets, if anything, is an address."""
    try:
        return text is None or bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
