"""The LAN of a running host: what the sources tell is asked for, and the host's links follow what was found.

The decisions are those of ``roster`` (who is there, whom to ask) and ``mode`` (which schedulers to use); here they
meet the clock, the network and the links. A process that only schedules takes part, too: without links it is found,
answers, and counts.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Literal, Protocol, cast

import structlog
import trio
from prometheus_client import CollectorRegistry

from peer.lan.addresses import is_address
from peer.lan.config import LanConfig
from peer.lan.hello import HelloRefused, add_hello, ask_url
from peer.lan.hosts import KEEN
from peer.lan.knows import on_loopback
from peer.lan.me import Me
from peer.lan.metrics import LanMetrics
from peer.lan.mode import Mode, Reachable, Use
from peer.lan.prober import Prober
from peer.lan.questions import Result
from peer.lan.records import Announcement
from peer.lan.roster import Roster
from peer.lan.sightings import Sighting, Source, SourceName
from peer.lan.telling import tell
from peer.lan.views import LanView
from peer.lan.views import Mode as ShownMode
from shared.errors import DragonetError
from shared.http.client import HttpClient
from shared.http.router import Router
from shared.protocol import Hello, HostLease
from shared.swarm.links_owner import CONFIGURED
from shared.swarm.pulse import Pulse

log = structlog.get_logger()

TICK = 1.0
STOOD_STILL = 3.0
"""Seconds beyond a tick after which this process was stopped, or the machine asleep."""
SWEEP = 10.0
AWAKE_OR_NOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that goes on while the machine sleeps (Linux has one)."""
WATCH = 0.25
"""Seconds between looks at the links: whose link has broken is asked at once, before it counts as lost."""


class LanLinks(Protocol):
    """What the LAN does with a host's links (``shared.swarm.links.Links``)."""

    @property
    def usable(self) -> frozenset[str]:
        """Names whose link is connected, or was a moment ago."""

    @property
    def changed(self) -> Pulse:
        """Beats when ``usable`` changes."""

    def silent_for(self, name: str) -> float:
        """Seconds for which this one has not been connected; 0 while it is."""

    def use(self, schedulers: Mapping[str, str], *, ring: bool = False, own: str = "") -> None:
        """Name -> URL, all of them; takes effect at once. ``own``: the URL of the one within this process."""


class EmbeddedScheduler(Protocol):
    """The scheduler within this process. ``url`` is where the own links reach it."""

    @property
    def url(self) -> str:
        """Its URL on this machine."""

    def leave(self, host: str) -> None:
        """Forget a host that is lost."""


class Announcer(Protocol):
    """A source that tells others of this host, as well."""

    def announce(self, announcement: Announcement) -> None:
        """Tell this from now on."""

    def refresh(self) -> None:
        """Tell it, and ask, again now."""


async def _keep_id(_new: str) -> None:
    await trio.lowlevel.checkpoint()


class Lan:
    """See the module. Also the watcher of its sources. Make it, mount its route, and run it in a nursery."""

    def __init__(
        self,
        config: LanConfig,
        me: Me,
        sources: Sequence[Source],
        client: HttpClient,
        registry: CollectorRegistry,
        *,
        configured: str = "",
        counts: Callable[[], tuple[int, int]] = lambda: (0, 0),
        rename: Callable[[str], Awaitable[None]] = _keep_id,
        readiness: Callable[[str | None], None] = lambda _reason: None,
        clock: Callable[[], float] = lambda: time.clock_gettime(AWAKE_OR_NOT),
    ) -> None:
        """``client`` is for questions alone (the links fill theirs). ``configured`` is the URL of the scheduler of
        the configuration. ``counts`` gives the tasks and bytes that are held. ``rename`` takes another id of this
        host, which is to be kept. ``readiness`` is told why this host is not ready yet, None when it is. ``clock``
        goes on while the machine sleeps."""
        self.me = me
        self._config = config
        self._sources = tuple(sources)
        self._client = client
        self._configured = configured
        self._counts = counts
        self._rename = rename
        self._readiness = readiness
        self._clock = clock
        self._rng = Random()
        self._roster = Roster((me.id, me.instance), config.cluster, config.max_hosts)
        self._prober = Prober(self._roster, client, lambda: self.me, self._asked)
        self._metrics = LanMetrics(
            registry, lambda: self._roster.ignored, self._count, lambda: len(self._linked)
        )
        self._links: LanLinks | None = None
        self._ring: EmbeddedScheduler | None = None
        self._mode: Mode | None = None
        self._use = Use("none", {})
        self._usable: frozenset[str] = frozenset()
        self._linked: frozenset[str] = frozenset()
        self._present: frozenset[str] = frozenset()
        self._gone: set[str] = set()
        """Of whom it was told that they are lost."""
        self._answers = False
        self._settled = False
        self._news = trio.Event()

    def add_routes(self, router: Router) -> None:
        """Mount ``GET /v1/hello``."""
        add_hello(router, self.hello)

    def hello(self, caller: str) -> Hello:
        """Who this is, and who else is there, for whoever asks from this address."""
        knows = self._roster.knows(self._rng, loopback=on_loopback(caller))
        return self.me.hello(self._config.cluster, *self._counts(), knows)

    @property
    def mode(self) -> ShownMode:
        """What decides for this host now."""
        if self.me.role == "scheduler":
            return "scheduler"
        if self._use.kind in ("configured", "scheduler"):
            return cast(ShownMode, self._use.kind)
        return "ring" if set(self._use.schedulers) - {self.me.id} else "alone"

    def address_of(self, host_id: str) -> str | None:
        """HOST:PORT at which a host that is present answered."""
        host = self._roster.hosts.get(host_id)
        return host.address if host is not None and host.present else None

    async def view(self, probe: bool) -> LanView:
        """Who is there. ``probe``: all are asked at once first, which takes about a second at most."""
        if probe:
            await self._prober.survey()
        tasks, held = self._counts()
        here = self.me.view(tasks=tasks, held=held, member=self.me.id in self._use.schedulers)
        return LanView(
            here=here,
            cluster=self._config.cluster,
            mode=self.mode,
            schedulers=() if self._use.ring else tuple(self._use.schedulers.values()),
            hosts=tell(
                self._roster,
                self._use.schedulers,
                trio.current_time(),
                time.time(),
                most=self._config.max_hosts,
            ),
            ignored=dict(self._roster.ignored),
        )

    # --- the watcher of the sources --------------------------------------------------------------------

    def seen(self, sighting: Sighting) -> None:
        """A source tells of somebody."""
        self._roster.seen(sighting, trio.current_time())
        self._prober.wake()

    def gone(self, source: SourceName, key: str) -> None:
        """A source no longer tells of somebody."""
        self._roster.gone(source, key, trio.current_time())
        self._prober.wake()

    def ignored(self, reason: Literal["cluster", "protocol", "malformed", "self", "full"]) -> None:
        """A source left something out."""
        self._roster.ignored[reason] += 1

    def leased(self, lease: HostLease) -> None:
        """A host has a lease at the scheduler within this process: it may be found where it says."""
        if is_address(lease.address) and not lease.draining and lease.instance != self.me.instance:
            self.seen(Sighting("lease", lease.host, (lease.address,), id=lease.host, role=lease.role))

    def disturbed(self, address: str = "") -> None:
        """The network is another one, or this process stood still: everybody is asked at once. ``address`` is this
        host's own now, "" if that has not changed; it is only shown."""
        if address:
            self.me = replace(self.me, address=address)
        self._roster.disturbed(trio.current_time())
        self._prober.wake()

    # --- running ---------------------------------------------------------------------------------------

    async def run(self, links: LanLinks | None, ring: EmbeddedScheduler | None) -> None:
        """Until cancelled. ``links`` are the host's, None for a process that only schedules; ``ring`` is the
        scheduler within this process, None where there is none."""
        self._links, self._ring = links, ring
        async with trio.open_nursery() as nursery:
            for source in self._sources:
                nursery.start_soon(self._run_source, source)
            nursery.start_soon(self._prober.run)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._keep_own_id)
            if links is None:
                self._metrics.use(self.mode)
            else:
                own = (self.me.id, "" if ring is None else ring.url)
                self._mode = Mode(own, self._configured, self._config.max_ring, trio.current_time())
                self._readiness("looking for others on the network")
                nursery.start_soon(self._keep_deciding, links, self._mode)
                nursery.start_soon(self._hear_links, links)
                nursery.start_soon(self._watch_links, links)
                if self._configured:
                    nursery.start_soon(self._keep_asking_configured)

    async def _run_source(self, source: Source) -> None:
        try:
            await source.run(self)
        except Exception:  # one source less; the others go on
            log.exception("a source of discovery ended by a defect", source=type(source).__name__)

    def _asked(self, result: Result) -> None:
        self._metrics.asked(result)
        self._news.set()

    async def _keep_own_id(self) -> None:
        """Take another id where another host has this one: a machine that was copied, with its data."""
        while True:
            await self._prober.same_id.wait()
            self._prober.same_id = trio.Event()
            new = secrets.token_hex(8)
            self.me = replace(self.me, id=new)
            self._roster.renamed((new, self.me.instance), trio.current_time())
            if self._mode is not None:
                self._mode.own = (new, self._mode.own[1])
            for source in self._sources:
                if hasattr(source, "announce"):
                    cast(Announcer, source).announce(self.me.announcement(self._config.cluster))
            try:
                await self._rename(new)
            except DragonetError as error:
                log.warning("the new id is not kept for the next start", cause=str(error))
            self._news.set()
            self._prober.wake()

    async def _tick(self) -> None:
        """Notice that this process stood still; forget who is gone for long."""
        swept = last = self._clock()
        while True:
            await trio.sleep(TICK)
            now = self._clock()
            if now - last > TICK + STOOD_STILL:
                log.info("this process stood still: all hosts are asked again", seconds=round(now - last, 1))
                self.disturbed()
                for source in self._sources:
                    if hasattr(source, "refresh"):
                        cast(Announcer, source).refresh()
            last = now
            if now - swept >= SWEEP:
                swept = now
                self._roster.sweep(trio.current_time())

    async def _keep_asking_configured(self) -> None:
        """Whether the scheduler of the configuration answers, while it is not connected."""
        while True:
            if CONFIGURED not in self._usable:
                try:
                    await ask_url(self._client, self._configured)
                    answers = True
                except HelloRefused as error:
                    answers = error.reason != "unreachable"
                if answers is not self._answers:
                    self._answers = answers
                    self._news.set()
            await trio.sleep(KEEN)

    async def _hear_links(self, links: LanLinks) -> None:
        while True:
            await links.changed.wait()
            self._news.set()

    async def _watch_links(self, links: LanLinks) -> None:
        while True:
            await trio.sleep(WATCH)
            if self._connected(links) != self._linked:
                self._news.set()

    async def _keep_deciding(self, links: LanLinks, mode: Mode) -> None:
        while True:
            self._news = trio.Event()
            self._decide(links, mode)
            with trio.move_on_at(self._use.look_at):
                await self._news.wait()

    def _decide(self, links: LanLinks, mode: Mode) -> None:
        now, usable = trio.current_time(), frozenset(links.usable)
        hosts = self._roster.hosts
        use = mode.decide(now, self._reachable(), usable, answers=self._answers)
        before, self._use = self._use, use
        if (use.kind, use.schedulers) != (before.kind, before.schedulers):
            links.use(use.schedulers, ring=use.ring, own=mode.own[1])
            self._told(use, before)
        self._roster.ring = use.ring
        self._linked = self._connected(links)
        self._roster.links(use.schedulers, self._linked, now)
        present = frozenset(host.id for host in hosts.values() if host.present)
        self._gone &= hosts.keys() - usable - (present - self._present)
        unlinked = (self._usable - usable) & use.schedulers.keys()
        self._lose(unlinked | (self._present - present))
        self._usable, self._present = usable, present
        self._prober.wake()

    def _reachable(self) -> list[Reachable]:
        return [
            Reachable(host.id, f"http://{host.address}", host.hello.instance, host.hello.role == "scheduler")
            for host in self._roster.hosts.values()
            if host.present and host.schedules
        ]

    def _lose(self, lost: Collection[str]) -> None:
        """Who is lost gives nothing to anybody: the scheduler here need not wait until the lease is over."""
        for host in sorted(lost):
            known = self._roster.hosts.get(host)
            if known is not None:
                loud = host not in self._gone and self._prober.loudness.one_more(trio.current_time())
                self._gone.add(host)
                aloud = log.info if loud else log.debug
                aloud("host is lost", host=host, name=known.hello.name, address=known.address)
                self._roster.gone("lease", host, trio.current_time())
                if self._ring is not None:
                    self._ring.leave(host)

    def _told(self, use: Use, before: Use) -> None:
        aloud = log.info if use.kind != before.kind else log.debug
        aloud("scheduled by", mode=use.kind, schedulers=sorted(map(self._name_of, use.schedulers))[:8])
        self._metrics.use(self.mode)
        if not self._settled:
            self._settled = True
            self._readiness(None)

    def _name_of(self, host: str) -> str:
        """What people call it."""
        known = self._roster.hosts.get(host)
        name = self.me.name if host == self.me.id else "" if known is None else known.hello.name
        return name or host

    @staticmethod
    def _connected(links: LanLinks) -> frozenset[str]:
        return frozenset(name for name in links.usable if not links.silent_for(name))

    def _count(self, state: str) -> int:
        if state == "unknown":
            return sum(1 for _ in self._roster.unknown())
        return sum(host.present is (state == "present") for host in self._roster.hosts.values())

    def __repr__(self) -> str:
        return f"<Lan {self.mode}, {len(self._roster.hosts)} hosts>"
