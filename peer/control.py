"""The scheduler's role: no store, no sources; what it knows is told to it."""

from __future__ import annotations

from functools import partial

import trio

from peer.config import Config
from scheduler.service import SchedulerService
from shared.service import Service, run_process


async def run_scheduler(config: Config) -> None:
    """``dragonet scheduler``: until a signal ends it."""
    await run_process(partial(_scheduler, config))


async def serve_scheduler(
    config: Config,
    service: Service,
    stopping: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A scheduler on a service that listens already, until ``stopping``."""
    scheduler = SchedulerService(config.scheduler, service.registry)
    scheduler.routes(service.router)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run)
        await service.run(stopping, task_status=task_status)
        nursery.cancel_scope.cancel()


async def _scheduler(
    config: Config, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with Service("scheduler", limits=config.server, grace=config.server.grace) as service:
        await service.listen(config.scheduler.listen, setting="scheduler.listen")
        await serve_scheduler(config, service, stopping, task_status=task_status)
