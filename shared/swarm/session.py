"""Downloads that somebody waits for: one session per task, however many wait, gone with the last.

A session registers the task at the scheduler and fetches it from the parents it is given. Where no
scheduler answers, it goes back to source on its own after a while, so that nobody waits in vain.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import DragonetError, InvalidRequest, SourceError, StoreError, Unavailable
from shared.offline import Offline, is_offline
from shared.protocol import Failure, PeerLeft, PeerRegistered
from shared.swarm.download import Download
from shared.swarm.generations import MovedOn
from shared.swarm.limits import TokenBucket
from shared.swarm.origin import Origin
from shared.swarm.task import HostTask
from shared.task.identity import TaskSpec

if TYPE_CHECKING:
    from shared.swarm.host import Host

log = structlog.get_logger()

QUIET = 5.0
"""Seconds without a new piece after which the scheduler is told once more what is wanted."""
WATCH = 0.5
"""Seconds between looks at whether the scheduler has been silent for too long."""
UNDECIDED, STUCK = 60.0, 300.0
"""Seconds for which a scheduler that was merely found may leave a download without a decision, or without a new piece:
anybody can be found on a network. An origin may be slow, so the latter are many."""


class Session:
    """One task being downloaded for its waiters."""

    def __init__(
        self,
        task: HostTask,
        download: Download,
        *,
        cluster_only: bool,
        forbidden: bool,
        supports: Callable[[str], bool],
    ) -> None:
        """``supports`` tells whether this host can read URLs of a scheme."""
        self.task = task
        self.download = download
        self.forbidden = forbidden
        """Nobody who waits for it wants this host to read the origin."""
        self.cluster_only = cluster_only
        self.waiters = 0
        self.limits: list[float] = []
        self.error: DragonetError | None = None
        self.refused: dict[str, DragonetError] = {}
        """What became of places where the content cannot be had, by URL."""
        self.named: set[str] = set()
        """Places that the scheduler was told of."""
        self.ended = False
        self.begun = False
        """The scheduler has admitted the download: it goes on to its end, whatever the source has meanwhile."""
        self.moved: TaskSpec | None = None
        """What is to be had instead."""
        self.scope = trio.CancelScope()
        self._supports = supports

    def registrations(self, known: Container[str] = ()) -> list[PeerRegistered]:
        """The reports that this host wants the task: one for each place that is named for it and still counts,
        but those that are ``known``."""
        places = [spec for spec in self.task.places.specs() if spec.url not in self.refused]
        places = [spec for spec in places if spec.url not in known]
        self.named.update(spec.url for spec in places)
        return [
            PeerRegistered(self.task.id, spec, self._may_read(spec), self.cluster_only, self.begun)
            for spec in places
        ]

    def refuse(self, error: DragonetError, places: Mapping[str, DragonetError]) -> None:
        """The content cannot be had: at ``places``, or ({}) anywhere. It goes on while somebody here names
        another place, of which the scheduler did not know yet."""
        self.refused.update(places)
        if places and any(spec.url not in self.refused for spec in self.task.places.specs()):
            return
        self.error = self.error or error  # adopting metadata forgets task.failure

    def _may_read(self, spec: TaskSpec) -> bool:
        return not self.forbidden and self._supports(spec.scheme) and self.task.places.readable(spec)

    def check(self, place: TaskSpec | None = None) -> None:
        """Raises what ended the session, if anything did; MovedOn when there is newer content to be had.

        A caller who tells its ``place`` hears what became of that one.
        """
        if self.moved is not None:
            raise MovedOn(self.moved)
        if self.download.error is not None:
            raise self.download.error
        if self.error is not None:
            raise (self.refused.get(place.url) if place is not None else None) or self.error
        if self.task.failure is not None:
            raise _as_error(self.task.failure)
        if self.task.closed:
            raise removed(self.task)


class Sessions:
    """The sessions of a host."""

    def __init__(self, host: Host, origin: Origin) -> None:
        self._host = host
        self._origin = origin
        self._sessions: dict[str, Session] = {}
        self._registered: dict[str, Session] = {}  # whose registration the scheduler heard last

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._sessions

    @asynccontextmanager
    async def join(
        self, task: HostTask, *, cluster_only: bool, limit: float, may_read: bool = True
    ) -> AsyncIterator[Session]:
        """Have the task downloaded for the time of the context; ``may_read``: by reading its origin, too, if
        this host is told to."""
        session = self._sessions.get(task.id)
        if session is None or session.ended or session.task is not task:
            session = self._start(task, cluster_only, may_read)
        elif (session.cluster_only and not cluster_only) or (session.forbidden and may_read):
            session.cluster_only = session.cluster_only and cluster_only
            session.forbidden = session.forbidden and not may_read
            self._register(session)
        elif session.named:
            self._register(session, known=frozenset(session.named))
        session.waiters += 1
        session.limits.append(limit)
        _apply_limit(session)
        try:
            yield session
        finally:
            session.waiters -= 1
            session.limits.remove(limit)
            _apply_limit(session)
            if not session.waiters:
                session.scope.cancel()
                if self._sessions.get(task.id) is session:
                    del self._sessions[task.id]

    def fail(self, task_id: str, failure: Failure, places: Mapping[str, Failure] | None = None) -> None:
        """Whoever waits for the task is told why it cannot be had; ``places`` as in TaskFailed."""
        session = self._sessions.get(task_id)
        if session is not None and not session.task.complete:
            refused = {url: _as_error(of_place) for url, of_place in (places or {}).items()}
            session.refuse(_as_error(failure), refused)
            if session.error is not None:
                session.task.fail(failure)

    def begun(self, task_id: str) -> bool:
        """Whether the task is being downloaded, with the scheduler's leave."""
        session = self._sessions.get(task_id)
        return session is not None and session.begun and not session.ended

    def admitted(self, task_id: str) -> None:
        """The scheduler helps the download along: it has begun."""
        session = self._sessions.get(task_id)
        if session is not None:
            session.begun = True

    def move(self, task_id: str, spec: TaskSpec) -> None:
        """Whoever waits for the task is to get ``spec`` instead, unless the download has begun."""
        session = self._sessions.get(task_id)
        if session is not None and not session.begun:
            session.moved = spec
            session.task.pulse.beat()

    def store_failed(self, task_id: str, error: StoreError) -> None:
        """Whoever waits for the task is told that it cannot be stored."""
        session = self._sessions.get(task_id)
        if session is not None:
            session.error = error
            session.task.pulse.beat()

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sessions))

    def registrations(self, task_id: str) -> list[PeerRegistered]:
        """What the scheduler has to know of who waits for a task here."""
        session = self._sessions.get(task_id)
        return [] if session is None else session.registrations()

    def place(self, spec: TaskSpec, task_id: str) -> TaskSpec | None:
        """The task at the place ``spec.url``, as somebody named it who waits for it here and wants it to be read;
        None where nobody does."""
        session = self._sessions.get(task_id)
        if session is None or session.ended or session.cluster_only or session.forbidden:
            return None
        return session.task.places.own(spec)

    def _register(self, session: Session, known: Container[str] = ()) -> None:
        for report in session.registrations(known):
            self._host.report(report)

    def _start(self, task: HostTask, cluster_only: bool, may_read: bool) -> Session:
        task.failure = None
        download = Download(task, self._host.engine)
        session = Session(
            task,
            download,
            cluster_only=cluster_only,
            forbidden=not may_read,
            supports=self._origin.supports,
        )
        self._sessions[task.id] = session
        self._host.nursery.start_soon(self._run, session)
        return session

    async def _run(self, session: Session) -> None:
        task = session.task
        task.users += 1
        try:
            with session.scope:
                self._registered[task.id] = session
                self._register(session)
                holding = task.holding()
                if holding is not None:
                    self._host.report(holding)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_scheduler, session)
                    await session.download.run()
                    nursery.cancel_scope.cancel()
        except Exception as error:
            log.error("download ended by a defect", task=task.id, error=repr(error), exc_info=True)
            session.error = DragonetError(f"the download ended by a defect in dragonet: {error!r}")
        finally:
            session.ended = True
            if trio.current_effective_deadline() == -math.inf and session.error is None:
                session.error = Unavailable("this host is stopping: try again later")
            if self._registered.get(task.id) is session:
                del self._registered[task.id]
                self._host.report(PeerLeft(task.id))
            self._host.tasks.release(task)
            task.pulse.beat()

    async def _watch_scheduler(self, session: Session) -> None:
        """Go back to source alone when no scheduler has answered, and nothing has come, for too long."""
        task, host = session.task, self._host
        patience = host.engine.config.scheduler_patience
        held, quiet_since = -1, trio.current_time()
        offline = Offline()
        told_at = quiet_since
        while True:
            now = trio.current_time()
            if len(task.held) != held:
                held, quiet_since = len(task.held), now
            if now - max(quiet_since, told_at) > QUIET:
                told_at = now
                self._register(session)  # whatever was lost on the way is told again
            link = host.link
            lost = link is None or (link.lost_for(task.id) > patience and now - quiet_since > patience)
            if lost or self._is_stuck(session, now - quiet_since):
                again = await self._read_alone(session, offline)
                if again == math.inf:
                    return
                await trio.sleep_until(again)
            await trio.sleep(WATCH)

    def _is_stuck(self, session: Session, quiet: float) -> bool:
        """Whether a scheduler that need not be trusted keeps a download waiting for nothing, for so many seconds."""
        task, link = session.task, self._host.link
        if (
            quiet <= UNDECIDED
            or link is None
            or link.trusts_owner(task.id)
            or self._host.reads.reading(task.id)
        ):
            return False
        if quiet <= STUCK and (task.meta is not None or task.parents):
            return False
        log.warning("the host that schedules a content brings it no further", task=task.id)
        return True

    async def _read_alone(self, session: Session, offline: Offline) -> float:
        """Read the origin; gives when to see to it again, infinite for never."""
        held = len(session.task.held)
        try:
            if session.cluster_only:
                raise Unavailable(
                    "no scheduler answers, so the cluster cannot be asked, and --no-origin forbids reading "
                    "the origin: start the scheduler, or leave --no-origin out"
                )
            if session.forbidden:
                raise Unavailable(
                    "no scheduler answers, and this host was not given what it takes to read the origin"
                )
            await self._read_somewhere(session)
            if not session.task.complete:
                raise SourceError("the origin was read, but pieces are missing: try again", fault="reader")
        except DragonetError as error:
            if is_offline(error):
                if len(session.task.held) != held:
                    offline.end()
                offline.failed(trio.current_time())
                if offline.again_at() < math.inf:
                    return offline.again_at()
            session.error = error
            session.task.pulse.beat()
        return math.inf

    async def _read_somewhere(self, session: Session) -> None:
        """At one of the named places after the other, until one has given all. Raises what the first one said; one
        that this host cannot reach for having no network counts still."""
        unreached: dict[str, DragonetError] = {}
        while True:
            known = {**unreached, **session.refused}
            places = [spec for spec in session.task.places.specs() if spec.url not in known]
            if not places:
                raise next(iter(known.values()))
            try:
                await self._host.reads.read_alone(session.task, places[0], session.download.throttle)
                return
            except SourceError as error:
                failed = unreached if is_offline(error) else session.refused
                failed[places[0].url] = error


def _apply_limit(session: Session) -> None:
    rates = session.limits
    rate = 0.0 if not rates or 0 in rates else max(rates)
    if rate != session.download.limit.rate:
        session.download.limit = TokenBucket(rate)


def removed(task: HostTask) -> DragonetError:
    """Why a task that somebody uses is no longer there."""
    if task.failure is not None:
        return _as_error(task.failure)
    return StoreError("the content was removed on this host while it was in use: try again")


def _as_error(failure: Failure) -> DragonetError:
    if failure.fault == "request" and failure.status is None:
        return InvalidRequest(failure.words)
    return SourceError(
        failure.words, origin_status=failure.status, retry_after=failure.retry_after, fault=failure.fault
    )
