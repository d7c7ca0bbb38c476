"""A host with all its parts: store, sources, its schedulers, and, where it looks for them, the others on the LAN.

What seeders and peers have in common; ``peer.roles`` puts listeners around it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from cdn.checking import check_schemes
from cdn.images.resolving import ImageResolver
from cdn.reader import SourceReader
from cdn.sources.plugins.finder import PluginFinder
from peer.address import advertised_address, host_of, own_address
from peer.config import Config, local_url
from peer.host_id import keep_host_id, read_host_id
from peer.lan.interfaces import Interfaces
from peer.lan.plan import Plan, loopback
from peer.local_api import Look, look_alone
from peer.scope_secret import keep_scope_secret, read_scope_secret
from shared.errors import ConfigError
from shared.http.client import HttpClient
from shared.plugins import PluginRegistry
from shared.protocol import Role
from shared.service import Service
from shared.store import Store
from shared.swarm.host import Host
from shared.swarm.identity import HostIdentity
from shared.swarm.links import Links
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.preheats import Preheats

if TYPE_CHECKING:
    from peer.lan.lan import Lan
    from scheduler.service import SchedulerService

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a host stands: what its role has found out before the host is made.

    ``bound`` is what the pieces' listener on ``service`` is bound to; ``folder`` holds the role's data. ``scheduler``
    runs in this process, None where there is none.
    """

    service: Service
    plan: Plan
    bound: str
    folder: Path
    interfaces: Interfaces
    scheduler: SchedulerService | None = None


@dataclass(frozen=True, slots=True)
class RunningHost:
    """A host that runs, its reader of sources, and its eyes for the others."""

    host: Host
    reader: SourceReader
    look: Look


@asynccontextmanager
async def running_host(
    config: Config, place: Place, role: Role, plugins: PluginRegistry
) -> AsyncIterator[RunningHost]:
    """A host, whose plugins are noted in ``plugins``; it gives up its leases and closes its store at the end of the
    context. Raises ConfigError, StoreLocked and what opening a store raises."""
    service, plan = place.service, place.plan
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store.open(place.folder, config.store))
        finder = PluginFinder(config.source, plugins)
        reader = await stack.enter_async_context(
            SourceReader.open(config.source, service.registry, environ=os.environ, finder=finder)
        )
        await check_schemes(config.source, reader)
        host = await _make_host(config, place, role, store, reader)
        host.add_routes(service.router)
        client = await stack.enter_async_context(HttpClient(max_connections=_connections(config, plan)))
        links = Links(client, host, _readiness(service, "scheduler", "connecting to the scheduler"))
        lan = await _look_around(config, place, host, links, stack)

        async def drain() -> None:
            host.draining = True
            links.renew()

        service.on_stopping.append(drain)
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(place.interfaces.run)
        nursery.start_soon(_follow, config, place, host, lan)
        await nursery.start(host.run, links)
        if lan is not None:
            nursery.start_soon(_take_part, lan, links, place)
        look = lan.view if lan is not None else look_alone(host, config.lan.cluster, plan.scheduler)
        try:
            yield RunningHost(host, reader, look)
        finally:
            nursery.cancel_scope.cancel()


def _connections(config: Config, plan: Plan) -> int:
    """Of the links, at once: each has its stream, its lease and its reports."""
    return 3 * (config.lan.max_ring if plan.discovers else 1) + 32


async def _make_host(config: Config, place: Place, role: Role, store: Store, reader: SourceReader) -> Host:
    address = _address(config, place)
    identity = HostIdentity(
        id=await trio.to_thread.run_sync(read_host_id, place.folder),
        role=role,
        address=address,
        location=config.host.location,
        network=_network(place.interfaces, address),
    )
    secret, since = await trio.to_thread.run_sync(read_scope_secret, place.folder)
    host = Host(
        identity,
        store,
        reader,
        config.swarm,
        SwarmMetrics(place.service.registry),
        scope_secret=secret,
        secret_since=since,
        keep_secret=partial(keep_scope_secret, place.folder),
    )
    host.own_address = lambda: own_address(host.identity.address, place.interfaces.primary())
    host.preheats = Preheats(host, ImageResolver(host, reader))
    return host


async def _look_around(
    config: Config, place: Place, host: Host, links: Links, stack: AsyncExitStack
) -> Lan | None:
    """The LAN, where this host looks for others; else its one scheduler is used from now on."""
    plan = place.plan
    if not plan.discovers:
        links.use({"configured": plan.scheduler})
        return None
    from peer.lan.joining import asking_client, host_lan

    async def rename(another: str) -> None:
        before = host.identity.id
        log.warning(
            "another host has the id of this one, so this host takes a new one", before=before, id=another
        )
        try:
            await trio.to_thread.run_sync(keep_host_id, place.folder, another)
        except ConfigError as error:
            log.warning("the new id is not kept for the next start", cause=str(error))
        host.rename(another)

    lan = host_lan(
        config.lan,
        plan,
        host,
        bound=place.bound,
        interfaces=place.interfaces,
        client=await stack.enter_async_context(asking_client()),
        registry=place.service.registry,
        router=place.service.router,
        rename=rename,
        readiness=_readiness(place.service, "lan", "looking who is on the LAN"),
    )
    host.address_of = lan.address_of
    if not plan.scheduler:
        host.is_near = partial(is_near, place)
    scheduler = place.scheduler
    if scheduler is not None:
        scheduler.control_routes(place.service.router)
        scheduler.on_lease.append(lambda lease: lan.leased(lease) if is_near(place, lease.address) else None)
        scheduler.refuse_preheats = lambda: _why_no_preheats(lan)
        scheduler.quiet = True
    log.info(
        "takes part in the LAN",
        cluster=config.lan.cluster,
        id=host.identity.id,
        role=host.identity.role,
        mdns=plan.multicast,
        near_only=plan.near_only,
        interfaces=[interface.name for interface in place.interfaces.current()],
    )
    return lan


async def _take_part(lan: Lan, links: Links, place: Place) -> None:
    from peer.lan.joining import OwnScheduler

    assert place.scheduler is not None, "who looks for others embeds a scheduler"
    await lan.run(links, OwnScheduler(local_url(place.bound), place.scheduler.leave))


async def _follow(config: Config, place: Place, host: Host, lan: Lan | None) -> None:
    """A cable was plugged in, a Wi-Fi was left: tell the schedulers, and look who is there now."""
    while True:
        await place.interfaces.changed.wait()
        address = await trio.to_thread.run_sync(_address, config, place)  # it may look a name up
        host.readdress(address=address, network=_network(place.interfaces, address))
        if lan is not None:
            lan.disturbed(own_address(address, place.interfaces.primary()))


def _address(config: Config, place: Place) -> str:
    """What others are told. A wildcard is left to each scheduler that was found, and sees where the host is reached;
    one on this machine does not see it."""
    plan = place.plan
    if plan.discovers and not plan.scheduler and not config.host.advertise:
        return place.bound
    address = advertised_address(place.bound, config.host.advertise, plan.scheduler)
    if not config.host.advertise and loopback(address):
        return own_address(place.bound, place.interfaces.primary())
    return address


def _network(interfaces: Interfaces, address: str) -> str:
    """The subnet of HOST:PORT, if it is one of this machine's."""
    return interfaces.network_of(host_of(address) or interfaces.primary())


def is_near(place: Place, address: str) -> bool:
    """Whether HOST:PORT, which anybody may have told, can be that of a neighbour: so nobody can send the hosts of a LAN
    to a machine somewhere else, nor a host to what listens on its own loopback."""
    host = host_of(address)
    if loopback(address):
        return loopback(place.bound)
    return place.interfaces.admits(host) or bool(place.interfaces.network_of(host))


def _why_no_preheats(lan: Lan) -> str:
    from scheduler.errors import NO_SCHEDULER

    return NO_SCHEDULER if lan.mode in ("ring", "alone") else ""


def _readiness(service: Service, name: str, first: str) -> Callable[[str | None], None]:
    service.readiness.wait_for(name, first)

    def changed(reason: str | None) -> None:
        if reason is None:
            service.readiness.done(name)
        else:
            service.readiness.wait_for(name, reason)

    return changed
