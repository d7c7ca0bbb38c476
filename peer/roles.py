"""The roles that hold content: each puts its parts together, serves, and ends in good order.

A seeder and a peer are the same host with another role; the peer has the local API and the gateway too.
``up`` runs a scheduler and one host that is seeder and peer at once: one store, nothing moved twice. A host that
looks for others on its LAN has a scheduler of its own, too, for the times when there is no other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from peer.config import PIECES_PORT, Config, local_url
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.setup import registry_gateway
from peer.hosting import Place, running_host
from peer.lan.interfaces import Interfaces
from peer.lan.plan import Plan, loopback, plan_host, plan_scheduler
from peer.local_api import LocalApi
from shared.plugins import PluginRegistry
from shared.protocol import Role
from shared.service import Service, run_process

if TYPE_CHECKING:
    from scheduler.service import SchedulerService


async def run_seeder(config: Config) -> None:
    """``dragonet seeder``: until a signal ends it."""
    await run_process(partial(_seeder, config))


async def run_peer(config: Config) -> None:
    """``dragonet peer``: until a signal ends it."""
    await run_process(partial(_peer, config))


async def run_up(config: Config) -> None:
    """``dragonet up``: scheduler, seeder and peer in one process, until a signal ends it."""
    await run_process(partial(_up, config))


# --- roles -------------------------------------------------------------------------------------------


async def _seeder(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    plan = _plan(config, config.seeder.listen)
    async with _service("seeder", config) as service, _embedded(config, plan, service) as scheduler:
        place = await _pieces(config, service, plan, "seeder", scheduler)
        async with running_host(config, place, "seeder", PluginRegistry()):
            await service.run(stopping, task_status=task_status)


async def _peer(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    plan = _plan(config, config.peer.listen)
    async with _service("peer", config) as service, _embedded(config, plan, service) as scheduler:
        place = await _pieces(config, service, plan, "peer", scheduler)
        await _serve_peer(config, place, "peer", stopping, task_status)


async def _up(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The scheduler is at ``scheduler.listen`` as ever. Where hosts look for each other it is this host's part of
    their ring, too; but one that other machines reach is a scheduler for all of them."""
    from peer.control import on_lan, running_scheduler

    async with _service("scheduler", config) as control, _service("peer", config) as service:
        at = await control.listen(config.scheduler.listen, setting="scheduler.listen")
        own = local_url(at)
        plan = plan_host(config.lan, listen=config.peer.listen, port=PIECES_PORT, scheduler="", local=own)
        shared = plan_scheduler(config.lan, listen=config.scheduler.listen)
        if loopback(config.scheduler.listen):
            shared = dataclasses.replace(shared, discovers=False, multicast=False)
        if shared.discovers:
            plan = dataclasses.replace(plan, scheduler=own)
        ring = plan.discovers and not plan.scheduler
        settings = config.scheduler
        if ring:
            from scheduler.config import ring_config

            settings = ring_config(config.scheduler)
        peer_ended = trio.Event()
        async with (
            running_scheduler(settings, control) as scheduler,
            on_lan(config, shared, control, at),
            trio.open_nursery() as nursery,
        ):
            await nursery.start(control.run, peer_ended)
            place = await _pieces(config, service, plan, "peer", scheduler)
            await _serve_peer(config, place, "peer" if ring else "seeder", stopping, task_status)
            peer_ended.set()


# --- parts -------------------------------------------------------------------------------------------


@asynccontextmanager
async def _service(name: str, config: Config) -> AsyncIterator[Service]:
    async with Service(name, limits=config.server, grace=config.server.grace) as service:
        yield service


def _plan(config: Config, listen: str) -> Plan:
    return plan_host(
        config.lan,
        listen=listen,
        port=PIECES_PORT,
        scheduler=config.host.scheduler,
        local=local_url(config.scheduler.listen),
    )


@asynccontextmanager
async def _embedded(config: Config, plan: Plan, service: Service) -> AsyncIterator[SchedulerService | None]:
    """The scheduler of a host that looks for others; a host that does not starts without a scheduler's code."""
    if not plan.discovers:
        yield None
        return
    from peer.control import embedded_scheduler

    async with embedded_scheduler(config.scheduler, service.registry) as scheduler:
        yield scheduler


async def _pieces(
    config: Config, service: Service, plan: Plan, role: Role, scheduler: SchedulerService | None
) -> Place:
    """The listener for pieces."""
    interfaces = Interfaces(config.lan.interfaces)
    bound = await service.listen(
        plan.listen, setting=f"{role}.listen", admit=interfaces.admits if plan.near_only else None
    )
    return Place(
        service=service,
        plan=plan,
        bound=bound,
        folder=config.host.data_dir / role,
        interfaces=interfaces,
        scheduler=scheduler,
    )


async def _serve_peer(
    config: Config, place: Place, role: Role, stopping: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    """A host with the local API and the gateway; as a seeder it also reads origins for others."""
    service = place.service
    gateway = service.new_router()
    await service.listen(config.peer.gateway, gateway, name="gateway", setting="peer.gateway")
    plugins = PluginRegistry()
    async with running_host(config, place, role, plugins) as running:
        registry_gateway(config, running.host, running.reader, RegistryMetrics(service.registry)).add_routes(
            gateway
        )
        router = service.new_router()
        LocalApi(running.host, plugins, running.look).add_routes(router)
        await service.listen_unix(config.peer.socket, router)
        await service.run(stopping, task_status=task_status)
