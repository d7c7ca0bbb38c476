"""What was seen of the LAN and what was answered there, folded into one view. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from peer.lan.sightings import Sighting
from peer.lan.views import HostView, LanView, Mode
from shared.protocol import PROTOCOL_VERSION, Hello


@dataclass(slots=True)
class Seen:
    """What is known of one sighting. ``rtt`` in seconds, ``since`` (Unix seconds): the last change of ``present``."""

    sighting: Sighting
    asked: bool = False
    hello: Hello | None = None
    address: str = ""
    rtt: float | None = None
    present: bool = False
    since: float = 0.0


def fold(
    seen: Iterable[Seen],
    *,
    cluster: str,
    configured: str,
    name: str,
    ignored: Mapping[str, int],
    discovery: bool = True,
) -> LanView:
    """A view of what was found out: of the cluster, by a machine of this name that is no host of it itself.

    ``configured``: the scheduler that it was told of; "" for none.
    """
    hosts: dict[str, HostView] = {}
    left_out = Counter(ignored)
    for known in seen:
        refusal = _refusal(cluster, known.hello)
        if refusal:
            left_out[refusal] += 1
            continue
        host = _host(known)
        hosts[host.id] = _merged(hosts[host.id], host) if host.id in hosts else host
    present = [host for host in hosts.values() if host.state == "present"]
    schedulers = tuple(f"http://{host.address}" for host in present if host.role == "scheduler")
    return LanView(
        here=HostView(id="", name=name, state="absent"),
        cluster=cluster,
        mode=_mode(configured, schedulers, present),
        schedulers=(configured,) if configured else schedulers,
        hosts=tuple(hosts.values()),
        ignored=dict(left_out),
        discovery=discovery,
    )


def _mode(configured: str, schedulers: Sequence[str], present: Sequence[HostView]) -> Mode:
    if configured:
        return "configured"
    if schedulers:
        return "scheduler"
    return "ring" if present else "alone"


def _refusal(cluster: str, hello: Hello | None) -> str:
    if hello is None:
        return ""
    if hello.cluster != cluster:
        return "cluster"
    return "" if hello.version == PROTOCOL_VERSION else "protocol"


def _host(known: Seen) -> HostView:
    sighting, hello = known.sighting, known.hello
    if hello is None:
        return HostView(
            id=sighting.id or f"{sighting.source} {sighting.key}",
            name=sighting.name,
            role=sighting.role,
            address=next(iter(sighting.addresses), ""),
            addresses=sighting.addresses,
            found=(sighting.source,),
        )
    return HostView(
        id=hello.id,
        name=hello.name or sighting.name,
        role=hello.role,
        address=known.address,
        addresses=sighting.addresses,
        version=hello.release,
        location=hello.location,
        state="present" if known.present else "absent",
        rtt=known.rtt,
        found=(sighting.source,),
        tasks=hello.tasks,
        held=hello.held,
        member=known.present and hello.schedules,
        schedules=hello.schedules,
        since=known.since,
    )


_RANK = {"unknown": 0, "absent": 1, "present": 2}


def _merged(one: HostView, other: HostView) -> HostView:
    """One host that was found in two ways."""
    best = max(one, other, key=lambda host: _RANK[host.state])
    return msgspec.structs.replace(
        best,
        addresses=tuple(dict.fromkeys((*best.addresses, *one.addresses, *other.addresses))),
        found=tuple(dict.fromkeys((*one.found, *other.found))),
    )
