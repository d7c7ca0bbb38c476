"""Joining the LAN: what a host, or a scheduler, needs of this package, put together from the configuration.

Imported only where discovery takes part: mDNS and DNS come with it.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from prometheus_client import CollectorRegistry

from peer.address import own_address, port_of
from peer.lan.config import LanConfig
from peer.lan.interfaces import Interfaces
from peer.lan.lan import Lan
from peer.lan.me import Me
from peer.lan.plan import Plan
from peer.lan.sightings import Source
from peer.lan.sources import sources
from shared.http.client import HttpClient
from shared.http.router import Router
from shared.swarm.host import Host
from shared.version import version

CONNECT_SECONDS = 1.0
CONNECTIONS = 48
"""Of the client that asks others who they are: many at once, each for a moment."""


@dataclass(frozen=True, slots=True)
class OwnScheduler:
    """The scheduler in this process, as one of the ring."""

    url: str
    leave: Callable[[str], None]


def asking_client() -> HttpClient:
    """The client with which a Lan asks others who they are."""
    return HttpClient(connect_timeout=CONNECT_SECONDS, max_connections=CONNECTIONS)


def host_lan(
    config: LanConfig,
    plan: Plan,
    host: Host,
    *,
    bound: str,
    interfaces: Interfaces,
    client: HttpClient,
    registry: CollectorRegistry,
    router: Router,
    rename: Callable[[str], Awaitable[None]],
    readiness: Callable[[str | None], None],
) -> Lan:
    """The LAN as a host sees it that serves its pieces at ``bound``; others find out on ``router`` who it is."""
    identity = host.identity
    me = Me(
        id=identity.id,
        instance=identity.instance,
        role=identity.role,
        port=port_of(bound),
        name=socket.gethostname(),
        location=identity.location,
        release=version(),
        address=own_address(identity.address, interfaces.primary()),
    )

    def counts() -> tuple[int, int]:
        held = host.store.statistics()
        return held.tasks, held.used

    lan = Lan(
        config,
        me,
        _sources(config, plan, me, interfaces),
        client,
        registry,
        configured=plan.scheduler,
        counts=counts,
        rename=rename,
        readiness=readiness,
    )
    lan.add_routes(router)
    return lan


def scheduler_lan(
    config: LanConfig,
    plan: Plan,
    identity: str,
    *,
    bound: str,
    interfaces: Interfaces,
    client: HttpClient,
    registry: CollectorRegistry,
    router: Router,
    location: str = "",
) -> Lan:
    """The LAN as a scheduler sees it that listens at ``bound``: it is found, and answers who it is."""
    me = Me(
        id=identity,
        instance=secrets.token_hex(8),
        role="scheduler",
        port=port_of(bound),
        name=socket.gethostname(),
        location=location,
        release=version(),
        address=own_address(bound, interfaces.primary()),
    )
    lan = Lan(config, me, _sources(config, plan, me, interfaces), client, registry)
    lan.add_routes(router)
    return lan


def _sources(config: LanConfig, plan: Plan, me: Me, interfaces: Interfaces) -> list[Source]:
    heard = msgspec.structs.replace(config, mdns=plan.multicast)
    return sources(heard, me.announcement(config.cluster), interfaces)
