"""Asks who is there, as the roster wants it, and tells what came of it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import structlog
import trio

from peer.lan.hello import HelloRefused, ask_hello
from peer.lan.me import Me
from peer.lan.questions import Ask, Result
from peer.lan.roster import Roster
from peer.lan.twins import Twins
from shared.http.client import HttpClient
from shared.loudness import Loudness
from shared.protocol import Hello

log = structlog.get_logger()

SURVEY = 1.2
"""Seconds for asking everybody at once; ``SURVEYED_AT_ONCE`` at a time."""
SURVEYED_AT_ONCE = 32
MOST_UNKNOWN = 16
"""Of those who were announced only: as many are asked with the others."""
SHORTEST_WAIT = 0.01
MAX_WARNINGS = 64


class Prober:
    """The questions of a roster. ``answered`` is called after each one, with its result."""

    def __init__(
        self, roster: Roster, client: HttpClient, me: Callable[[], Me], answered: Callable[[Result], None]
    ) -> None:
        """``me`` tells who this process is now."""
        self.same_id = trio.Event()
        """Set when another process has this host's id, and this one gives way; replaced by whoever takes another."""
        self.loudness = Loudness()
        self._roster = roster
        self._client = client
        self._me = me
        self._answered = answered
        self._woken = trio.Event()
        self._twins = Twins()
        self._defects = 0
        self._warned: set[str] = set()
        self._surveyed = -inf

    def wake(self) -> None:
        """There may be somebody to ask."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._woken = trio.Event()
                now = trio.current_time()
                for ask in self._roster.take(now):
                    nursery.start_soon(self._ask, ask)
                with trio.move_on_at(max(self._roster.next_due(now), now + SHORTEST_WAIT)):
                    await self._woken.wait()

    async def survey(self) -> None:
        """Ask all hosts at once, and some who have not answered yet; at most about once a second."""
        now = trio.current_time()
        if now - self._surveyed < SURVEY:
            return
        self._surveyed = now
        limit = trio.CapacityLimiter(SURVEYED_AT_ONCE)

        async def ask(host_id: str) -> None:
            async with limit:
                host = self._roster.hosts.get(host_id)
                if host is not None and not host.asking:
                    await self._ask(self._roster.ask(host, trio.current_time()))

        with trio.move_on_after(SURVEY):
            async with trio.open_nursery() as nursery:
                for one in self._roster.ask_unknown(now, MOST_UNKNOWN):
                    nursery.start_soon(self._ask, one)
                for host_id in list(self._roster.hosts):
                    nursery.start_soon(ask, host_id)

    async def _ask(self, ask: Ask) -> None:
        try:
            hello, rtt = await ask_hello(self._client, ask.address, ask.timeout)
        except HelloRefused as error:
            log.debug("asked in vain", address=ask.address, cause=str(error))
            result: Result = self._roster.failed(ask, error.reason, trio.current_time())
        except Exception:
            if self._defects < MAX_WARNINGS:
                log.exception("a question ended by a defect", address=ask.address)
            self._defects += 1
            result = self._roster.failed(ask, "malformed", trio.current_time())
        except BaseException:
            self._roster.abandoned(ask, trio.current_time())
            raise
        else:
            before = self._roster.hosts.get(hello.id)
            known = before is not None and before.present
            result = self._roster.answered(ask, hello, rtt, trio.current_time())
            self._tell(ask, hello, result, known=known)
        self._answered(result)
        self.wake()

    def _tell(self, ask: Ask, hello: Hello, result: Result, *, known: bool) -> None:
        if result in ("ok", "mismatch") and not known:
            aloud = log.info if self.loudness.one_more(trio.current_time()) else log.debug
            aloud("host found", host=hello.id, name=hello.name, role=hello.role, address=ask.address)
        elif result == "conflict" and (first := self._roster.hosts.get(hello.id)) is not None:
            self._warn(
                f"{hello.id} {ask.address}",
                "two hosts have one id; the second one is left out: remove its file host-id and start it again",
                id=hello.id,
                first=f"{first.hello.name} at {first.address}",
                second=f"{hello.name} at {ask.address}",
            )
        elif result == "same_id":
            me, now = self._me(), trio.current_time()
            own, other = (me.started, me.instance), (hello.started, hello.instance)
            if self._twins.gives_way(own, other, now, established=self._roster.established(now)):
                self.same_id.set()
            else:
                self._warn(
                    ask.address,
                    "another host has the id of this one, which keeps it: if the data folder there is a copy, remove "
                    "its file host-id and start it again",
                    id=hello.id,
                    other=f"{hello.name} at {ask.address}",
                )

    def _warn(self, about: str, words: str, **values: str) -> None:
        """Once, then at debug."""
        if about in self._warned or len(self._warned) >= MAX_WARNINGS:
            log.debug(words, **values)
        else:
            self._warned.add(about)
            log.warning(words, **values)
