"""Who may have this host preheat, and which scheduler each preheat is from.

A preheat makes a host read what nobody here has asked for. The scheduler of the configuration may order that. One
that was merely found may order it of a seeder, which reads for others anyway, though never with its own login. Hosts
of a ring may order it of nobody.
"""

from __future__ import annotations

import structlog

from shared.protocol import Failure, Preheated, PreheatWanted, Resolved, ResolveWanted, Role
from shared.swarm.link import SchedulerLink
from shared.swarm.links_owner import CONFIGURED, LinksOwner, PreheatOrder

log = structlog.get_logger()

MAX_JOBS = 256
"""Preheats of which it is remembered who ordered them."""
NO_LOGIN = (
    "this host shows its own login to a registry for the scheduler of its configuration only: give credentials "
    "with the preheat, or configure the scheduler there (host.scheduler)"
)


class OrderBook:
    """The preheats of one host, by their numbers."""

    def __init__(self, owner: LinksOwner) -> None:
        self._owner = owner
        self._givers: dict[int, str] = {}

    def giver(self, job: int) -> str:
        """The name of the scheduler that ordered it, "" where that is not known."""
        return self._givers.get(job, "")

    async def take(self, order: PreheatOrder, link: SchedulerLink, role: Role) -> None:
        """Have an order carried out, or tell why it is not."""
        trusted = link.name == CONFIGURED
        if not may_order(link, role):
            words = "this host preheats for the scheduler of its configuration only, and that is another one"
        elif self._givers.get(order.job, link.name) != link.name:
            words = "another scheduler ordered a preheat of this number"
        elif isinstance(order, PreheatWanted) and order.own_login and not trusted:
            words = NO_LOGIN
        else:
            self._givers[order.job] = link.name
            if len(self._givers) > MAX_JOBS:
                del self._givers[next(iter(self._givers))]
            await self._owner.ordered(order, own_login=trusted)
            return
        _refuse(order, link, words)


def may_order(link: SchedulerLink, role: Role) -> bool:
    """Whether a scheduler may have a host of this role preheat."""
    return link.name == CONFIGURED or (role == "seeder" and not link.ring)


def _refuse(order: PreheatOrder, link: SchedulerLink, words: str) -> None:
    log.debug("a preheat is refused", scheduler=link.url, cause=words)
    failure = Failure(words, fault="reader")
    if isinstance(order, ResolveWanted):
        link.report(Resolved(order.job, failure=failure))
    elif isinstance(order, PreheatWanted):
        for item in order.items:
            link.report(Preheated(order.job, item.spec.task_id, failure=failure))
