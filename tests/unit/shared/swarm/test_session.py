"""Downloads whose scheduler is connected and no good: anybody can be found on a network."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from shared.errors import Unavailable
from shared.protocol import ParentsAssigned, TaskDescribed
from shared.swarm.session import STUCK, UNDECIDED
from tests.unit.shared.swarm.fakes import assigned
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, new_world


async def test_who_only_beats_is_not_waited_for(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        world.link.trusted = False
        await world.get()
        assert UNDECIDED < trio.current_time() < UNDECIDED + 5
        assert world.store.held(OF)


async def test_who_gives_parents_without_pieces_is_not_waited_for(autojump_clock: Clock) -> None:
    """They may have none yet, where the origin is slow: that takes longer."""
    async with new_world() as world:
        world.linked()
        world.link.trusted = False

        async def decide() -> None:
            await trio.sleep(1)
            for _ in range(1000):
                await world.host.assigned(TaskDescribed(TASK, OF.meta))
                await world.host.assigned(ParentsAssigned(TASK, list(assigned("nobody").values())))
                await trio.sleep(1)

        world.nursery.start_soon(decide)
        await world.get()
        assert STUCK < trio.current_time() < STUCK + 10
        assert world.store.held(OF)


async def test_who_may_not_read_is_told(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        world.link.trusted = False
        with pytest.raises(Unavailable):
            await world.get(cluster_only=True)


async def test_the_scheduler_of_the_configuration_is_waited_for(autojump_clock: Clock) -> None:
    async with new_world() as world:
        world.linked()
        with trio.move_on_after(3 * STUCK) as scope:
            await world.get()
        assert scope.cancelled_caught
        assert not world.origin.jobs


async def test_parents_somewhere_else_are_not_asked(autojump_clock: Clock) -> None:
    """Whoever schedules, or has a lease there, may say that a machine out in the world has the content."""
    async with new_world() as world:
        world.linked()
        world.host.is_near = lambda address: address != "p2"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.get)
            await trio.sleep(1)
            await world.assign(OF, "p1", "p2")
            task = world.host.tasks.active(TASK)
            assert task is not None
            assert list(task.parents) == ["p1"]
            nursery.cancel_scope.cancel()
