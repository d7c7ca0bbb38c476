"""A network for the tests of the roster: who answers at which address, in a time that passes by itself."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from peer.lan.hello import Refusal
from peer.lan.questions import Ask, Result
from peer.lan.roster import Roster
from peer.lan.sightings import Sighting, SourceName
from shared.protocol import Hello

DEAD: Literal["dead"] = "dead"
"""At such an address nothing comes back, as at one that nobody has."""
HTML: Literal["html"] = "html"
"""Something answers there that is not dragonet."""
LATENCY = 0.002


def hello(name: str, instance: str = "", **words: object) -> Hello:
    """A host of that id; a second process of it has another instance."""
    told: dict[str, object] = {"role": "peer", "schedules": True, "name": f"machine-{name}"}
    return Hello(**(told | {"id": name, "instance": instance or f"{name}-1"} | words))  # type: ignore[arg-type]


def sighting(
    key: str, *addresses: str, id: str = "", source: SourceName = "mdns", role: str = "", name: str = ""
) -> Sighting:
    return Sighting(source, key, addresses, id=id, role=role, name=name)


@dataclass
class Network:
    """``at``: who answers at an address; at all others a connection is refused."""

    roster: Roster
    at: dict[str, Hello | Literal["dead", "html"]] = field(default_factory=dict)
    now: float = 1000.0
    asked: list[tuple[float, str]] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)
    running: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self._order = count()
        self._events: list[tuple[float, int, Ask]] = []

    def see(self, *sightings: Sighting) -> None:
        for one in sightings:
            self.roster.seen(one, self.now)

    def announce(self, name: str, address: str, instance: str = "", **words: object) -> None:
        """A host comes, and is announced."""
        self.at[address] = hello(name, instance, **words)
        self.see(sighting(f"{name} {instance}", address, id=name))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while True:
            for ask in self.roster.take(self.now):
                self._begin(ask)
            due = max(self.roster.next_due(self.now), self.now + 0.0001)
            following = min(due, self._events[0][0] if self._events else math.inf)
            if following > end:
                break
            self.now = following
            while self._events and self._events[0][0] <= self.now:
                self._end(heapq.heappop(self._events)[2])
        self.now = end

    def present(self) -> set[str]:
        return {host.id for host in self.roster.hosts.values() if host.present}

    def times(self, address: str) -> list[float]:
        """When an address was asked, in seconds from the beginning."""
        return [time - 1000.0 for time, asked in self.asked if asked == address]

    def _begin(self, ask: Ask) -> None:
        self.asked.append((self.now, ask.address))
        self.running += 1
        self.most = max(self.most, self.running)
        took = ask.timeout if self.at.get(ask.address) == DEAD else LATENCY
        heapq.heappush(self._events, (self.now + took, next(self._order), ask))

    def _end(self, ask: Ask) -> None:
        self.running -= 1
        there = self.at.get(ask.address)
        if isinstance(there, Hello):
            result: Result = self.roster.answered(ask, there, LATENCY, self.now)
        else:
            reason: Refusal = "malformed" if there == HTML else "unreachable"
            result = self.roster.failed(ask, reason, self.now)
        self.results[result] += 1


def new_network(max_hosts: int = 512) -> Network:
    """A network on which this host is called me."""
    return Network(Roster(("me", "me-1"), "default", max_hosts))
