"""The schedulers of a host: a link to each, and which of them decides for which task.

What the host reports of a task goes to the scheduler that decides for it, and only that one is obeyed. When
schedulers come or go, the new one is told all of the tasks that have become its own, and the old one, after a
while, that this host has nothing to do with them any more. Who decides is found out in ``ownership``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import TypeVar

import msgspec
import structlog
import trio

from shared.http.client import Feeds, HttpClient
from shared.protocol import (
    Assignment,
    CheckGranted,
    Failure,
    FreshWanted,
    HostLease,
    LeaseGranted,
    ParentsAssigned,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    Preheated,
    PreheatOver,
    PreheatWanted,
    Report,
    Resolved,
    ResolveWanted,
    SourceChecked,
    SourceFailed,
    SourceGranted,
    TaskRemoved,
)
from shared.swarm.identity import HostIdentity
from shared.swarm.link import SchedulerLink
from shared.swarm.links_owner import CONFIGURED, LinksOwner
from shared.swarm.order_book import OrderBook, may_order
from shared.swarm.ownership import Ownership
from shared.swarm.pulse import Pulse

log = structlog.get_logger()
K = TypeVar("K")
V = TypeVar("V")

GRACE = 1.0
"""Seconds for which a scheduler goes on deciding when its link has broken: most are there again at once."""
FAREWELL = 3.0
"""Seconds after which a scheduler hears that another one decides for a task. Those who have not noticed yet go on
with what it knows; by then they have."""
WATCH = 0.5
"""Seconds between looks at whether it is time to take leave."""
MAX_UNTOLD = 1000
"""Reports queued at most while everything held is told anew."""
STRIDE = 50
"""Tasks that are looked at without letting others run."""
MAX_GRANTS, MAX_SEEN = 1000, 1000
"""Checks of which it is remembered who ordered them, and schedulers that gave a lease before."""


class Links:
    """The links of one host. Run it in the host's nursery; what it is to use may be told before."""

    def __init__(
        self, client: HttpClient, owner: LinksOwner, on_change: Callable[[str | None], None]
    ) -> None:
        """``on_change`` hears why no scheduler is connected, or None when one is."""
        self.usable: frozenset[str] = frozenset()
        """Schedulers that are connected, or were until a moment ago."""
        self.changed = Pulse()
        """Beats when ``usable`` changes."""
        self._client = client
        self._owner = owner
        self._on_change = on_change
        self._feeds = Feeds()
        self._ownership = Ownership(owner.spec_of)
        self._links: dict[str, SchedulerLink] = {}
        self._reached: frozenset[str] = frozenset()
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._lost_since: float | None = None
        self._stirred = Pulse()
        self._moved = trio.Event()
        self._untold: dict[str, list[str]] = {}
        self._checks: dict[str, str] = {}
        self._orders = OrderBook(owner)
        self._seen: dict[str, None] = {}

    def use(self, schedulers: Mapping[str, str], *, ring: bool = False, own: str = "") -> None:
        """The schedulers to use from now on, all of them: URLs by name. Links that stay are kept; the others are
        closed, and their leases given up. ``ring``: they are hosts, each with a scheduler inside. ``own``: the URL of
        the one within this process. Unless one is configured, nobody else is told of what not everybody may have."""
        wanted = {name: (url.rstrip("/"), ring) for name, url in schedulers.items()}
        here, aside = self.identity.id, ""
        if own and not {CONFIGURED, here} & wanted.keys():
            wanted[here], aside = (own.rstrip("/"), True), here
        for name, link in list(self._links.items()):
            if wanted.get(name) != (link.url, link.ring):
                self._close(name)
        for name, (url, of_ring) in wanted.items():
            if name not in self._links:
                self._open(name, url, of_ring)
        trusted = None if CONFIGURED in wanted else here if here in wanted else ""
        if (trusted, aside) != (self._ownership.trusted, self._ownership.aside):
            self._ownership.trusted, self._ownership.aside = trusted, aside
            self._moved.set()
        self._review()
        if not self.connected:
            words = "connecting to the scheduler" if schedulers else "no scheduler is known"
            self._on_change(words)

    def reopen(self) -> None:
        """This host has another id: all leases are taken anew."""
        before = [(link.name, link.url, link.ring) for link in self._links.values()]
        for name, url, ring in before:
            self._close(name)
            self._open(name, url, ring)
        self._review()

    async def run(self) -> None:
        """Until cancelled."""
        self._lost_since = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._feeds.run)
                for name, link in self._links.items():
                    nursery.start_soon(self._run_link, link, self._scopes[name])
                nursery.start_soon(self._keep_reviewing)
                nursery.start_soon(self._keep_moving)
                nursery.start_soon(self._keep_taking_leave)
        finally:
            self._nursery = None

    async def leave(self) -> None:
        """Give all leases up, as far as the schedulers can be reached; takes a second at most."""
        async with trio.open_nursery() as nursery:
            for link in self._links.values():
                nursery.start_soon(link.leave)

    # --- how it stands ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether any scheduler is (but for one within this process that decides only for what is private)."""
        aside = self._ownership.aside
        return any(link.connected for name, link in self._links.items() if name != aside)

    def lost_for(self, task_id: str) -> float:
        """Seconds for which no scheduler that could decide for the task has been connected; 0 while one is."""
        if self._ownership.trusted is not None and self._ownership.is_private(task_id):
            return self.silent_for(self._ownership.trusted)
        return 0.0 if self._lost_since is None else trio.current_time() - self._lost_since

    def trusts_owner(self, task_id: str) -> bool:
        """Whether the scheduler of the configuration, or this host itself, decides for the task."""
        return self._ownership.owner(task_id) in (CONFIGURED, self.identity.id, "")

    def silent_for(self, name: str) -> float:
        """Seconds for which this scheduler has not been connected; infinite where there is no such link."""
        link = self._links.get(name)
        return inf if link is None else link.lost_for()

    def renew(self) -> None:
        """Renew the leases now: what they say has changed."""
        for link in self._links.values():
            link.renew()

    # --- reports ---------------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Queue a report, for the scheduler that it concerns. While none is known it is dropped: whichever will
        be known is told how things stand then."""
        match report:
            case Resolved() | Preheated():
                link = self._ordering(report.job)
            case SourceChecked():
                link = self._links.get(self._checks.pop(report.grant, "")) or self._deciding(report.task)
            case TaskRemoved():
                link = self._deciding(report.task)
                if self._owner.spec_of(report.task) is None:  # else another version has replaced it
                    self._ownership.drop(report.task, trio.current_time())
            case _:
                link = self._concerned(report.task, report)
        if link is not None:
            link.report(report)

    def _concerned(self, task_id: str, report: Report) -> SchedulerLink | None:
        """The link of the task's owner, which is told first what it has to know, if it is another one than before."""
        if isinstance(report, FreshWanted):
            self._ownership.note(task_id, report.spec)
        elif isinstance(report, PeerRegistered | PeerHolding):
            self._ownership.note(task_id, report.spec)
            if not self._ownership.was_told(task_id):  # there is nothing else to tell of it
                self._ownership.tell(task_id, trio.current_time())
        link = self._deciding(task_id)
        if not self._ownership.is_told(task_id):
            self._tell(task_id, link)
        return link

    def _tell(self, task_id: str, link: SchedulerLink | None) -> bool:
        """Tell of an open task; whether that was all that there is to tell."""
        reports = self._owner.told(task_id)
        if reports is None:
            return False
        moves = self._ownership.moves(task_id)
        if link is not None:
            for report in reports:
                if moves and isinstance(report, PeerRegistered):
                    report = msgspec.structs.replace(report, taken_over=True)
                link.report(report)
        self._ownership.tell(task_id, trio.current_time())
        return True

    def _deciding(self, task_id: str) -> SchedulerLink | None:
        return self._links.get(self._ownership.owner(task_id))

    def _ordering(self, job: int) -> SchedulerLink | None:
        """The scheduler that ordered it: nobody else is told."""
        return self._links.get(self._orders.giver(job))

    # --- LinkOwner -------------------------------------------------------------------------------------

    @property
    def identity(self) -> HostIdentity:
        """Who the host is."""
        return self._owner.identity

    def lease(self, link: SchedulerLink) -> HostLease:
        """What is announced to one scheduler now. The cluster's secret is told to none but the scheduler of the
        configuration."""
        lease = self._owner.lease(link.name)
        if link.name != CONFIGURED:
            lease = msgspec.structs.replace(lease, secret=b"", secret_since=0.0)
        resuming = bool(link.scheduler) or link.url in self._seen
        preheats = lease.preheats and may_order(link, lease.role)
        return msgspec.structs.replace(lease, resuming=resuming, preheats=preheats)

    async def leased(self, granted: LeaseGranted, link: SchedulerLink) -> None:
        """A scheduler's answer."""
        _remember(self._seen, link.url, None, MAX_SEEN)
        if not granted.known:
            self._ownership.forgotten(link.name)
        if link.name == CONFIGURED:
            await self._owner.leased(granted)

    async def tell_anew(self, full: bool, link: SchedulerLink) -> None:
        """Queue the reports that rebuild a scheduler's knowledge of what it decides for."""
        told = set()
        for task_id in self._owner.active():
            if self._deciding(task_id) is link and self._tell(task_id, link):
                told.add(task_id)
        for report in self._owner.preheated():
            if isinstance(report, Resolved | Preheated) and self._ordering(report.job) is link:
                link.report(report)
        for number, task_id in enumerate(self._owner.stored() if full else ()):
            if number % STRIDE == STRIDE - 1:
                await trio.lowlevel.checkpoint()
            if task_id not in told and self._deciding(task_id) is link:
                await self._tell_stored(task_id, link)

    async def catch_up(self, link: SchedulerLink) -> None:
        """Queue the reports of what a scheduler decides for since lately, and was not told of."""
        for task_id in self._untold.pop(link.name, ()):
            if self._deciding(task_id) is link and not self._ownership.is_told(task_id):
                if not self._tell(task_id, link):
                    await self._tell_stored(task_id, link)
                await trio.lowlevel.checkpoint()

    async def _tell_stored(self, task_id: str, link: SchedulerLink) -> None:
        await link.outbox.below(MAX_UNTOLD)
        holding = await self._owner.holding(task_id)
        if holding is not None and self._deciding(task_id) is link:
            link.report(holding)
            self._ownership.tell(task_id, trio.current_time())

    async def assigned(self, assignment: Assignment, link: SchedulerLink) -> None:
        """A scheduler's decision: obeyed where that one decides."""
        if isinstance(assignment, ResolveWanted | PreheatWanted | PreheatOver):
            await self._orders.take(assignment, link, self.identity.role)
            return
        task_id = getattr(assignment, "task", "")
        if isinstance(assignment, SourceGranted | CheckGranted):
            self._ownership.note(task_id, assignment.spec)
        if self._deciding(task_id) is not link:
            self._refuse(assignment, link)
            return
        if isinstance(assignment, CheckGranted):
            _remember(self._checks, assignment.grant, link.name, MAX_GRANTS)
        await self._owner.assigned(assignment)

    def _refuse(self, assignment: Assignment, link: SchedulerLink) -> None:
        """Another scheduler decides for the task. Nobody is to wait for this host."""
        log.debug(
            "a decision of a scheduler that does not decide",
            scheduler=link.url,
            kind=type(assignment).__name__,
        )
        if isinstance(assignment, SourceGranted):
            self._refuse_read(assignment, link)
        elif isinstance(assignment, CheckGranted):
            link.report(SourceChecked(assignment.task, assignment.grant, None))
        elif isinstance(assignment, ParentsAssigned) and self._owner.spec_of(assignment.task) is not None:
            self._ownership.take_leave(link.name, assignment.task, trio.current_time())

    def _refuse_read(self, granted: SourceGranted, link: SchedulerLink) -> None:
        """A peer is no reader any more when it has left; of a seeder it has to be said."""
        if self.identity.role == "peer":
            link.report(PeerLeft(granted.task))
        else:
            words = "another scheduler decides for this host what it reads"
            link.report(SourceFailed(granted.task, granted.grant, Failure(words, fault="reader")))

    # --- coming and going --------------------------------------------------------------------------------

    def _open(self, name: str, url: str, ring: bool) -> None:
        link = SchedulerLink(
            url, self._client, self, self._link_changed, name=name, ring=ring, feeds=self._feeds
        )
        self._links[name] = link
        self._scopes[name] = trio.CancelScope()
        self._ownership.add(name)
        if self._nursery is not None:
            self._nursery.start_soon(self._run_link, link, self._scopes[name])

    def _close(self, name: str) -> None:
        link = self._links.pop(name)
        self._scopes.pop(name).cancel()
        self._ownership.remove(name)
        if self._nursery is not None:
            self._nursery.start_soon(link.leave)

    async def _run_link(self, link: SchedulerLink, scope: trio.CancelScope) -> None:
        with scope:
            await link.run()

    def _link_changed(self, reason: str | None) -> None:
        self._review()
        self._on_change(None if self.connected else reason)

    def _review(self) -> None:
        """See who can be used, and have told what is to be told now."""
        now = trio.current_time() if self._nursery is not None else 0.0
        if self.connected:
            self._lost_since = None
        elif self._lost_since is None and self._nursery is not None:
            self._lost_since = now
        reached = frozenset(name for name, link in self._links.items() if _usable(link, now))
        usable = reached - {self._ownership.aside}
        lost = self._ownership.decide(usable)
        for name in lost:
            self._links[name].outbox.clear()
        self._stirred.beat()
        if reached != self._reached:
            self._reached = reached
            self._moved.set()
        if usable != self.usable:
            self.usable = usable
            self.changed.beat()

    async def _keep_reviewing(self) -> None:
        """See when the grace of a link that broke has run out."""
        while True:
            now = trio.current_time()
            broken = (link for link in self._links.values() if not link.connected and _usable(link, now))
            with trio.move_on_at(min((_grace_ends(link) for link in broken), default=inf)):
                await self._stirred.wait()
            if any(not _usable(self._links[name], trio.current_time()) for name in self._reached):
                self._review()

    async def _keep_moving(self) -> None:
        """Whenever others can be used than before, have them told of what is theirs now: what is open here first."""
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            self._untold = {}
            await self._find_untold(self._owner.active())
            await self._find_untold(self._owner.stored())

    async def _find_untold(self, task_ids: Iterable[str]) -> None:
        for number, task_id in enumerate(task_ids):
            if number % STRIDE == STRIDE - 1:
                await trio.lowlevel.checkpoint()
            owner = self._ownership.owner(task_id)
            if owner in self._reached and not self._ownership.is_told(task_id):
                self._untold.setdefault(owner, []).append(task_id)
        for name in self._untold:
            if name in self._links:
                self._links[name].catch_up()

    async def _keep_taking_leave(self) -> None:
        """Tell schedulers of the tasks for which others decide now."""
        while True:
            await trio.sleep(WATCH)
            since = trio.current_time() - FAREWELL
            for name, link in self._links.items() if self._ownership.leaving else ():
                room = (MAX_UNTOLD - len(link.outbox)) // 2 if link.connected else 0
                for task_id in self._ownership.farewells(name, since, room):
                    link.report(PeerLeft(task_id))
                    link.report(TaskRemoved(task_id))

    def __repr__(self) -> str:
        return f"<Links to {len(self._links)} schedulers, {len(self.usable)} of them usable>"


def _grace_ends(link: SchedulerLink) -> float:
    return inf if link.lost_since is None else link.lost_since + GRACE


def _usable(link: SchedulerLink, now: float) -> bool:
    return link.connected or (link.was_connected and now < _grace_ends(link))


def _remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]
