"""What the roster knows, in the words of ``dragonet lan``. Pure."""

from __future__ import annotations

from collections.abc import Container

from peer.lan.candidates import MAX_ADDRESSES
from peer.lan.hosts import KnownHost
from peer.lan.roster import Roster
from peer.lan.sightings import Sighting
from peer.lan.views import HostView


def tell(roster: Roster, used: Container[str], now: float, wall: float, *, most: int) -> tuple[HostView, ...]:
    """Everybody but this host, ``most`` of them: first those who have answered.

    ``used`` are the ids of the schedulers, or members of the ring, in use. ``now`` is the roster's time, ``wall`` the
    same in Unix seconds.
    """
    known = [_known(roster, host, used, wall - now) for host in roster.hosts.values()]
    unknown: dict[str, HostView] = {}
    for sighting in roster.unknown():
        view = _announced(sighting)
        other = unknown.get(view.id)
        if other is not None:
            if len(other.addresses) < MAX_ADDRESSES:
                unknown[view.id] = _merged(other, view)
        elif view.id != roster.me[0] and len(known) + len(unknown) < most:
            unknown[view.id] = view
    return (*known, *unknown.values())


def _known(roster: Roster, host: KnownHost, used: Container[str], offset: float) -> HostView:
    hello, answers = host.hello, host.present and not host.failures
    return HostView(
        id=hello.id,
        name=hello.name,
        role=hello.role,
        address=host.address,
        addresses=roster.addresses(host),
        version=hello.release,
        location=hello.location,
        state="present" if answers else "absent",
        rtt=host.rtt if answers else None,
        found=roster.sources(host),
        tasks=hello.tasks,
        held=hello.held,
        member=hello.id in used,
        schedules=host.schedules,
        since=host.since + offset,
    )


def _announced(sighting: Sighting) -> HostView:
    return HostView(
        id=sighting.id or sighting.addresses[0],
        name=sighting.name,
        role=sighting.role,
        address=sighting.addresses[0],
        addresses=sighting.addresses,
        found=(sighting.source,),
    )


def _merged(one: HostView, other: HostView) -> HostView:
    return HostView(
        id=one.id,
        name=one.name or other.name,
        role=one.role or other.role,
        address=one.address,
        addresses=tuple(dict.fromkeys((*one.addresses, *other.addresses))),
        found=tuple(dict.fromkeys((*one.found, *other.found))),
    )
