"""Which hosts are there. Pure: time is passed in.

Rules:

* A host is *present* while its lease runs; each renewal extends it by the lease's length.
* A present host is *live* unless it has been without its assignment stream for ``stream_grace``: then it
  is *lost* until the stream is back. What a lost host holds is remembered, but nobody is sent to it.
* A lease of another instance is another process: what the one before held is forgotten. It is refused while the
  one before is certainly there, at another IP address: then two hosts have a copy of the same data folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scheduler.deadlines import Deadlines
from scheduler.errors import TooManyHosts
from scheduler.zones import zone_of
from shared.protocol import HostLease

Change = Literal["expired", "lost"]


@dataclass(slots=True)
class Host:
    """A present host. ``stream`` is the number of its open assignment stream, None without one.

    ``since`` is when its lease began, ``source`` the IP address that it was asked for from, "" if not known.
    """

    lease: HostLease
    expires: float
    lost_at: float | None
    since: float = 0.0
    source: str = ""
    stream: int | None = None
    live: bool = True
    corrupt_reports: int = 0
    zone: str = ""

    def __post_init__(self) -> None:
        self.zone = zone_of(self.lease)

    @property
    def serving(self) -> bool:
        """Whether it may get new children."""
        return self.live and not self.lease.draining

    def reads(self, scheme: str) -> bool:
        """Whether the host can read origins of a scheme; one that tells no schemes is believed to."""
        return not self.lease.schemes or scheme in self.lease.schemes

    @property
    def reachable(self) -> bool:
        """Whether it may be told to read an origin: it is serving, and it hears us."""
        return self.serving and self.stream is not None


class Leases:
    """All present hosts; ``seeders`` are those of that role."""

    def __init__(self, *, ttl: float, stream_grace: float, max_hosts: int) -> None:
        self._ttl = ttl
        self._grace = stream_grace
        self._max = max_hosts
        self._hosts: dict[str, Host] = {}
        self.seeders: dict[str, Host] = {}
        self._deadlines: Deadlines[str] = Deadlines()

    def __len__(self) -> int:
        return len(self._hosts)

    def get(self, host: str) -> Host | None:
        """The host, if it is present."""
        return self._hosts.get(host)

    def hosts(self) -> list[Host]:
        """All present hosts, oldest first."""
        return list(self._hosts.values())

    def other(self, lease: HostLease, source: str, now: float) -> Host | None:
        """The other process with the same host id, if it is certainly there: elsewhere, and heard of lately."""
        host = self._hosts.get(lease.host)
        if host is None or host.lease.instance == lease.instance or host.stream is None:
            return None
        elsewhere = source != "" and host.source not in ("", source)
        return host if elsewhere and host.expires - now > self._ttl / 2 else None

    def renew(self, lease: HostLease, now: float, source: str = "") -> HostLease | None:
        """Begin or extend a lease; gives the one before of the same instance, None where there was none.

        Another instance of the host must be removed first. Raises TooManyHosts.
        """
        host = self._hosts.get(lease.host)
        if host is None:
            if len(self._hosts) >= self._max:
                raise TooManyHosts(
                    f"this scheduler follows {self._max} hosts already: raise scheduler.max_hosts"
                )
            host = Host(lease, now + self._ttl, now + self._grace, since=now, source=source)
            self._hosts[lease.host] = host
            if lease.role == "seeder":
                self.seeders[lease.host] = host
            self._arm(lease.host)
            return None
        before, host.lease, host.expires = host.lease, lease, now + self._ttl
        if (before.location, before.network) != (lease.location, lease.network):
            host.zone = zone_of(lease)
        host.source = source
        self._arm(lease.host)
        return before

    def remove(self, host: str) -> None:
        """The lease is given up."""
        self._hosts.pop(host, None)
        self.seeders.pop(host, None)
        self._deadlines.set(host, None)

    def stream_opened(self, host: Host, stream: int) -> bool:
        """The host's stream is there (a new one replaces the old); True when it had been lost."""
        was_lost = not host.live
        host.stream, host.lost_at, host.live = stream, None, True
        self._arm(host.lease.host)
        return was_lost

    def stream_closed(self, host: Host, stream: int, now: float) -> None:
        """A stream ended; nothing happens when a newer one has replaced it."""
        if host.stream == stream:
            host.stream, host.lost_at = None, now + self._grace
            self._arm(host.lease.host)

    def due(self, now: float) -> list[tuple[str, Change]]:
        """What time did to hosts: an expired one is no longer present, a lost one is no longer live."""
        changes: list[tuple[str, Change]] = []
        for name in self._deadlines.pop_due(now):
            host = self._hosts[name]
            if host.expires <= now:
                self.remove(name)
                changes.append((name, "expired"))
            else:
                host.live, host.lost_at = False, None
                self._arm(name)
                changes.append((name, "lost"))
        return changes

    def next_deadline(self) -> float | None:
        """When :meth:`due` has something to tell next."""
        return self._deadlines.next()

    def _arm(self, name: str) -> None:
        host = self._hosts[name]
        lost_at = host.lost_at if host.lost_at is not None else host.expires
        self._deadlines.set(name, min(host.expires, lost_at))
