"""Which scheduler a command talks to: the configured one, else the one that the daemon of this machine uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peer.cli.execution import UsageError
from shared.errors import Unavailable

if TYPE_CHECKING:
    from peer.config import Config
    from peer.lan.views import LanView


async def scheduler_for(config: Config, *, secrets: bool) -> str:
    """Its URL. ``secrets``: it is to be told some, which a scheduler that was merely found is not.

    Raises UsageError, Unavailable.
    """
    from peer.client import LocalClient, NoDaemon
    from peer.config import scheduler_url

    if config.host.scheduler:
        return config.host.scheduler
    try:
        view = await LocalClient(config.peer.socket).lan(probe=False)
    except NoDaemon:
        return scheduler_url(config)
    return scheduler_in(view, secrets=secrets) or scheduler_url(config)


def scheduler_in(view: LanView, *, secrets: bool) -> str:
    """The scheduler of a daemon that sees this; "" when it has none yet. Pure. Raises UsageError, Unavailable."""
    if view.mode == "ring":
        from scheduler.errors import NO_SCHEDULER

        raise Unavailable(NO_SCHEDULER)
    if view.mode == "scheduler":
        named = ", ".join(view.schedulers)
        if len(view.schedulers) > 1:
            raise UsageError(f"several schedulers were found ({named}): name one of them with --scheduler")
        if secrets:
            raise UsageError(
                f"the scheduler {named} was found on the network, where anybody could be one: name it with "
                "--scheduler, or in host.scheduler, to have it told credentials or a token"
            )
    return view.schedulers[0] if view.schedulers else ""
