"""What holds for all unit tests: virtual time that waits for threads."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time that jumps to the next deadline when nothing else can happen before.

    A thread that the event loop waits for can: trio does not know that, so that on a busy machine hours would pass
    while it writes a file.
    """
    clock = MockClock(autojump_threshold=0)
    run_sync = trio.to_thread.run_sync
    working = 0

    async def run(*args: Any, **options: Any) -> Any:
        nonlocal working
        working += 1
        clock.autojump_threshold = inf
        try:
            return await run_sync(*args, **options)
        finally:
            working -= 1
            if not working:
                clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", run)
    return clock


@pytest.fixture
def hasty_clock() -> MockClock:
    """Time that jumps though threads work, for those that hang."""
    return MockClock(autojump_threshold=0.02)
