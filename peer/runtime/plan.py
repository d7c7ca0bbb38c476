"""What is to be changed for one runtime: the planners' result, and the shapes that changes are shown in. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

DEFAULT_MODE = 0o644

_SECRET = re.compile(
    r"""((?:authorization|token|passw(?:or)?d|secret|auth|cookie)[\w-]*["']?\s*[=:]\s*).*""", re.IGNORECASE
)
_USER = re.compile(r"://[^/\s\"'@]+@")


class Files(Protocol):
    """The files of a machine as they were before dragonet changed any. Paths are absolute, below its root."""

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none. Raises SetupError."""

    def names(self, path: str) -> list[str]:
        """What is in a folder, sorted; [] where there is none. Raises SetupError."""

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there."""

    def mode(self, path: str) -> int:
        """A file's permissions; those of a new file where there is none."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What a file shall hold. ``mode`` is for a new file."""

    content: bytes = field(repr=False)
    mode: int = DEFAULT_MODE


@dataclass(frozen=True, slots=True)
class Plan:
    """What a runtime's files shall hold. ``edits`` has only files that differ from what they were before
    dragonet. ``registries`` tells for people what is pulled through the gateway; ``notes`` are sentences for
    them."""

    runtime: str
    edits: Mapping[str, Edit]
    registries: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One file that is to be changed. None: it is not there. ``mode`` is for a new file."""

    path: str
    old: bytes | None = field(repr=False)
    new: bytes | None = field(repr=False)
    mode: int = DEFAULT_MODE

    @property
    def action(self) -> str:
        """What happens to the file, in one word."""
        if self.old is None:
            return "created"
        return "removed" if self.new is None else "changed"


def diff(change: Change) -> str:
    """A unified diff, with what looks like a secret left out."""
    old, new = (_lines(content) for content in (change.old, change.new))
    before = "/dev/null" if change.old is None else change.path
    after = "/dev/null" if change.new is None else change.path
    lines = difflib.unified_diff(old, new, before, after, lineterm="")
    return "".join(f"{_masked(line)}\n" for line in lines)


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else content.decode("utf-8", "replace").splitlines()


def _masked(line: str) -> str:
    return _USER.sub("://***@", _SECRET.sub(r"\1***", line))
