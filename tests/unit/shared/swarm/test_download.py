"""Downloads from parents that are slow, stalling, lying, dying or busy. All over memory streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
import trio.testing

from shared.errors import StoreFull
from shared.protocol import Failure, Parent, ParentFailed, ParentsWanted, PeerFinished, PiecesHeld, TaskMeta
from shared.swarm.download import Download, Engine
from shared.swarm.limits import TokenBucket
from shared.swarm.parent import ParentWorker
from shared.swarm.task import HostTask
from shared.task.bitmap import Bitmap
from tests.unit.shared.swarm.fakes import (
    PIECE,
    SPEC,
    FakeParent,
    Lan,
    MemoryStore,
    Reported,
    Sample,
    answer,
    assigned,
    make_engine,
    make_task,
    sample,
)

Clock = trio.testing.MockClock


class Child:
    """A host's part in one task, with its LAN."""

    def __init__(self, nursery: trio.Nursery, store: MemoryStore, task: HostTask, reporter: Reported) -> None:
        self.nursery = nursery
        self.store = store
        self.task = task
        self.reporter = reporter
        self.lan = Lan(nursery)
        self.engine: Engine = make_engine(self.lan, reporter)
        self.download = Download(task, self.engine)

    async def knows(self, of: Sample, *numbers: int) -> None:
        """Metadata and digests (all, or of these pieces) come from the scheduler."""
        await self.task.adopt(of.meta)
        digests = of.digests
        self.task.learn(of.version, {n: digests[n] for n in numbers or digests})

    def assign(self, *names: str, complete: bool = True, stripes: bool = False) -> None:
        self.task.parents = assigned(*names, complete=complete, stripes=stripes)
        self.task.pulse.beat()

    async def run(self, seconds: float = 300) -> None:
        with trio.fail_after(seconds):
            await self.download.run()

    def counted(self, reason: str) -> float:
        return self.engine.metrics.pieces_failed.labels(reason)._value.get()

    def failed(self) -> list[tuple[str, str]]:
        return [(r.parent, r.reason) for r in self.reporter.reports if isinstance(r, ParentFailed)]

    def at_rest(self) -> None:
        """Everything was given back."""
        assert f"{self.engine.buffers.capacity}/{self.engine.buffers.capacity} free" in repr(
            self.engine.buffers
        )
        assert "from 0 parents, 0 requested" in repr(self.download)
        assert self.download._asking.askers.total() == 0


@asynccontextmanager
async def new_child() -> AsyncIterator[Child]:
    store, reporter = MemoryStore(), Reported()
    async with trio.open_nursery() as nursery, aclosing(make_task(store, reporter)) as task:
        child = Child(nursery, store, task, reporter)
        yield child
        child.at_rest()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    async with new_child() as child:
        yield child


def always(reply: bytes | None) -> Callable[[int], Awaitable[bytes | None]]:
    async def give(number: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return reply

    return give


async def never(number: int) -> bytes | None:
    await trio.sleep_forever()
    return None


# --- parents that behave -----------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0.01, 1, 1.5, 7, 40.2])
async def test_a_task_comes_from_one_parent(autojump_clock: Clock, child: Child, pieces: float) -> None:
    of = sample(pieces)
    parent = child.lan.add("p", FakeParent(of))
    await child.knows(of)
    child.assign("p")
    await child.run()
    assert child.store.held(of)
    assert sorted(parent.asked) == list(range(of.count))
    assert parent.connections == 1
    assert child.reporter.reports[-1] == PeerFinished(SPEC.task_id, "v1")
    held = [n for r in child.reporter.reports if isinstance(r, PiecesHeld) for n in r.pieces]
    assert sorted(held) == list(range(of.count))
    assert child.task.bytes["peer"] == len(of.data)


async def test_an_empty_task_needs_no_parent(autojump_clock: Clock, child: Child) -> None:
    of = sample(0)
    await child.knows(of)
    await child.run()
    assert child.task.complete


async def test_stripes_are_taken_from_several_parents(autojump_clock: Clock, child: Child) -> None:
    of = sample(60)
    for name in "abc":
        child.lan.add(name, FakeParent(of))
    await child.knows(of)
    child.assign(*"abc", stripes=True)
    await child.run()
    assert child.store.held(of)
    assert sum(len(p.asked) for p in child.lan.parents.values()) == of.count
    assert all(len(p.asked) >= 10 for p in child.lan.parents.values())


def crossed(child: Child) -> float:
    return sum(child.engine.metrics.crossed.labels(role)._value.get() for role in ("peer", "seeder"))


async def test_only_what_the_host_carries_crosses_and_is_counted(autojump_clock: Clock, child: Child) -> None:
    of = sample(20)
    far = child.lan.add("far", FakeParent(of))
    near = child.lan.add("near", FakeParent(of, Bitmap(range(1, 20, 2))))
    await child.knows(of)
    child.task.parents = {
        "far": Parent(
            "far", "far", "seeder", complete=True, far=True, carries=sum(1 << n for n in range(0, 64, 2))
        ),
        "near": Parent("near", "near"),
    }
    await child.run()
    assert child.store.held(of)
    assert sorted(far.asked) == list(range(0, 20, 2))
    assert sorted(near.asked) == list(range(1, 20, 2))
    assert crossed(child) == 10 * PIECE


async def test_what_nobody_near_by_brings_crosses_in_the_end(autojump_clock: Clock, child: Child) -> None:
    of = sample(6)
    child.lan.add("far", FakeParent(of))
    await child.knows(of)
    child.task.parents = {"far": Parent("far", "far", complete=True, far=True)}
    began = trio.current_time()
    await child.run()
    assert child.store.held(of)
    assert trio.current_time() - began >= child.engine.config.far_patience
    assert crossed(child) == of.meta.length


async def test_classes_that_change_hands_are_taken_up_at_once(autojump_clock: Clock, child: Child) -> None:
    of = sample(6)
    far = child.lan.add("far", FakeParent(of))
    await child.knows(of)
    child.task.parents = {"far": Parent("far", "far", complete=True, far=True, carries=0b000111)}

    async def take_over() -> None:
        while len(child.task.held) < 3:
            await child.task.pulse.wait()
        child.task.parents = {"far": Parent("far", "far", complete=True, far=True, carries=0b111111)}
        child.task.pulse.beat()

    child.nursery.start_soon(take_over)
    await child.run(seconds=5)
    assert sorted(far.asked) == list(range(6))


async def test_pieces_are_fetched_as_parents_come_to_hold_them(autojump_clock: Clock, child: Child) -> None:
    of = sample(6)
    parent = child.lan.add("p", FakeParent(of, Bitmap([0])))
    await child.knows(of)
    child.assign("p", complete=False)

    async def grow() -> None:
        for number in range(1, 6):
            await trio.sleep(3)
            parent.gain(number)

    child.nursery.start_soon(grow)
    await child.run()
    assert child.store.held(of)
    assert parent.asked == list(range(6))


async def test_pieces_are_fetched_only_when_their_digest_is_known(
    autojump_clock: Clock, child: Child
) -> None:
    of = sample(4)
    parent = child.lan.add("p", FakeParent(of))
    await child.knows(of, 0)
    child.assign("p")

    async def later() -> None:
        await trio.sleep(5)
        assert parent.asked == [0]
        child.task.learn("v1", of.digests)

    child.nursery.start_soon(later)
    await child.run()
    assert child.store.held(of)


async def test_an_unused_connection_is_closed_and_opened_again(autojump_clock: Clock, child: Child) -> None:
    of = sample(2)
    parent = child.lan.add("p", FakeParent(of))
    await child.knows(of, 0)
    child.assign("p")

    async def later() -> None:
        await trio.sleep(300)
        assert not parent.open_connections
        child.task.learn("v1", of.digests)

    child.nursery.start_soon(later)
    await child.run(400)
    assert child.store.held(of)
    assert not child.failed()


async def test_an_unknown_length_becomes_known(autojump_clock: Clock, child: Child) -> None:
    of = sample(2.5)
    child.lan.add("p", FakeParent(of))
    await child.task.adopt(TaskMeta("v1", PIECE))
    child.task.learn("v1", of.digests)
    child.assign("p", complete=False)

    async def later() -> None:
        await trio.sleep(5)
        assert len(child.task.held) == 3
        await child.task.adopt(of.meta)

    child.nursery.start_soon(later)
    await child.run()
    assert child.store.held(of)


async def test_a_length_that_becomes_known_while_the_last_piece_is_on_the_way(
    autojump_clock: Clock, child: Child
) -> None:
    of = sample(2.5)
    parent = FakeParent(of)
    child.lan.add("p", parent)
    await child.task.adopt(TaskMeta("v1", PIECE))
    child.task.learn("v1", of.digests)
    child.assign("p", complete=False)

    async def give(number: int) -> bytes | None:
        if number == 2:
            await child.task.adopt(of.meta)
        return await parent.give(number)

    parent.answer = give
    await child.run()
    assert child.store.held(of)
    assert not child.failed()


async def test_what_is_held_is_not_fetched_again(autojump_clock: Clock) -> None:
    of = sample(8)
    async with new_child() as child:
        await child.store.hold(of, 1, 3, 5)
        parent = child.lan.add("p", FakeParent(of))
        await child.knows(of)
        child.assign("p")
        await child.run()
        assert sorted(parent.asked) == [0, 2, 4, 6, 7]


# --- parents that do not -------------------------------------------------------------------------------


async def test_a_slow_parent_is_overtaken_in_the_endgame(autojump_clock: Clock, child: Child) -> None:
    of = sample(20)
    fast, slow = child.lan.add("fast", FakeParent(of)), child.lan.add("slow", FakeParent(of))

    async def crawl(number: int) -> bytes | None:
        await trio.sleep(100)
        return await slow.give(number)

    slow.answer = crawl
    await child.knows(of)
    child.assign("fast", "slow")
    await child.run(10)
    assert child.store.held(of)
    assert set(slow.asked) <= set(fast.asked)


async def test_a_parent_that_stalls_in_the_body_is_overtaken(autojump_clock: Clock, child: Child) -> None:
    of = sample(12)
    child.lan.add("good", FakeParent(of))
    bad = child.lan.add("bad", FakeParent(of))

    async def half(number: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return answer(200, of.piece(number))[:-100]

    async def stall(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(await half(0) or b"")
        await trio.sleep_forever()

    bad.serve = stall  # type: ignore[method-assign]
    await child.knows(of)
    child.assign("good", "bad")
    await child.run(10)
    assert child.store.held(of)


@pytest.mark.parametrize("cut", [0, 10, 200])
async def test_a_parent_that_stalls_is_reported_and_another_is_waited_for(
    autojump_clock: Clock, child: Child, cut: int
) -> None:
    of = sample(6)
    bad = child.lan.add("bad", FakeParent(of))
    child.lan.add("good", FakeParent(of))

    async def stall(stream: trio.abc.Stream) -> None:
        bad.connections += 1
        await stream.receive_some()
        await stream.send_all(answer(200, of.piece(0))[:cut])
        await trio.sleep_forever()

    bad.serve = stall  # type: ignore[method-assign]
    await child.knows(of)
    child.assign("bad")

    async def rescue() -> None:
        await trio.sleep(60)
        child.assign("good")

    child.nursery.start_soon(rescue)
    await child.run()
    assert child.store.held(of)
    assert set(child.failed()) == {("bad", "stalled")}
    assert child.counted("stalled") >= 2
    assert bad.connections < 30


@pytest.mark.parametrize("length", [PIECE, PIECE - 1, PIECE + 1, 0])
async def test_a_lying_parent_is_left_for_good(autojump_clock: Clock, child: Child, length: int) -> None:
    of = sample(6)
    liar = child.lan.add("liar", FakeParent(of))
    liar.answer = always(answer(200, b"\0" * length))
    child.lan.add("good", FakeParent(of))
    await child.knows(of)
    child.assign("liar")

    async def rescue() -> None:
        await trio.sleep(30)
        assert liar.connections == 1
        child.assign("liar", "good")

    child.nursery.start_soon(rescue)
    await child.run()
    assert child.store.held(of)
    assert liar.connections == 1
    assert set(child.failed()) == {("liar", "corrupt")}
    assert child.counted("corrupt") >= 1
    assert child.reporter.of(ParentsWanted)


async def test_one_wrong_bit_among_many_parents(autojump_clock: Clock, child: Child) -> None:
    of = sample(30)
    for name in "abc":
        child.lan.add(name, FakeParent(of))
    evil = child.lan.add("evil", FakeParent(of))

    async def flip(number: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        piece = bytearray(of.piece(number))
        piece[number] ^= 1
        return answer(200, bytes(piece))

    evil.answer = flip
    await child.knows(of)
    child.assign(*"abc", "evil")
    await child.run()
    assert child.store.held(of)
    assert ("evil", "corrupt") in child.failed()


@pytest.mark.parametrize("reply", [None, b"", b"garbage\r\n\r\n", answer(500)])
async def test_a_dying_parent_is_tried_again_with_patience(
    autojump_clock: Clock, child: Child, reply: bytes | None
) -> None:
    of = sample(5)
    bad = child.lan.add("bad", FakeParent(of))
    bad.answer = always(reply or None)
    await child.knows(of)
    child.assign("bad")

    async def heal() -> None:
        await trio.sleep(20)
        bad.answer = bad.give

    child.nursery.start_soon(heal)
    await child.run()
    assert child.store.held(of)
    assert 4 <= bad.connections < 40
    assert ("bad", "gone") in child.failed()


async def test_a_parent_that_refuses_connections(autojump_clock: Clock, child: Child) -> None:
    of = sample(5)
    bad = child.lan.add("bad", FakeParent(of))
    bad.refuses = True
    child.lan.add("good", FakeParent(of))
    await child.knows(of)
    child.assign("bad", "good")
    await child.run(30)
    assert child.store.held(of)


async def test_parents_that_die_in_turn(autojump_clock: Clock, child: Child) -> None:
    of = sample(30)
    for name in "abcd":
        parent = child.lan.add(name, FakeParent(of))

        async def few(number: int, parent: FakeParent = parent) -> bytes | None:
            if len(parent.asked) > 9:
                parent.refuses = True
                return None
            return await parent.give(number)

        parent.answer = few
    await child.knows(of)
    child.assign(*"abcd")
    await child.run()
    assert child.store.held(of)


async def test_a_busy_parent_is_not_at_fault(autojump_clock: Clock, child: Child) -> None:
    of = sample(5)
    busy = child.lan.add("busy", FakeParent(of))
    busy.answer = always(answer(503, b"", "Retry-After: 1"))
    await child.knows(of)
    child.assign("busy")

    async def heal() -> None:
        await trio.sleep(20)
        assert len(busy.asked) <= 60
        busy.answer = busy.give

    child.nursery.start_soon(heal)
    await child.run()
    assert child.store.held(of)
    assert not child.failed()
    assert busy.connections == 1
    assert child.counted("busy") > 5


@pytest.mark.parametrize("wait", ["-3", "nan", "1e400", "soon", "0"])
async def test_a_parent_that_is_busy_in_odd_words(autojump_clock: Clock, child: Child, wait: str) -> None:
    of = sample(3)
    busy = child.lan.add("busy", FakeParent(of))

    async def once(number: int) -> bytes | None:
        if len(busy.asked) < 3:
            return answer(503, b"", f"Retry-After: {wait}")
        return await busy.give(number)

    busy.answer = once
    await child.knows(of)
    child.assign("busy")
    await child.run(10)
    assert child.store.held(of)


async def test_a_busy_parent_does_not_hold_up_what_another_can_give(
    autojump_clock: Clock, child: Child
) -> None:
    of = sample(20)
    busy = child.lan.add("busy", FakeParent(of))
    busy.answer = always(answer(503, b"", "Retry-After: 5"))
    child.lan.add("good", FakeParent(of))
    await child.knows(of)
    child.assign("busy", "good")
    await child.run(3)
    assert child.store.held(of)


async def test_a_parent_that_can_give_nothing_is_not_looked_at(autojump_clock: Clock, child: Child) -> None:
    of = sample(40)
    child.lan.add("p", FakeParent(of))
    child.lan.add("poor", FakeParent(of, Bitmap()))
    await child.knows(of)
    child.assign("p", complete=True)
    child.task.parents["poor"] = assigned("poor", complete=False)["poor"]
    looked: Counter[str] = Counter()
    pick = child.download.pick

    def counted(worker: ParentWorker) -> int | None:
        looked[worker.parent.host] += 1
        return pick(worker)

    child.download.pick = counted  # type: ignore[method-assign]
    await child.run()
    assert child.store.held(of)
    assert looked["p"] >= of.count
    assert not looked["poor"]


async def test_what_one_parent_does_not_give_is_asked_of_another_at_once(
    autojump_clock: Clock, child: Child
) -> None:
    of = sample(1)
    asked: list[float] = []

    def add(name: str) -> None:
        parent = child.lan.add(name, FakeParent(of))

        async def refuse_first(number: int) -> bytes | None:
            asked.append(trio.current_time())
            if len(asked) > 1:
                return answer(200, of.piece(number))
            parent.held = Bitmap()
            await trio.sleep(0.33)
            return answer(404)

        parent.answer = refuse_first

    add("p")
    add("q")
    await child.knows(of)
    child.assign("p", "q")
    await child.run()
    assert child.store.held(of)
    assert asked[1] - asked[0] == pytest.approx(0.33)


async def test_a_parent_that_holds_less_than_was_said(autojump_clock: Clock, child: Child) -> None:
    of = sample(6)
    parent = child.lan.add("p", FakeParent(of, Bitmap([0, 1, 2])))
    await child.knows(of)
    child.assign("p", complete=True)

    async def later() -> None:
        await trio.sleep(10)
        assert len(child.task.held) == 3
        assert len(parent.asked) < 12
        parent.gain(3, 4, 5)

    child.nursery.start_soon(later)
    await child.run()
    assert child.store.held(of)
    assert not child.failed()


async def test_a_parent_of_another_version_gives_nothing(autojump_clock: Clock, child: Child) -> None:
    of, other = sample(4), sample(4, version="v2", seed=2)
    child.lan.add("other", FakeParent(other))
    child.lan.add("good", FakeParent(of))
    await child.knows(of)
    child.assign("other", "good", complete=False)
    await child.run()
    assert child.store.held(of)


async def test_parents_are_asked_for_when_none_is_useful(autojump_clock: Clock, child: Child) -> None:
    of = sample(4)
    await child.knows(of)

    async def later() -> None:
        await trio.sleep(10)
        assert child.reporter.of(ParentsWanted)
        child.lan.add("p", FakeParent(of))
        child.assign("p")

    child.nursery.start_soon(later)
    await child.run()
    assert child.store.held(of)


async def test_a_parent_that_is_no_longer_assigned_is_left(autojump_clock: Clock, child: Child) -> None:
    of = sample(4)
    bad, good = child.lan.add("bad", FakeParent(of)), child.lan.add("good", FakeParent(of))
    bad.answer = never
    await child.knows(of)
    child.assign("bad")

    async def later() -> None:
        await trio.sleep(1)
        child.assign("good")
        await trio.testing.wait_all_tasks_blocked()
        assert not bad.open_connections

    child.nursery.start_soon(later)
    await child.run(3)
    assert sorted(good.asked) == [0, 1, 2, 3]


async def test_a_parent_may_move_to_another_address(autojump_clock: Clock, child: Child) -> None:
    of = sample(4)
    old = child.lan.add("old", FakeParent(of))
    old.answer = never
    child.lan.add("new", FakeParent(of))
    await child.knows(of)
    child.task.parents = {"host": Parent("host", "old", complete=True)}

    async def move() -> None:
        await trio.sleep(1)
        child.task.parents = {"host": Parent("host", "new", complete=True)}
        child.task.pulse.beat()

    child.nursery.start_soon(move)
    await child.run(3)
    assert child.store.held(of)


# --- versions, failures, cancellation ------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 2, 30])
@pytest.mark.parametrize("slowly", [False, True])
async def test_the_version_changes_in_mid_download(
    autojump_clock: Clock, child: Child, pieces: int, slowly: bool
) -> None:
    old, new = sample(20), sample(pieces, version="v2", seed=2)
    parent = child.lan.add("p", FakeParent(old))
    other = child.lan.add("q", FakeParent(old))

    async def change(number: int) -> bytes | None:
        if len(parent.asked) == 5:
            child.nursery.start_soon(renew)
        return await parent.give(number)

    async def renew() -> None:
        parent.sample = other.sample = new
        parent.held = other.held = Bitmap.full(new.count)
        await child.knows(new) if new.count else await child.task.adopt(new.meta)

    if slowly:

        async def wait() -> None:
            await trio.sleep(1)  # the content is closed for a while

        child.store.before_create = wait
    parent.answer = change
    await child.knows(old)
    child.assign("p", "q")
    await child.run()
    assert child.store.held(new)
    assert not child.download.banned
    assert not [r for r in child.failed() if r[1] == "corrupt"]


async def test_a_store_that_is_full_ends_the_download(autojump_clock: Clock, child: Child) -> None:
    of = sample(10)
    child.lan.add("p", FakeParent(of))

    async def full(number: int) -> None:
        await trio.lowlevel.checkpoint()
        if number > 5:
            raise StoreFull("full")

    child.store.before_put = full  # type: ignore[method-assign]
    await child.knows(of)
    child.assign("p")
    await child.run()
    assert isinstance(child.download.error, StoreFull)
    assert not child.task.complete


async def test_a_failure_from_the_scheduler_ends_the_download(autojump_clock: Clock, child: Child) -> None:
    async def fail() -> None:
        await trio.sleep(1)
        child.task.fail(Failure("404", 404))

    child.nursery.start_soon(fail)
    await child.run(2)


@pytest.mark.parametrize("moment", range(1, 60, 3))
async def test_cancelling_at_any_moment_gives_everything_back(
    autojump_clock: Clock, child: Child, moment: int
) -> None:
    of = sample(12)
    for name in "ab":
        child.lan.add(name, FakeParent(of))
    await child.knows(of)
    child.assign(*"ab")
    with trio.CancelScope() as scope:

        @child.nursery.start_soon
        async def canceller() -> None:
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        await child.run()
    await trio.testing.wait_all_tasks_blocked()
    assert not any(p.open_connections for p in child.lan.parents.values())
    child.at_rest()
    await child.run()  # and what came is used
    assert child.store.held(of)


async def test_little_memory_is_enough(autojump_clock: Clock, child: Child) -> None:
    of = sample(40)
    child.engine = make_engine(child.lan, child.reporter, memory=PIECE)
    child.download = Download(child.task, child.engine)
    for name in "abc":
        child.lan.add(name, FakeParent(of))

    async def slow(number: int) -> None:
        await trio.sleep(0.1)

    child.store.before_put = slow  # type: ignore[method-assign]
    await child.knows(of)
    child.assign(*"abc")
    await child.run()
    assert child.store.held(of)


async def test_the_download_keeps_to_its_rate(autojump_clock: Clock, child: Child) -> None:
    of = sample(40)
    child.download.limit = TokenBucket(PIECE)
    child.lan.add("p", FakeParent(of))
    await child.knows(of)
    child.assign("p")
    start = trio.current_time()
    await child.run()
    assert 35 <= trio.current_time() - start <= 50
