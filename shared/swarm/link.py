"""The link to one scheduler: the lease, the stream of assignments, the reports. The host always calls.

Loops, each living through the scheduler's absence: the lease is renewed, the assignment stream is
opened again, undelivered reports are kept. Whenever the scheduler may not know this host's state (it
says so, it is another instance, the stream broke, reports were lost) everything is told anew.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NoReturn, Protocol, TypeVar
from urllib.parse import quote

import msgspec
import structlog
import trio

from shared.errors import DragonetError, InvalidRequest, Unavailable
from shared.http.client import Feeds, HttpClient
from shared.http.frames import FrameDecoder, frame
from shared.protocol import (
    MSGPACK,
    Assignment,
    Beat,
    HostLease,
    LeaseGranted,
    Report,
    Reports,
    Welcome,
    check_version,
    decode_assignment,
    decode_lease_granted,
    decode_reports_taken,
    encode,
)
from shared.protocol.checks import check_assignment
from shared.swarm.identity import HostIdentity
from shared.swarm.outbox import Outbox
from shared.swarm.pulse import Pulse

log = structlog.get_logger()
T = TypeVar("T")

CALL_TIMEOUT = 5.0
SHORTEST_LEASE = 0.3
"""Seconds; a scheduler that grants less is not renewed more often for it."""
FIRST_RETRY, LAST_RETRY = 0.1, 3.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds from one time that everything is told to the next."""
REFUSALS = frozenset({400, 409, 413, 422})
"""Answers that would be the same again; on all others the call is made once more."""
BEATS = 2.5
SHORTEST_SILENCE, SILENCE = 1.0, 15.0
"""So many beats of the scheduler may be missed, in seconds at least and at most, before the stream is opened anew."""
BEAT = frame(encode(Beat()))
"""A sign of life, as schedulers send it."""
RING_TIMEOUT, RING_RETRY = 2.0, 1.0
"""As CALL_TIMEOUT and LAST_RETRY, for a scheduler that is one of a ring: it comes and goes, and others take over."""


class LinkOwner(Protocol):
    """What a link asks of those who have it: the links of a host."""

    @property
    def identity(self) -> HostIdentity:
        """Who the host is. A link speaks for the one that it was made for."""

    def lease(self, link: SchedulerLink) -> HostLease:
        """The lease to announce now (load changes)."""

    async def leased(self, granted: LeaseGranted, link: SchedulerLink) -> None:
        """The scheduler's answer to a lease. Must return soon."""

    async def tell_anew(self, full: bool, link: SchedulerLink) -> None:
        """Queue the reports that tell the state anew: of active tasks, or (``full``) of all that is held."""

    async def catch_up(self, link: SchedulerLink) -> None:
        """Queue the reports of all that this scheduler decides for, and was not told of."""

    async def assigned(self, assignment: Assignment, link: SchedulerLink) -> None:
        """A decision of the scheduler. Must return soon."""


class SchedulerLink:
    """Keeps one host known at one scheduler. Run it in the host's nursery."""

    def __init__(
        self,
        url: str,
        client: HttpClient,
        owner: LinkOwner,
        on_change: Callable[[str | None], None],
        *,
        name: str = "",
        ring: bool = False,
        feeds: Feeds | None = None,
    ) -> None:
        """``name`` is the scheduler's among those that the owner has links to; ``ring``: each of them is a host.
        ``feeds`` looks at the streams of all links together."""
        self.name = name
        self.ring = ring
        self.url = url.rstrip("/")
        self.outbox = Outbox()
        self.scheduler = ""
        self.lost_since: float | None = None
        self.was_connected = False
        self._timeout = RING_TIMEOUT if ring else CALL_TIMEOUT
        self._last_retry = RING_RETRY if ring else LAST_RETRY
        self._silence = SILENCE
        self._identity = owner.identity
        self._client = client
        self._feeds = feeds
        self._owner = owner
        self._on_change = on_change
        self._leased = False
        self._streaming = False
        self._renew = trio.Event()
        self._untold = trio.Event()
        self._told_unread = self._told_refused = False
        self._forgotten = False
        self._telling = trio.CancelScope()
        self._pulse = Pulse()

    def report(self, report: Report) -> None:
        """Queue a report (see ``Reporter``)."""
        self.outbox.add(report)

    @property
    def connected(self) -> bool:
        """Leased and listening to assignments."""
        return self._leased and self._streaming

    def lost_for(self) -> float:
        """Seconds since the scheduler was last connected; 0 while it is."""
        return 0.0 if self.lost_since is None else trio.current_time() - self.lost_since

    def renew(self) -> None:
        """Renew the lease now: what it says has changed."""
        self._renew.set()

    def catch_up(self) -> None:
        """This scheduler decides for something that it was not told of: have it told."""
        self._untold.set()

    async def run(self) -> None:
        """Until cancelled."""
        self.lost_since = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_lease)
            nursery.start_soon(self._keep_telling)
            nursery.start_soon(self._keep_stream)
            nursery.start_soon(self._keep_reporting)

    async def leave(self) -> None:
        """Give the lease up, as far as the scheduler can be reached."""
        with trio.move_on_after(1.0) as scope:
            scope.shield = True
            try:
                await self._client.request("DELETE", self._host_url(), timeout=1.0)
            except DragonetError as error:
                log.debug("the lease could not be given up", cause=str(error))

    # --- the lease -----------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                wait = await self._renew_lease() / 3
                retry = FIRST_RETRY
            except DragonetError as error:
                self._changed(leased=False, why=str(error))
                wait, retry = retry, min(retry * 2, self._last_retry)
            with trio.move_on_after(wait):
                await self._renew.wait()
            self._renew = trio.Event()

    async def _renew_lease(self) -> float:
        lease = self._owner.lease(self)
        body = await self._call("PUT", self._host_url(), encode(lease))
        granted = _decode(decode_lease_granted, body, self.url)
        check_version(granted.version)
        await self._owner.leased(granted, self)
        self._silence = silence(granted.beat)
        if not granted.known or granted.scheduler != self.scheduler:
            self.scheduler = granted.scheduler
            self._forgotten = True
            self._untold.set()
            self._telling.cancel()
        self._changed(leased=True)
        return granted.ttl if granted.ttl > SHORTEST_LEASE else SHORTEST_LEASE

    async def _keep_telling(self) -> None:
        """Tell everything whenever it is unknown. Beside the renewals: telling much outlasts a lease. One that
        forgets again and again is told ever more seldom."""
        told_at, pause = -inf, 0.0
        while True:
            await self._untold.wait()
            self._untold = trio.Event()
            with trio.CancelScope() as self._telling:
                forgotten, self._forgotten = self._forgotten, False
                if forgotten:
                    await trio.sleep_until(told_at + pause)
                    now = trio.current_time()
                    pause = FIRST_PAUSE if now - told_at > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
                    told_at = now
                    await self._owner.tell_anew(True, self)
                await self._owner.catch_up(self)

    # --- assignments ---------------------------------------------------------------------------------

    async def _keep_stream(self) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                await self._listen()
            except DragonetError as error:
                log.debug("assignment stream ended", scheduler=self.url, cause=str(error))
                if self._streaming:
                    retry = FIRST_RETRY
                self._changed(streaming=False, why=str(error))
            self._renew.set()
            await trio.sleep(retry)
            retry = min(retry * 2, self._last_retry)

    async def _listen(self) -> NoReturn:
        while not self._leased:
            await self._pulse.wait()
        frames = FrameDecoder()
        headers = {"Accept": MSGPACK}
        async with self._client.feed(
            self._host_url("/assignments"),
            headers=headers,
            timeout=self._timeout,
            read_timeout=self._silence,
            quiet=BEAT,
            feeds=self._feeds,
        ) as answer:
            if answer.status != 200:
                raise Unavailable(
                    f"the scheduler at {self.url} answered {answer.status} to an assignment stream"
                )
            async for chunk in answer.chunks():
                for payload in frames.feed(chunk):
                    await self._heard(payload)
        raise Unavailable(f"the scheduler at {self.url} ended the assignment stream")

    async def _heard(self, payload: bytes) -> None:
        try:
            assignment: Assignment = decode_assignment(payload)
            check_assignment(assignment)
        except (msgspec.ValidationError, InvalidRequest) as error:
            # one of a scheduler that wants no good, or of a kind that only newer ones know
            tell = log.debug if self._told_unread else log.warning
            self._told_unread = True
            tell("an assignment cannot be read and is left out", scheduler=self.url, cause=str(error))
            return
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Unavailable(f"what answers at {self.url} is not a dragonet scheduler: {error}") from None
        if isinstance(assignment, Welcome):
            check_version(assignment.version)
            await self._owner.tell_anew(False, self)
            self._changed(streaming=True)
        elif not isinstance(assignment, Beat):
            await self._owner.assigned(assignment, self)

    # --- reports -------------------------------------------------------------------------------------

    async def _keep_reporting(self) -> None:
        retry = FIRST_RETRY
        while True:
            batch = await self.outbox.batch()
            try:
                if self.outbox.overflowed:
                    self.outbox.clear()
                    self.scheduler = ""  # the next renewal tells everything anew
                    self._renew.set()
                    continue
                await self._deliver(batch)
                retry, self._told_refused = FIRST_RETRY, False
            except DragonetError as error:
                if isinstance(error, InvalidRequest):
                    tell = log.debug if self._told_refused else log.warning
                    self._told_refused = True
                    tell("reports were refused and are dropped", scheduler=self.url, cause=str(error))
                else:
                    log.debug("reports were not delivered", scheduler=self.url, cause=str(error))
                    self.outbox.put_back(batch)
                self._renew.set()
                await trio.sleep(retry)
                retry = min(retry * 2, self._last_retry)

    async def _deliver(self, batch: list[Report]) -> None:
        message = Reports(self._identity.instance, batch)
        body = await self._call("POST", self._host_url("/reports"), encode(message))
        if not _decode(decode_reports_taken, body, self.url).known:
            self._renew.set()
            raise Unavailable(f"the scheduler at {self.url} does not know this host yet")

    # --- common --------------------------------------------------------------------------------------

    async def _call(self, method: str, url: str, content: bytes) -> bytes:
        headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
        answer = await self._client.request(
            method, url, headers=headers, content=content, timeout=self._timeout
        )
        if answer.status in REFUSALS:
            raise InvalidRequest(
                f"the scheduler at {self.url} refused: {answer.body[:500].decode(errors='replace')}"
            )
        if answer.status != 200:
            raise Unavailable(f"the scheduler at {self.url} answered {answer.status}")
        return answer.body

    def _host_url(self, part: str = "") -> str:
        """``instance`` refuses a process that has the same id as another one."""
        own = f"{self.url}/v1/hosts/{quote(self._identity.id, safe='')}{part}"
        return f"{own}?instance={quote(self._identity.instance, safe='')}"

    def _changed(self, *, leased: bool | None = None, streaming: bool | None = None, why: str = "") -> None:
        before = self.connected
        self._pulse.beat()
        self._leased = self._leased if leased is None else leased
        self._streaming = self._streaming if streaming is None else streaming
        if self.connected:
            self.lost_since = None
            self.was_connected = True
            if not before:
                (log.debug if self.ring else log.info)("connected to the scheduler", scheduler=self.url)
                self._on_change(None)
            return
        if before or self.lost_since is None:
            tell = log.debug if self.ring else log.warning  # the LAN tells of hosts that are lost
            tell("the scheduler does not answer", scheduler=self.url, cause=why)
            self.lost_since = trio.current_time()
        self._on_change(f"the scheduler at {self.url} is not reached: {why or 'connecting'}")


def silence(beat: float) -> float:
    """Seconds without a frame after which the stream of a scheduler is opened anew that beats so often."""
    return min(max(BEATS * beat, SHORTEST_SILENCE), SILENCE) if beat == beat else SILENCE


def _decode(decoder: Callable[[bytes], T], body: bytes, url: str) -> T:
    try:
        return decoder(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unavailable(f"what answers at {url} is not a dragonet scheduler: {error}") from None
