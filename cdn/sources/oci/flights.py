"""Questions that many ask at the same time, asked once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from shared.errors import SourceError

T = TypeVar("T")

MAX_FLIGHTS = 1024
"""Questions under way that others may join; beyond that each caller asks for itself."""


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = trio.Event()
        self.answers: list[T] = []
        self.error: SourceError | None = None


class Flights(Generic[T]):
    """Whoever asks first does the work; who asks for the same meanwhile gets the same answer, or error.

    When the one who works is cancelled, one of those who wait takes over.
    """

    def __init__(self, most: int = MAX_FLIGHTS) -> None:
        self._most = most
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` gives, done here or by somebody else. Raises what it raises."""
        while (flight := self._flights.get(key)) is not None:
            await flight.landed.wait()
            for answer in flight.answers:
                return answer
            if flight.error is not None:
                raise _again(flight.error) from flight.error
        if len(self._flights) >= self._most:
            return await work()
        return await self._lead(key, work)

    async def _lead(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        flight = self._flights[key] = _Flight()
        try:
            answer = await work()
            flight.answers.append(answer)
        except SourceError as error:
            flight.error = error
            raise
        finally:
            del self._flights[key]
            flight.landed.set()
        return answer

    def __repr__(self) -> str:
        return f"<Flights: {len(self._flights)} under way>"


def _again(error: SourceError) -> SourceError:
    """The same error for another task: an exception collects the places that it came by."""
    return SourceError(
        str(error), origin_status=error.origin_status, retry_after=error.retry_after, fault=error.fault
    )
