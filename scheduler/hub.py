"""Decisions on their way to the hosts: one bounded queue for each assignment stream.

A host that does not read fast enough loses its stream, not its decisions: it opens another one and is
told everything anew. Nothing here waits for a host but the host's own response.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec
import trio

from shared.http.frames import frame
from shared.http.messages import Push
from shared.protocol import Assignment, Beat, encode

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Bytes waiting for one host; messages are shared between the queues of all hosts that get the same."""

Encoder = Callable[[Assignment], bytes]
_BEAT = Beat()
_json = msgspec.json.Encoder()


def as_frame(assignment: Assignment) -> bytes:
    """The wire form: a frame of MessagePack."""
    return frame(encode(assignment))


def as_line(assignment: Assignment) -> bytes:
    """The form for people: a line of JSON."""
    return _json.encode(assignment) + b"\n"


class Subscription:
    """The queue of one assignment stream. ``number`` tells streams of the same host apart."""

    def __init__(self, host: str, number: int, encoder: Encoder, limit: int) -> None:
        self.host = host
        self.number = number
        self.encoder = encoder
        self.closed = False
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = trio.Event()
        self._push: Push | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, data: bytes) -> bool:
        """Queue an encoded message; False when there is no room for it."""
        if len(self._queue) >= self._limit or self._bytes + len(data) > MAX_QUEUED_BYTES:
            return False
        self._queue.append(data)
        self._bytes += len(data)
        self._wake.set()
        return True

    def attach(self, push: Push | None) -> None:
        """How to send something without the task that takes from here, now that it waits; None: not at all."""
        self._push = push

    def beat(self) -> None:
        """Give a sign of life, unless something is on its way anyhow."""
        if self._queue or self.closed:
            return
        sign = self.encoder(_BEAT)
        if self._push is None or not self._push(sign):
            self.put(sign)

    async def take(self) -> bytes | None:
        """Wait for messages and take all of them; None once the subscription is closed.

        Cancellation takes none. What was queued when it was closed is dropped.
        """
        while not self._queue and not self.closed:
            self._wake = trio.Event()
            await self._wake.wait()
        if self.closed:
            return None
        data = b"".join(self._queue)
        self._queue.clear()
        self._bytes = 0
        return data

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self._queue.clear()
        self._bytes = 0
        self._wake.set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._queue)} queued"
        return f"<Subscription {self.number} of {self.host}, {state}>"


class Hub:
    """The open assignment streams, at most one for each host."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, Subscription] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, host: str, encoder: Encoder = as_frame) -> Subscription:
        """A new stream for the host; an older one is closed."""
        self.close_host(host)
        self._number += 1
        subscription = Subscription(host, self._number, encoder, self._limit)
        self._open[host] = subscription
        return subscription

    def close(self, subscription: Subscription) -> None:
        """A stream has ended; again is harmless."""
        subscription.close()
        if self._open.get(subscription.host) is subscription:
            del self._open[subscription.host]

    def close_host(self, host: str) -> None:
        """End the host's stream, if it has one."""
        subscription = self._open.get(host)
        if subscription is not None:
            self.close(subscription)

    def close_all(self) -> None:
        """End all streams."""
        for subscription in list(self._open.values()):
            self.close(subscription)

    def send(self, decisions: Iterable[tuple[str, Assignment]]) -> list[Subscription]:
        """Queue decisions; gives the streams that had no room and were closed.

        A message for many hosts is encoded once. Decisions for hosts without a stream are dropped.
        """
        overflowed: list[Subscription] = []
        encoded: dict[tuple[int, Encoder], bytes] = {}
        for host, assignment in decisions:
            subscription = self._open.get(host)
            if subscription is None:
                continue
            key = (id(assignment), subscription.encoder)
            data = encoded.get(key)
            if data is None:
                data = encoded[key] = subscription.encoder(assignment)
            if not subscription.put(data):
                self.close(subscription)
                overflowed.append(subscription)
        return overflowed

    def __repr__(self) -> str:
        return f"<Hub of {len(self._open)} streams>"
