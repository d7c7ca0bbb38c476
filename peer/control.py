"""The scheduler's role: no store, no sources; what it knows is told to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio
from prometheus_client import CollectorRegistry

from peer.config import Config
from peer.host_id import new_host_id, read_host_id
from peer.lan.plan import Plan, plan_scheduler
from scheduler.config import SchedulerConfig
from scheduler.service import SchedulerService
from shared.errors import ConfigError
from shared.service import Service, run_process

log = structlog.get_logger()


async def run_scheduler(config: Config) -> None:
    """``dragonet scheduler``: until a signal ends it."""
    await run_process(partial(_scheduler, config))


@asynccontextmanager
async def running_scheduler(config: SchedulerConfig, service: Service) -> AsyncIterator[SchedulerService]:
    """A scheduler that answers on the service, which has to be run for it."""
    async with _running(config, service.registry) as scheduler:
        scheduler.routes(service.router)
        yield scheduler


@asynccontextmanager
async def embedded_scheduler(
    config: SchedulerConfig, registry: CollectorRegistry
) -> AsyncIterator[SchedulerService]:
    """The scheduler of a host that is one of a ring; it answers nowhere yet."""
    from scheduler.config import ring_config

    async with _running(ring_config(config), registry) as scheduler:
        yield scheduler


@asynccontextmanager
async def on_lan(config: Config, plan: Plan, service: Service, bound: str) -> AsyncIterator[None]:
    """Meanwhile the scheduler that is bound to ``bound`` is found by hosts, if it is to be."""
    if not plan.discovers:
        yield
        return
    from peer.lan.interfaces import Interfaces
    from peer.lan.joining import asking_client, scheduler_lan

    interfaces = Interfaces(config.lan.interfaces)
    async with asking_client() as client:
        lan = scheduler_lan(
            config.lan,
            plan,
            await trio.to_thread.run_sync(_identity, config.host.data_dir / "scheduler"),
            bound=bound,
            interfaces=interfaces,
            client=client,
            registry=service.registry,
            router=service.router,
            location=config.host.location,
        )
        log.info(
            "takes part in the LAN",
            cluster=config.lan.cluster,
            id=lan.me.id,
            role="scheduler",
            mdns=plan.multicast,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interfaces.run)
            nursery.start_soon(lan.run, None, None)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def _running(config: SchedulerConfig, registry: CollectorRegistry) -> AsyncIterator[SchedulerService]:
    scheduler = SchedulerService(config, registry)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run)
        try:
            yield scheduler
        finally:
            nursery.cancel_scope.cancel()


def _identity(folder: Path) -> str:
    """The id under which this scheduler is known. It keeps nothing else: where it cannot keep this, it has another
    one at each start, and contents may move between several schedulers then."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return read_host_id(folder)
    except (OSError, ConfigError) as error:
        log.info("the scheduler's id is not kept", cause=str(error))
        return new_host_id()


async def _scheduler(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    plan = plan_scheduler(config.lan, listen=config.scheduler.listen)
    async with Service("scheduler", limits=config.server, grace=config.server.grace) as service:
        bound = await service.listen(config.scheduler.listen, setting="scheduler.listen")
        async with running_scheduler(config.scheduler, service), on_lan(config, plan, service, bound):
            await service.run(stopping, task_status=task_status)
