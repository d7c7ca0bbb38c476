"""A look at the LAN by somebody who takes no part in it: a command on a machine where no daemon runs."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import trio

from peer.config import Config
from peer.lan.folding import Seen, fold
from peer.lan.hello import ask_hello
from peer.lan.sightings import Sighting, Source, SourceName
from peer.lan.views import LanView
from shared.errors import DragonetError
from shared.http.client import HttpClient
from shared.protocol import Hello

FIRST_LOOK = 2.0
"""Seconds that others have to be seen in before the first view."""
HOST_TIME = 1.5
"""Seconds in which one host may be asked at its addresses, one after the other."""
ASKING = 5.0
"""Seconds for all questions of one view together."""
AT_ONCE = 128

Ask = Callable[[str], Awaitable[tuple[Hello, float]]]
"""Asks an address (HOST:PORT) who answers there, within a second; and how long it took. Raises DragonetError."""


@dataclass(slots=True)
class Looker:
    """Watches the sources and asks whoever was seen; everything is forgotten with it."""

    config: Config
    ask: Ask
    clock: Callable[[], float] = time.time
    _seen: dict[tuple[SourceName, str], Seen] = field(default_factory=dict)
    _ignored: Counter[str] = field(default_factory=Counter)
    _first: bool = True

    # --- as a watcher ----------------------------------------------------------------------------------

    def seen(self, sighting: Sighting) -> None:
        """Somebody was seen; at most ``lan.max_hosts`` are remembered."""
        key = (sighting.source, sighting.key)
        known = self._seen.get(key)
        if known is not None:
            known.sighting = sighting
        elif len(self._seen) < self.config.lan.max_hosts:
            self._seen[key] = Seen(sighting)
        else:
            self.ignored("full")

    def gone(self, source: SourceName, key: str) -> None:
        """A goodbye."""
        self._seen.pop((source, key), None)

    def ignored(self, reason: Literal["cluster", "protocol", "malformed", "self", "full"]) -> None:
        """A sighting was left out."""
        self._ignored[reason] += 1

    # --- the view --------------------------------------------------------------------------------------

    async def view(self, probe: bool) -> LanView:
        """Who is there. ``probe``: all are asked anew, else only those who were not asked yet."""
        if self._first:
            self._first = False
            await trio.sleep(FIRST_LOOK if self.config.lan.discovery != "off" else 0)
        limit = trio.CapacityLimiter(AT_ONCE)
        with trio.move_on_after(ASKING):
            async with trio.open_nursery() as nursery:
                for known in list(self._seen.values()):
                    if probe or not known.asked:
                        known.asked = True
                        nursery.start_soon(self._find_out, known, limit)
        return fold(
            self._seen.values(),
            cluster=self.config.lan.cluster,
            configured=self.config.host.scheduler,
            name=socket.gethostname(),
            ignored=self._ignored,
            discovery=self.config.lan.discovery != "off",
        )

    async def _find_out(self, known: Seen, limit: trio.CapacityLimiter) -> None:
        async with limit:
            present = False
            with trio.move_on_after(HOST_TIME):
                present = await self._answers(known)
            if present != known.present:
                known.present, known.since = present, self.clock()

    async def _answers(self, known: Seen) -> bool:
        for address in known.sighting.addresses:
            try:
                hello, took = await self.ask(address)
            except DragonetError:
                continue
            if known.sighting.id in ("", hello.id):
                known.hello, known.address, known.rtt = hello, address, took
                return True
        return False


@asynccontextmanager
async def open_looker(config: Config, found_by: list[Source] | None = None) -> AsyncIterator[Looker]:
    """A looker whose sources (default: those of the configuration) run for the time of the context."""
    async with HttpClient() as client, trio.open_nursery() as nursery:
        looker = Looker(config, partial(ask_hello, client))
        if config.lan.discovery != "off":
            if found_by is None:
                from peer.lan.interfaces import Interfaces  # what they need takes long to load
                from peer.lan.sources import sources

                interfaces = Interfaces(config.lan.interfaces)
                nursery.start_soon(interfaces.run)
                found_by = sources(config.lan, None, interfaces)
            for source in found_by:
                nursery.start_soon(source.run, looker)
        try:
            yield looker
        finally:
            nursery.cancel_scope.cancel()
