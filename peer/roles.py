"""The roles that hold content: each puts its parts together, serves, and ends in good order.

A seeder and a peer are the same host with another role; the peer has the local API and the gateway too.
``up`` runs a scheduler and one host that is seeder and peer at once: one store, nothing moved twice.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from cdn.checking import check_schemes
from cdn.images.resolving import ImageResolver
from cdn.reader import SourceReader
from cdn.sources.plugins.finder import PluginFinder
from peer.address import advertised_address
from peer.config import Config, local_url
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.setup import registry_gateway
from peer.local_api import LocalApi
from peer.scope_secret import keep_scope_secret, read_scope_secret
from shared.errors import ConfigError
from shared.http.client import HttpClient
from shared.plugins import PluginRegistry
from shared.protocol import Role
from shared.service import Service, run_process
from shared.store import Store
from shared.swarm.host import Host
from shared.swarm.identity import HostIdentity
from shared.swarm.link import SchedulerLink
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.preheats import Preheats

log = structlog.get_logger()


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
    async with _service("seeder", config) as service:
        address = await service.listen(config.seeder.listen, setting="seeder.listen")
        async with _host(config, service, "seeder", "seeder", address, PluginRegistry()):
            await service.run(stopping, task_status=task_status)


async def _peer(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with _service("peer", config) as service:
        await _serve_peer(config, service, "peer", stopping, task_status)


async def _up(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    from peer.control import serve_scheduler  # only here: a peer alone starts without a scheduler's code

    async with _service("scheduler", config) as control, _service("peer", config) as service:
        own_url = local_url(await control.listen(config.scheduler.listen, setting="scheduler.listen"))
        own = msgspec.structs.replace(config, host=msgspec.structs.replace(config.host, scheduler=own_url))
        peer_ended = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_scheduler, config, control, peer_ended)
            await _serve_peer(own, service, "seeder", stopping, task_status)
            peer_ended.set()


# --- parts -------------------------------------------------------------------------------------------


@asynccontextmanager
async def _service(name: str, config: Config) -> AsyncIterator[Service]:
    async with Service(name, limits=config.server, grace=config.server.grace) as service:
        yield service


async def _serve_peer(
    config: Config, service: Service, role: Role, stopping: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    """A host with the local API and the gateway; as a seeder it also reads origins for others."""
    address = await service.listen(config.peer.listen, setting="peer.listen")
    gateway = service.new_router()
    await service.listen(config.peer.gateway, gateway, name="gateway", setting="peer.gateway")
    plugins = PluginRegistry()
    async with _host(config, service, role, "peer", address, plugins) as (host, reader):
        registry_gateway(config, host, reader, RegistryMetrics(service.registry)).add_routes(gateway)
        router = service.new_router()
        LocalApi(host, plugins).add_routes(router)
        await service.listen_unix(config.peer.socket, router)
        await service.run(stopping, task_status=task_status)


@asynccontextmanager
async def _host(
    config: Config, service: Service, role: Role, folder: str, address: str, plugins: PluginRegistry
) -> AsyncIterator[tuple[Host, SourceReader]]:
    """A running host, whose plugins are noted in ``plugins``, and its reader of sources; it gives up its lease
    and closes its store at the end of the context."""
    data_dir = config.host.data_dir / folder
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store.open(data_dir, config.store))
        finder = PluginFinder(config.source, plugins)
        reader = await stack.enter_async_context(
            SourceReader.open(config.source, service.registry, environ=os.environ, finder=finder)
        )
        await check_schemes(config.source, reader)
        identity = HostIdentity(
            id=await trio.to_thread.run_sync(host_id, data_dir),
            role=role,
            address=advertised_address(address, config.host.advertise, config.host.scheduler),
            location=config.host.location,
        )
        host = Host(
            identity,
            store,
            reader,
            config.swarm,
            SwarmMetrics(service.registry),
            scope_secret=await trio.to_thread.run_sync(read_scope_secret, data_dir),
            keep_secret=partial(keep_scope_secret, data_dir),
        )
        host.preheats = Preheats(host, ImageResolver(host, reader))
        host.add_routes(service.router)
        client = await stack.enter_async_context(HttpClient())
        link = SchedulerLink(config.host.scheduler, client, host, _readiness(service))

        async def drain() -> None:
            host.draining = True
            link.renew()

        service.on_stopping.append(drain)
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(host.run, link)
        try:
            yield host, reader
        finally:
            nursery.cancel_scope.cancel()


def _readiness(service: Service) -> Callable[[str | None], None]:
    service.readiness.wait_for("scheduler", "connecting to the scheduler")

    def changed(reason: str | None) -> None:
        if reason is None:
            service.readiness.done("scheduler")
        else:
            service.readiness.wait_for("scheduler", reason)

    return changed


def host_id(data_dir: Path) -> str:
    """The id of the host whose data folder this is; made at the first start. Blocking; ConfigError."""
    path = data_dir / "host-id"
    try:
        if path.exists():
            text = path.read_text(encoding="ascii").strip()
            if text and len(text) <= 64 and text.isalnum():
                return text
        made = secrets.token_hex(8)
        path.write_text(made + "\n", encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the host id in {path} cannot be read or written: {error}") from None
    return made
