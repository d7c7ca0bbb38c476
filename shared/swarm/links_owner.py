"""What the links to schedulers ask of the host that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from shared.protocol import (
    Assignment,
    HostLease,
    LeaseGranted,
    PeerHolding,
    PreheatOver,
    PreheatWanted,
    Report,
    ResolveWanted,
)
from shared.swarm.identity import HostIdentity
from shared.task.identity import TaskSpec

CONFIGURED = "configured"
"""The name of the scheduler of the configuration, which is trusted; all others were found: anybody may be found on a
network. No host has it as its id."""

PreheatOrder = ResolveWanted | PreheatWanted | PreheatOver


class LinksOwner(Protocol):
    """A host, as its links see it."""

    @property
    def identity(self) -> HostIdentity:
        """Who the host is."""

    def lease(self, member: str) -> HostLease:
        """The lease to announce now to the scheduler of that name."""

    async def leased(self, granted: LeaseGranted) -> None:
        """The answer of the scheduler of the configuration to a lease."""

    async def assigned(self, assignment: Assignment) -> None:
        """A decision of the scheduler that may take it."""

    async def ordered(self, order: PreheatOrder, *, own_login: bool) -> None:
        """A preheat's order, of a scheduler that may give it. ``own_login``: what this host has for its own login to
        a registry may be shown for it."""

    def preheated(self) -> list[Report]:
        """All that is to be told of preheats."""

    def active(self) -> Iterable[str]:
        """The tasks that are open here or that somebody waits for."""

    def told(self, task_id: str) -> list[Report] | None:
        """All that is to be told of a task that is open; None of one that is not."""

    def stored(self) -> Iterable[str]:
        """The tasks of which something lies in the store."""

    async def holding(self, task_id: str) -> PeerHolding | None:
        """What lies in the store of a task; None when that is nothing."""

    def spec_of(self, task_id: str) -> TaskSpec | None:
        """The spec of a task that is open or stored here."""
