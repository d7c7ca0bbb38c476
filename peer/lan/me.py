"""Who this process is on the LAN."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from peer.lan.records import Announcement
from peer.lan.views import HostView
from shared.protocol import Hello


@dataclass(frozen=True, slots=True)
class Me:
    """Who this process is. ``port`` is that of the pieces' listener, or of the scheduler's; ``schedules``:
    leases are granted there. ``started`` in Unix seconds. ``address`` (HOST:PORT) is only shown."""

    id: str
    instance: str
    role: Literal["peer", "seeder", "scheduler"]
    port: int
    name: str = ""
    location: str = ""
    release: str = ""
    started: float = field(default_factory=time.time)
    schedules: bool = True
    address: str = ""

    def announcement(self, cluster: str) -> Announcement:
        """What the LAN is told."""
        return Announcement(self.id, self.role, cluster, self.port, self.location, self.release, self.name)

    def hello(self, cluster: str, tasks: int, held: int, knows: tuple[str, ...] = ()) -> Hello:
        """What those are told who ask; ``held`` in bytes, ``knows`` the addresses of others."""
        return Hello(
            id=self.id,
            instance=self.instance,
            role=self.role,
            cluster=cluster,
            release=self.release,
            name=self.name,
            location=self.location,
            schedules=self.schedules,
            started=self.started,
            tasks=tasks,
            held=held,
            knows=knows,
        )

    def view(self, *, tasks: int, held: int, member: bool) -> HostView:
        """What people are shown of this host."""
        return HostView(
            id=self.id,
            name=self.name,
            role=self.role,
            address=self.address,
            addresses=(self.address,) if self.address else (),
            version=self.release,
            location=self.location,
            state="present",
            tasks=tasks,
            held=held,
            member=member,
            schedules=self.schedules,
            since=self.started,
        )
