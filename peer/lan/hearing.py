"""What has been heard by mDNS: a bounded table between the thread of the responder and trio. No I/O, no clock.

Only news leave it, so that a neighbour that repeats itself, or a flood, costs the daemon next to nothing: what is
beyond the bound is counted and forgotten at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from peer.lan.records import Announced, Reason, decode, key_of

LIFETIME: Final = 4500.0
"""Seconds after which an instance that is not heard again is gone; that of a pointer record (RFC 6762, 10)."""

Ignored = Literal["cluster", "protocol", "malformed", "full"]


@dataclass(frozen=True, slots=True)
class Instance:
    """An announced instance, by its full name. ``addresses`` are IP addresses, link-local IPv6 with the number of
    the interface if that is known ("fe80::1%3")."""

    name: str
    announced: Announced
    port: int
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Known:
    state: Instance | Reason
    until: float


class Hearing:
    """Who is announced, and what of that has not been told yet. May be used by any thread.

    At most ``limit`` instances, and as many that are left out, are remembered. ``wake`` is called, perhaps by another
    thread, when there are news.
    """

    def __init__(self, cluster: str, limit: int, wake: Callable[[], None]) -> None:
        self._cluster = cluster
        self._limit = limit
        self.wake = wake
        """Wakes the other side; in any thread."""
        self._lock = threading.Lock()
        self._here: dict[str, _Known] = {}
        self._out: dict[str, _Known] = {}
        self._news: dict[str, Instance | None] = {}
        self._told: set[str] = set()
        self._ignored: Counter[Ignored] = Counter()

    def __repr__(self) -> str:
        return f"<Hearing {len(self._here)} instances, {len(self._out)} left out>"

    def __len__(self) -> int:
        return len(self._here)

    def heard(self, name: str, text: bytes, port: int, addresses: tuple[str, ...], now: float) -> bool:
        """An instance with its records; False if it is not remembered."""
        told = decode(text, self._cluster)
        if isinstance(told, str):
            return self._leave_out(name, told, now)
        if not 0 < port < 65536 or not addresses:
            return self._leave_out(name, "malformed", now)
        return self._note(Instance(name, told, port, tuple(sorted(addresses))), now)

    def malformed(self, name: str, now: float) -> bool:
        """An instance whose records are no good; False if it is not remembered."""
        return self._leave_out(name, "malformed", now)

    def _note(self, instance: Instance, now: float) -> bool:
        key = key_of(instance.name)
        with self._lock:
            known = self._here.get(key)
            if known is None and len(self._here) >= self._limit:
                self._ignored["full"] += 1
            else:
                self._out.pop(key, None)
                self._here[key] = _Known(instance, now + LIFETIME)
                if known is not None and known.state == instance:
                    return True
                self._news[key] = instance
        self.wake()
        return key in self._here

    def _leave_out(self, name: str, reason: Reason, now: float) -> bool:
        key = key_of(name)
        with self._lock:
            known = self._out.get(key)
            if known is not None and known.state == reason:
                known.until = now + LIFETIME
                return True
            self._forget(key)
            self._ignored[reason] += 1
            if kept := len(self._out) < self._limit:
                self._out[key] = _Known(reason, now + LIFETIME)
        self.wake()
        return kept

    def gone(self, name: str) -> None:
        """An instance has said goodbye."""
        key = key_of(name)
        with self._lock:
            self._out.pop(key, None)
            self._forget(key)
        self.wake()

    def expire(self, now: float) -> None:
        """Forget what has not been heard for its lifetime."""
        with self._lock:
            for key in [key for key, known in self._here.items() if known.until <= now]:
                self._forget(key)
            for key in [key for key, known in self._out.items() if known.until <= now]:
                del self._out[key]
        self.wake()

    def _forget(self, key: str) -> None:
        if self._here.pop(key, None) is None:
            return
        if key in self._told:
            self._news[key] = None
        else:
            self._news.pop(key, None)

    def find(self, name: str) -> Instance | None:
        """The instance of this name."""
        with self._lock:
            known = self._here.get(key_of(name))
        return known.state if known is not None and isinstance(known.state, Instance) else None

    def take(self, count: int) -> tuple[list[tuple[str, Instance | None]], Counter[Ignored]]:
        """At most ``count`` news (key, and the instance, or None for one that is gone), the oldest first, and how
        many were left out for which reason."""
        with self._lock:
            keys = list(self._news)[:count]
            news = [(key, self._news.pop(key)) for key in keys]
            for key, instance in news:
                if instance is None:
                    self._told.discard(key)
                else:
                    self._told.add(key)
            ignored, self._ignored = self._ignored, Counter()
        return news, ignored
