"""Which generation of a content a host goes for."""

from __future__ import annotations

from typing import cast

import pytest

from shared.store import Store
from shared.swarm import generations
from shared.swarm.generations import Generations
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC, MemoryStore, sample

OF = sample(2)
FIRST, SECOND = (in_generation(SPEC, f"{number:012x}") for number in (1, 2))
OTHER = TaskSpec("https://origin.example/other")


def of(store: MemoryStore) -> Generations:
    return Generations(cast(Store, store))


async def test_the_greatest_one_stored_is_the_newest() -> None:
    store = MemoryStore()
    for spec in (SECOND, SPEC, FIRST, OTHER):
        await store.hold(OF, spec=spec)
    known = of(store)
    for spec in (SPEC, FIRST, SECOND):
        assert known.newest(spec) == SECOND
        assert [stored.spec for stored in known.stored(spec)] == [SECOND, FIRST, SPEC]
    assert known.newest(OTHER) == OTHER
    later = in_generation(SPEC, "ffff00000000")
    assert known.newest(later) == later, "what somebody asks for is not turned back"


async def test_what_is_told_counts_and_marks_what_is_old() -> None:
    store = MemoryStore()
    await store.hold(OF, spec=SPEC)
    known = of(store)
    assert known.newest(SPEC) == SPEC
    known.note(FIRST)
    assert known.newest(SPEC) == FIRST
    assert store.contents[SPEC.task_id].record.superseded
    await store.hold(OF, spec=FIRST)
    known.note(FIRST)
    assert not store.contents[FIRST.task_id].record.superseded
    known.note(SECOND)
    known.note(FIRST)
    assert known.newest(SPEC) == SECOND
    assert store.contents[FIRST.task_id].record.superseded


async def test_a_generation_that_is_no_longer_held_is_not_gone_for() -> None:
    store = MemoryStore()
    for spec in (SPEC, FIRST):
        await store.hold(OF, spec=spec)
    known = of(store)
    await store.remove(SPEC.task_id)
    assert known.newest(SPEC) == FIRST
    await store.remove(FIRST.task_id)
    assert known.newest(SPEC) == SPEC
    assert known.stored(SPEC) == []


async def test_what_is_known_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "MAX_KNOWN", 2)
    known = of(MemoryStore())
    specs = [TaskSpec(f"https://origin.example/{n}") for n in range(3)]
    for spec in specs:
        known.note(in_generation(spec, FIRST.generation))
    assert [known.newest(spec).generation for spec in specs] == ["", FIRST.generation, FIRST.generation]
