"""``dragonet get`` where no daemon runs: a peer in the command's own process, for one download.

It is a host like any other: it joins the swarm of the configured scheduler while it runs, keeps its
pieces in the user's data folder so that an interrupted download goes on, and serves them meanwhile.
Without a reachable scheduler it goes straight to the origin.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from cdn.reader import SourceReader
from cdn.sources.plugins.finder import PluginFinder
from peer.address import advertised_address, host_of
from peer.config import Config, scheduler_url
from peer.downloads import download
from peer.host_id import read_host_id
from peer.lan.interfaces import Interfaces
from peer.orders import DownloadDone, DownloadOrder, DownloadProgress
from peer.scope_secret import keep_scope_secret, read_scope_secret
from shared.errors import DragonetError, StoreLocked
from shared.http.client import HttpClient
from shared.http.router import Router
from shared.http.server import HttpServer, bound_address, listen_tcp
from shared.plugins import PluginRegistry
from shared.store import Store
from shared.swarm.host import Host
from shared.swarm.identity import HostIdentity
from shared.swarm.links import Links
from shared.swarm.metrics import SwarmMetrics

SCHEDULER_PROBE = 2.0
"""Seconds given to the scheduler to show that it is there."""


async def download_once(
    config: Config, order: DownloadOrder, output: int, on_progress: Callable[[DownloadProgress], None]
) -> DownloadDone:
    """Carry out one order without a daemon. Raises DragonetError."""
    async with host_once(config) as host:
        return await download(host, order, output, on_progress)


@asynccontextmanager
async def host_once(config: Config) -> AsyncIterator[Host]:
    """A host for the time of the context. Raises DragonetError."""
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        store, data_dir = await _open_store(config, stack)
        finder = PluginFinder(config.source, PluginRegistry())
        # the environment is that of whoever gave the command: none of the host's credentials are in it
        reader = await stack.enter_async_context(SourceReader.open(config.source, registry, finder=finder))
        client = await stack.enter_async_context(HttpClient())
        scheduler = scheduler_url(config)
        joined = await _scheduler_answers(client, scheduler)
        # towards the scheduler's network only, so that other hosts can reach what is passed on
        towards = advertised_address("0.0.0.0:0", "", scheduler) if joined else "127.0.0.1:0"
        listener = (await listen_tcp(towards))[0]
        address = bound_address(listener)
        identity = HostIdentity(
            await trio.to_thread.run_sync(read_host_id, data_dir),
            "peer",
            address,
            location=config.host.location,
            network=Interfaces(config.lan.interfaces).network_of(host_of(address)) if joined else "",
        )
        secret, since = await trio.to_thread.run_sync(read_scope_secret, data_dir)
        host = Host(
            identity,
            store,
            reader,
            config.swarm,
            SwarmMetrics(registry),
            scope_secret=secret,
            secret_since=since,
            keep_secret=partial(keep_scope_secret, data_dir),
        )
        router = Router()
        host.add_routes(router)
        links = Links(client, host, lambda _: None) if joined else None
        if links is not None:
            links.use({"configured": scheduler})
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(HttpServer(router, limits=config.server, name="one-shot peer").serve, [listener])
        await nursery.start(host.run, links)
        try:
            yield host
        finally:
            nursery.cancel_scope.cancel()


async def _open_store(config: Config, stack: AsyncExitStack) -> tuple[Store, Path]:
    """The user's own store; while another command uses it, one for this command alone."""
    own = config.host.data_dir / "get"
    try:
        return await stack.enter_async_context(Store.open(own, config.store)), own
    except StoreLocked:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="get-", dir=own.parent)))
        return await stack.enter_async_context(Store.open(temporary, config.store)), temporary


async def _scheduler_answers(client: HttpClient, url: str) -> bool:
    try:
        answer = await client.request("GET", f"{url.rstrip('/')}/readyz", timeout=SCHEDULER_PROBE)
    except DragonetError:
        return False
    return answer.status == 200
