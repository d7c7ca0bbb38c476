"""What the tests of readers share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import shared.swarm.reading as module
from tests.unit.shared.swarm.worlds import World, new_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks that are shorter than a piece; gives their length."""
    monkeypatch.setattr(module, "CHUNK", 1500)
    return 1500
