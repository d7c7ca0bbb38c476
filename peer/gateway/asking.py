"""Questions to registries on behalf of clients: one for many who ask the same, and few at once to a registry.

Clients decide how often they ask and with which credentials, so neither may become a flood upstream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

import trio

from shared.errors import Unavailable

AT_ONCE = 8
"""Questions that one registry gets at the same time."""
WAITING = 256
"""Questions that wait for their turn at one registry; more are turned away."""
HOLD = 2.0
"""Seconds for which an answer is given to whoever asks the same."""
MAX_HELD = 1024
"""Answers that are held at most; the oldest go first."""

T = TypeVar("T")


class _Question:
    __slots__ = ("answer", "asking", "lock", "until")

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.asking = 0
        self.answer: Any = None
        self.until = float("-inf")


class Asking:
    """The questions of a gateway. One whose asker is cancelled is asked anew by the next who waits for it."""

    def __init__(self) -> None:
        self._questions: OrderedDict[Hashable, _Question] = OrderedDict()
        self._turns: dict[str, trio.CapacityLimiter] = {}

    async def once(
        self,
        registry: str,
        key: Hashable,
        ask: Callable[[], Awaitable[T]],
        holds: Callable[[T], float] = lambda _: HOLD,
    ) -> T:
        """The answer to the question ``key``: a held one, or what ``ask`` gives; ``holds`` tells for how many
        seconds others may have it.

        An error that ``ask`` raises is not held. Raises Unavailable when too many wait for the registry.
        """
        question = self._questions.setdefault(key, _Question())
        self._questions.move_to_end(key)
        question.asking += 1
        try:
            async with question.lock:
                if trio.current_time() >= question.until:
                    question.answer = await self._in_turn(registry, ask)
                    question.until = trio.current_time() + holds(question.answer)
                answer: T = question.answer
                return answer
        finally:
            question.asking -= 1
            self._tidy()

    async def _in_turn(self, registry: str, ask: Callable[[], Awaitable[T]]) -> T:
        turns = self._turns.setdefault(registry, trio.CapacityLimiter(AT_ONCE))
        if turns.statistics().tasks_waiting >= WAITING:
            error = Unavailable(f"too many questions wait for {registry}: try again later")
            error.retry_after = HOLD
            raise error
        try:
            async with turns:
                return await ask()
        finally:
            state = turns.statistics()
            if not state.borrowed_tokens and not state.tasks_waiting and self._turns.get(registry) is turns:
                del self._turns[registry]

    def _tidy(self) -> None:
        """Forget what is over, from the oldest on, and answers beyond the bound; nothing that is being asked."""
        now = trio.current_time()
        for key in list(self._questions):
            question = self._questions[key]
            if question.asking:
                continue
            if now < question.until and len(self._questions) <= MAX_HELD:
                break
            del self._questions[key]

    def __len__(self) -> int:
        return len(self._questions)

    def __repr__(self) -> str:
        return f"<Asking {len(self._turns)} registries>"
