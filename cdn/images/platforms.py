"""What an image runs on, and whether that is what is wanted. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import InvalidRequest

_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SAME_VARIANT = {("arm64", ""): "v8", ("arm", ""): "v7", ("amd64", ""): "v1"}
"""What is meant where no variant is told (OCI image specification, "Platform Variants")."""
_SAME_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture, and its variant ("" where none is told)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def offers(self, wanted: Platform) -> bool:
        """Whether an image for this one is meant by ``wanted``; without a variant, every variant is."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return not wanted.variant or _variant(self) == _variant(wanted)


def parse_platform(text: str) -> Platform:
    """``linux/amd64``, ``linux/arm/v7``. Raises InvalidRequest."""
    parts = text.strip().lower().split("/")
    if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidRequest(f"{text[:100]!r} is not a platform: write it as linux/amd64 or linux/arm/v7")
    architecture = _SAME_ARCHITECTURE.get(parts[1], parts[1])
    return Platform(parts[0], architecture, parts[2] if len(parts) == 3 else "")


def missing(wanted: Iterable[Platform], offered: Sequence[Platform]) -> list[Platform]:
    """The wanted ones that nothing is offered for."""
    return [one for one in wanted if not any(platform.offers(one) for platform in offered)]


def _variant(platform: Platform) -> str:
    return _SAME_VARIANT.get((platform.architecture, platform.variant), platform.variant)
