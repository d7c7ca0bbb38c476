"""Finding others by mDNS (RFC 6762, RFC 6763), and being found.

The responder (zeroconf, with a thread of its own) is opened anew whenever addresses change: what others know of us is
then announced again, and they notice nothing. Everything that blocks runs in threads; what is heard comes back
through a bounded table. What is told is a hint: anybody may announce anything.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio

from peer.lan.addresses import Interface, host_port, own_addresses, reachable
from peer.lan.hearing import Hearing, Instance
from peer.lan.interfaces import Interfaces
from peer.lan.records import Announcement, instance, key_of, label, machine_of
from peer.lan.sightings import Sighting, Watcher
from shared.nursery import open_nursery
from shared.swarm.pulse import Pulse

__all__ = ["Announcement", "MdnsSource"]

log = structlog.get_logger()

LIMIT = 1024
"""Instances that are remembered at most."""
RETRY = 30.0
"""Seconds until it is tried again where no multicast was possible; doubled up to 20 times as long."""
GOODBYE = 1.5
"""Seconds that a goodbye may take."""
PROBE = 0.2
"""Seconds between the two questions whether somebody has our name, and after them. RFC 6762 (8.1) has three, 250 ms
apart; our name holds a random id, and somebody who has the same is found out by hello anyway."""
MAX_NUMBER = 9
REPEAT = 1.5
"""Seconds after which what was announced is said once more. Others keep an address that they heard within the last
second (RFC 6762, 10.2), perhaps one that we have no longer."""
FIRST_QUESTIONS = (0.05, 0.3, 0.7, 1.0, 2.0, 4.0)
"""Seconds before each of the first questions for others."""
QUESTIONS = 10.0
"""Seconds between later ones: so those are found whose announcement was lost, or who came while the network was split.
All hear the answers, and what is known is not answered again."""
QUESTIONS_EACH = 0.6
"""The same for each host that is there, where that is more: so all of them together ask less than twice a second."""
MISSING = 1.0
"""Seconds between two questions for what is missing of somebody who was heard."""
AT_ONCE = 64
"""News that are told before others have a turn."""
MAX_ADDRESSES = 8


class AnyResponder(Protocol):
    """What a MdnsSource needs of a responder; see ``peer.lan.responder``."""

    whole: bool

    @property
    def wants(self) -> bool: ...
    def probe(self, announcement: Announcement, number: int) -> None: ...
    def announce(self, announcement: Announcement, number: int, interfaces: Sequence[Interface]) -> None: ...
    def repeat(self) -> None: ...
    def ask(self, *, browse: bool, unicast: bool = False) -> None: ...
    def close(self, *, goodbye: bool) -> None: ...


Open = Callable[[Sequence[Interface], Hearing], AnyResponder]


def _open(interfaces: Sequence[Interface], hearing: Hearing) -> AnyResponder:
    from peer.lan.responder import Responder  # zeroconf takes a quarter of a second to import

    return Responder(interfaces, hearing)


class MdnsSource:
    """Announces this host (None: nobody), and tells of the others of its cluster."""

    def __init__(
        self,
        announcement: Announcement | None,
        cluster: str,
        interfaces: Interfaces,
        *,
        limit: int = LIMIT,
        open: Open = _open,  # noqa: A002 - what it does
    ) -> None:
        self._announcement = announcement
        self._cluster = cluster
        self._interfaces = interfaces
        self._limit = limit
        self._open = open
        self._changed = Pulse()
        self._threads = trio.CapacityLimiter(4)
        self._number = 1
        self._failures = 0
        self._responder: AnyResponder | None = None
        self._announced: Announcement | None = None
        self._instances: dict[str, Instance] = {}
        self._sightings: dict[str, Sighting] = {}

    def __repr__(self) -> str:
        return f"<MdnsSource {'open' if self._responder else 'closed'}, {len(self._sightings)} others>"

    def announce(self, announcement: Announcement) -> None:
        """Another announcement from now on."""
        self._announcement = announcement
        self._changed.beat()

    async def run(self, watcher: Watcher) -> None:
        """Announce, and tell the watcher of others, until cancelled; then say goodbye."""
        token = trio.lowlevel.current_trio_token()
        heard = Pulse()

        def wake() -> None:
            try:
                token.run_sync_soon(heard.beat, idempotent=True)
            except trio.RunFinishedError:  # a last word in another thread
                return

        hearing = Hearing(self._cluster, self._limit, wake)
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(self._follow_interfaces)
                nursery.start_soon(self._tell_news, hearing, heard, watcher)
                while True:
                    await self._serve(hearing, heard, watcher)
        finally:
            with trio.CancelScope(shield=True):
                await self._close(goodbye=True)

    async def _follow_interfaces(self) -> None:
        while True:
            self._changed.beat()
            await self._interfaces.changed.wait()

    async def _serve(self, hearing: Hearing, heard: Pulse, watcher: Watcher) -> None:
        """With the addresses and the announcement of now, until they change."""
        interfaces = self._interfaces.current()
        announcement = self._announcement
        for key in list(self._instances):
            self._tell(key, watcher)
        await self._open_responder(interfaces, hearing)
        responder = self._responder
        async with open_nursery() as nursery:
            if responder is not None:
                if announcement is not None:
                    nursery.start_soon(
                        self._introduce, responder, announcement, interfaces, hearing, nursery.cancel_scope
                    )
                nursery.start_soon(self._ask, responder, hearing, heard)
            with trio.move_on_after(self._patience):
                while interfaces == self._interfaces.current() and announcement == self._announcement:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()
        before, after = self._announced, self._announcement
        renamed = before is not None and (after is None or label(before) != label(after))
        if renamed:
            self._number = 1
        await self._close(goodbye=renamed)

    @property
    def _patience(self) -> float:
        """Seconds until all is tried again."""
        return RETRY * min(2 ** (self._failures - 1), 20) if self._failures else float("inf")

    async def _open_responder(self, interfaces: Sequence[Interface], hearing: Hearing) -> None:
        if not interfaces:
            self._failed(self._interfaces.absence)
            return
        given_up = threading.Event()

        def work() -> AnyResponder:
            responder = self._open(interfaces, hearing)
            if given_up.is_set():
                responder.close(goodbye=False)
            return responder

        try:
            self._responder = await trio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._threads
            )
        except trio.Cancelled:
            given_up.set()
            raise
        except (OSError, ImportError) as error:
            self._failed(str(error))
            return
        if self._responder.whole:
            if self._failures:
                log.info("mdns works again")
            self._failures = 0
        else:
            self._failed("some interfaces cannot be used")

    def _failed(self, reason: str) -> None:
        tell = log.debug if self._failures else log.warning
        tell("others on the LAN may not be found by mdns; it is tried again", reason=reason[:300])
        self._failures += 1

    async def _close(self, *, goodbye: bool) -> None:
        responder, self._responder = self._responder, None
        self._announced = None
        if responder is None:
            return
        with trio.move_on_after(GOODBYE, shield=True):
            await trio.to_thread.run_sync(
                lambda: responder.close(goodbye=goodbye), abandon_on_cancel=True, limiter=self._threads
            )

    async def _introduce(
        self,
        responder: AnyResponder,
        announcement: Announcement,
        interfaces: Sequence[Interface],
        hearing: Hearing,
        serving: trio.CancelScope,
    ) -> None:
        """Announce ourselves under a name that nobody has. Where that fails, all is tried again after a while."""
        while True:
            name = instance(label(announcement, self._number))
            hearing.gone(name)  # what we announced ourselves, perhaps with other addresses
            for _ in range(2):
                responder.probe(announcement, self._number)
                await trio.sleep(PROBE)
            other = hearing.find(name)
            if other is None or not self._foreign(other, interfaces) or self._number >= MAX_NUMBER:
                break
            self._number += 1
            log.warning("another machine is announced under our name", name=name, addresses=other.addresses)
        self._announced = announcement
        number = self._number
        try:
            await trio.to_thread.run_sync(
                lambda: responder.announce(announcement, number, interfaces),
                abandon_on_cancel=True,
                limiter=self._threads,
            )
        except OSError as error:
            self._failed(str(error))
            await trio.sleep(self._patience)
            serving.cancel()
        await trio.sleep(REPEAT)
        responder.repeat()

    async def _ask(self, responder: AnyResponder, hearing: Hearing, heard: Pulse) -> None:
        """Ask for others, often at first; and for what is missing of those who were heard."""
        count = 0
        due = trio.current_time() + FIRST_QUESTIONS[0] * random.uniform(0.4, 1.6)
        missing = 0.0
        while True:
            now = trio.current_time()
            if now >= due:
                count += 1
                due = now + self._pause(count, len(hearing))
                hearing.expire(time.monotonic())
                # The first answers may come to us alone; then the question goes to all, with what is known.
                responder.ask(browse=True, unicast=count == 1)
            elif responder.wants and now >= missing:
                missing = now + MISSING
                responder.ask(browse=False)
            with trio.move_on_after(min(due - now, MISSING if responder.wants else due - now)):
                await heard.wait()

    @staticmethod
    def _pause(count: int, others: int) -> float:
        if count < len(FIRST_QUESTIONS):
            return FIRST_QUESTIONS[count]
        return max(QUESTIONS, QUESTIONS_EACH * others) * random.uniform(0.9, 1.1)

    async def _tell_news(self, hearing: Hearing, heard: Pulse, watcher: Watcher) -> None:
        while True:
            news, ignored = hearing.take(AT_ONCE)
            for key, found in news:
                if found is None:
                    self._instances.pop(key, None)
                    if self._sightings.pop(key, None) is not None:
                        watcher.gone("mdns", key)
                else:
                    self._instances[key] = found
                    self._tell(key, watcher)
            for reason, count in ignored.items():
                for _ in range(count):
                    watcher.ignored(reason)
            if news or ignored:
                await trio.lowlevel.checkpoint()
            else:
                await heard.wait()

    def _tell(self, key: str, watcher: Watcher) -> None:
        """Tell of an instance, if that is news with the interfaces of now."""
        found = self._instances[key]
        interfaces = self._interfaces.current()
        mine = self._announcement is not None and found.announced.id == self._announcement.id
        addresses = self._foreign(found, interfaces) if mine else reachable(found.addresses, interfaces)
        if not addresses:
            if self._sightings.pop(key, None) is not None:
                watcher.gone("mdns", key)
            watcher.ignored("self" if mine else "malformed")
            return
        sighting = Sighting(
            source="mdns",
            key=key_of(found.name),
            addresses=tuple(host_port(address, found.port) for address in addresses[:MAX_ADDRESSES]),
            id=found.announced.id,
            role=found.announced.role,
            name=machine_of(found.name, found.announced.id),
        )
        if self._sightings.get(key) != sighting:
            self._sightings[key] = sighting
            watcher.seen(sighting)

    def _foreign(self, found: Instance, interfaces: Sequence[Interface]) -> list[str]:
        """The addresses of an instance that are not this machine's."""
        own = set(own_addresses(interfaces))
        return [address for address in reachable(found.addresses, interfaces) if address not in own]
