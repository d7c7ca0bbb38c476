from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import (
    ParentsWanted,
    PeerLeft,
    PiecesHeld,
    Report,
    SourcePieces,
    SourceProgress,
)
from shared.swarm.outbox import BATCH_WEIGHT, MAX_QUEUED, PACE, RELAXED, Outbox


async def drained(outbox: Outbox) -> list[Report]:
    reports: list[Report] = []
    while len(outbox):
        reports += await outbox.batch()
    return reports


async def test_progress_waits_for_company_and_is_merged(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    start = trio.current_time()
    outbox.add(PiecesHeld("t", "v", [1]))
    outbox.add(PiecesHeld("t", "v", [2]))

    async def more() -> None:
        await trio.sleep(RELAXED / 2)
        outbox.add(PiecesHeld("t", "v", [3]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(more)
        assert await outbox.batch() == [PiecesHeld("t", "v", [1, 2, 3])]
    assert trio.current_time() - start >= RELAXED


async def test_what_others_wait_for_goes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    start = trio.current_time()
    outbox.add(ParentsWanted("t"))

    async def urgent() -> None:
        outbox.add(PeerLeft("t"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(urgent)
        assert await outbox.batch() == [ParentsWanted("t"), PeerLeft("t")]
    assert trio.current_time() == start


async def test_pieces_of_the_origin_go_at_once_after_a_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox = Outbox()
    start = trio.current_time()
    outbox.add(SourcePieces("t", "g", "v", {0: b"d"}))
    assert await outbox.batch() == [SourcePieces("t", "g", "v", {0: b"d"})]
    assert trio.current_time() == start


async def test_pieces_of_the_origin_that_come_by_the_dozen_are_paced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox = Outbox()
    batches: list[list[Report]] = []

    async def read() -> None:
        for number in range(100):
            outbox.add(SourcePieces("t", "g", "v", {number: b"d"}))
            await trio.sleep(PACE / 10)

    async def tell() -> None:
        while True:
            batches.append(await outbox.batch())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await read()
        await trio.sleep(2 * PACE)
        nursery.cancel_scope.cancel()
    assert len(batches) <= 12
    told = [
        n for batch in batches for report in batch if isinstance(report, SourcePieces) for n in report.digests
    ]
    assert told == list(range(100))


async def test_a_report_that_others_wait_for_takes_paced_ones_along(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox = Outbox()
    outbox.add(SourcePieces("t", "g", "v", {0: b"d"}))
    await outbox.batch()
    start = trio.current_time()
    outbox.add(PiecesHeld("t", "v", [1]))
    outbox.add(SourcePieces("t", "g", "v", {1: b"d"}))
    outbox.add(PeerLeft("t"))
    assert len(await outbox.batch()) == 3
    assert trio.current_time() == start


async def test_only_neighbours_of_the_same_kind_are_merged() -> None:
    outbox = Outbox()
    reports: list[Report] = [
        PiecesHeld("t", "v", [1]),
        PiecesHeld("t", "w", [1]),
        PiecesHeld("u", "w", [1]),
        PeerLeft("t"),
        PiecesHeld("u", "w", [2]),
        SourcePieces("t", "g", "v", {1: b"1"}),
        SourcePieces("t", "h", "v", {1: b"1"}),
        SourceProgress("t", "g", 1),
        SourceProgress("t", "h", 1),
    ]
    for report in reports:
        outbox.add(report)
    assert await outbox.batch() == reports


async def test_source_reports_are_merged() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.add(SourcePieces("t", "g", "v", {number: b"d"}))
    for received in range(3):
        outbox.add(SourceProgress("t", "g", received))
    assert await outbox.batch() == [
        SourcePieces("t", "g", "v", {0: b"d", 1: b"d", 2: b"d"}),
        SourceProgress("t", "g", 2),
    ]


async def test_batches_are_bounded_and_the_rest_follows_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox = Outbox()
    for number in range(2 * BATCH_WEIGHT):
        outbox.add(PeerLeft(str(number)))
    start = trio.current_time()
    assert len(await outbox.batch()) == BATCH_WEIGHT
    assert len(await drained(outbox)) == BATCH_WEIGHT
    assert trio.current_time() == start


async def test_a_report_heavier_than_a_batch_goes_alone() -> None:
    outbox = Outbox()
    heavy = SourcePieces("t", "g", "v", dict.fromkeys(range(2 * BATCH_WEIGHT), b"d"))
    for report in (PeerLeft("a"), heavy, PeerLeft("b")):
        outbox.add(report)
    assert await outbox.batch() == [PeerLeft("a")]
    assert await outbox.batch() == [heavy]
    assert await outbox.batch() == [PeerLeft("b")]


async def test_what_could_not_be_delivered_goes_first_and_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outbox = Outbox()
    for name in "abc":
        outbox.add(PeerLeft(name))
    batch = await outbox.batch()
    outbox.add(PeerLeft("d"))
    outbox.put_back(batch)
    assert await drained(outbox) == [PeerLeft(name) for name in "abcd"]


async def test_what_was_put_back_wakes_the_taker(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def taker() -> None:
            assert await outbox.batch() == [PeerLeft("a")]

        await trio.testing.wait_all_tasks_blocked()
        outbox.put_back([PeerLeft("a")])


async def test_a_cancelled_taker_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    with trio.move_on_after(1):
        await outbox.batch()
    outbox.add(ParentsWanted("t"))
    with trio.move_on_after(RELAXED / 2):
        await outbox.batch()
    assert await outbox.batch() == [ParentsWanted("t")]


async def test_too_much_is_dropped_and_said(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    for number in range(MAX_QUEUED):
        outbox.add(PeerLeft(str(number)))
    assert not outbox.overflowed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.below, 10)
        await trio.testing.wait_all_tasks_blocked()
        outbox.add(PeerLeft("last"))
    assert outbox.overflowed
    assert len(outbox) == 1
    outbox.clear()
    assert not outbox.overflowed
    assert not len(outbox)


async def test_waiting_for_room(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    await outbox.below(1)
    for number in range(3):
        outbox.add(PeerLeft(str(number)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.below, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await outbox.batch()
    await outbox.below(1)


@given(
    st.lists(
        st.one_of(
            st.builds(lambda n: PiecesHeld("t", "v", [n]), st.integers(0, 99)),
            st.builds(lambda n: PeerLeft(str(n)), st.integers(0, 99)),
        ),
        max_size=50,
    ),
    st.lists(st.booleans(), max_size=20),
)
def test_nothing_is_lost_or_reordered(reports: list[Report], failures: list[bool]) -> None:
    def flat(reports: list[Report]) -> list[object]:
        return [
            item
            for report in reports
            for item in (report.pieces if isinstance(report, PiecesHeld) else [report])
        ]

    async def main() -> None:
        outbox = Outbox()
        delivered: list[Report] = []
        waiting = list(reports)
        fails = iter(failures)
        while waiting or len(outbox):
            for report in waiting[:5]:
                outbox.add(report)
            del waiting[:5]
            batch = await outbox.batch()
            if next(fails, False):
                outbox.put_back(batch)
            else:
                delivered += batch
        assert flat(delivered) == flat(reports)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
