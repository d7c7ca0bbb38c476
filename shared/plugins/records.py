"""What is known of one plugin. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec


class PluginKind(StrEnum):
    """What a plugin extends."""

    SOURCE = "source"
    """The schemes that can be read; runs in the process."""
    EXTENSION = "extension"
    """What a URL means; JavaScript in a sandbox."""
    SERVER = "pluginserver"
    """A request's life in the gateways; a program on a unix socket."""
    SERVICE = "service"
    """The platform's routes; an HTTP service."""


class PluginState(StrEnum):
    """How far a plugin is."""

    INACTIVE = "INACTIVE"
    """It is there and nothing of it runs: not asked for yet, or stopped."""
    STARTING = "STARTING"
    """It is being loaded or waited for."""
    ACTIVE = "ACTIVE"
    """It works."""
    STOPPING = "STOPPING"
    """It is being ended and takes no new work."""
    FAILED = "FAILED"
    """It cannot be used; the record has the reason."""


class PluginRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One plugin.

    ``location`` is where it lies, in words or as a path. ``reason`` is a sentence: what is wrong (FAILED), or
    what it needs before it can be used (INACTIVE). ``attributes`` are the plugin's own. ``in_tree``: it comes
    with dragonet.
    """

    kind: PluginKind
    name: str
    location: str
    state: PluginState = PluginState.INACTIVE
    version: str = ""
    vendor: str = ""
    reason: str = ""
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    in_tree: bool = False

    @property
    def identity(self) -> str:
        """``vendor@name``, or the name alone where nobody says who made it."""
        return f"{self.vendor}@{self.name}" if self.vendor else self.name

    def told(self) -> dict[str, Any]:
        """The record as JSON has it, with its identity."""
        return {"identity": self.identity, **msgspec.to_builtins(self)}
