from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DragonetError, ParentGone, ParentStalled, PieceMissing
from shared.http.frames import FrameDecoder, frame
from shared.protocol import (
    Availability,
    AvailabilityEnded,
    AvailabilityEvent,
    Beat,
    PiecesAdded,
    decode_availability,
    encode,
)
from shared.swarm.availability import (
    BEAT_INTERVAL,
    LONGEST_SETTLE,
    SHORTEST_SETTLE,
    SILENCE,
    events,
    follow,
)
from shared.swarm.task import HostTask
from shared.task.bitmap import Bitmap
from tests.unit.shared.swarm.fakes import MemoryStore, Reported, Sample, chunk, make_task, sample

TASK = "b" * 64
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def gain(task: HostTask, of: Sample, *numbers: int) -> None:
    for number in numbers:
        await task.keep_from_origin(of.version, number, memoryview(of.piece(number)))


@pytest.fixture
async def task() -> AsyncIterator[HostTask]:
    async with aclosing(make_task(MemoryStore(), Reported())) as task:
        yield task


class Listener:
    """Collects what an availability stream tells."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.events: list[AvailabilityEvent] = []

    def feed(self, data: bytes) -> AvailabilityEvent:
        for payload in self.decoder.feed(data):
            self.events.append(decode_availability(payload))
        return self.events[-1]


async def test_a_parent_tells_what_it_holds_and_what_it_gains(
    task: HostTask, autojump_clock: trio.testing.MockClock
) -> None:
    of, listener = sample(4), Listener()
    await task.adopt(of.meta)
    await gain(task, of, 2)
    async with aclosing(events(task, "v1")) as stream:
        assert listener.feed(await anext(stream)) == Availability("v1", Bitmap([2]).to_bytes())
        await gain(task, of, 0)
        assert listener.feed(await anext(stream)) == PiecesAdded([0])
        await gain(task, of, 1, 3)
        assert listener.feed(await anext(stream)) == PiecesAdded([1, 3])
        start = trio.current_time()
        assert listener.feed(await anext(stream)) == Beat()
        assert trio.current_time() - start >= BEAT_INTERVAL


async def test_a_gain_between_two_events_is_not_missed(
    task: HostTask, autojump_clock: trio.testing.MockClock
) -> None:
    of = sample(64)
    await task.adopt(of.meta)
    told: set[int] = set()

    async def listen() -> None:
        listener = Listener()
        async with aclosing(events(task, "v1")) as stream:
            async for data in stream:
                event = listener.feed(data)
                if isinstance(event, PiecesAdded):
                    told.update(event.pieces)
                elif isinstance(event, Availability):
                    told.update(Bitmap.from_bytes(event.held))
                await trio.lowlevel.checkpoint()
                if len(told) == of.count:
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with trio.fail_after(60):
            for number in range(of.count):
                await gain(task, of, number)
                await trio.sleep(0.007)
    assert told == set(range(of.count))


async def test_gains_are_gathered_for_longer_the_longer_a_child_follows(
    task: HostTask, autojump_clock: trio.testing.MockClock
) -> None:
    """A gain after a silence is told at once, whatever the age."""
    of, told = sample(2000), Listener()
    await task.adopt(of.meta)
    numbers = iter(range(of.count))

    async def keep_gaining() -> None:
        for _ in range(200):
            await gain(task, of, next(numbers))
            await trio.sleep(0.005)

    async def times_told() -> list[float]:
        times = [trio.current_time()]
        while trio.current_time() - times[0] < 1:
            told.feed(await anext(stream))
            times.append(trio.current_time())
        return times

    async with aclosing(events(task, "v1")) as stream:
        told.feed(await anext(stream))
        for age, shortest in ((0, SHORTEST_SETTLE), (10, LONGEST_SETTLE)):
            while trio.current_time() < age:
                assert told.feed(await anext(stream)) == Beat()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_gaining)
                first, *times = await times_told()
            assert times[0] == first
            gaps = [after - before for before, after in itertools.pairwise(times)]
            assert min(gaps) == pytest.approx(shortest, abs=0.006)
        while not isinstance(told.feed(await anext(stream)), Beat):
            pass
    heard = [number for event in told.events if isinstance(event, PiecesAdded) for number in event.pieces]
    assert heard == list(range(400))


async def test_a_new_version_while_gains_are_gathered_ends_the_stream(
    task: HostTask, autojump_clock: trio.testing.MockClock
) -> None:
    of, new, listener = sample(4), sample(4, version="v2", seed=2), Listener()
    await task.adopt(of.meta)
    async with aclosing(events(task, "v1")) as stream:
        listener.feed(await anext(stream))
        await gain(task, of, 0)
        assert listener.feed(await anext(stream)) == PiecesAdded([0])
        await gain(task, of, 1)
        await task.adopt(new.meta)
        await gain(task, new, 2)
        assert listener.feed(await anext(stream)) == AvailabilityEnded()


async def test_a_new_version_ends_the_stream(task: HostTask, autojump_clock: trio.testing.MockClock) -> None:
    of, listener = sample(4), Listener()
    await task.adopt(of.meta)
    stream = events(task, "v1")
    listener.feed(await anext(stream))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.adopt, sample(4, version="v2").meta)
        assert listener.feed(await anext(stream)) == AvailabilityEnded()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_closed_task_ends_the_stream(task: HostTask, autojump_clock: trio.testing.MockClock) -> None:
    listener = Listener()
    await task.adopt(sample(4).meta)
    async with aclosing(events(task, "v1")) as stream:
        listener.feed(await anext(stream))
        await task.aclose()
        assert listener.feed(await anext(stream)) == AvailabilityEnded()


# --- the child's side --------------------------------------------------------------------------------


async def test_who_follows_shows_the_key_of_the_task() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(PieceMissing):
        await follow(ours, "parent:1", TASK, "v1", lambda held: None, "abc")
    assert b"\r\ndragonet-key: abc\r\n" in bytes(await theirs.receive_some()).lower()


async def followed(data: bytes) -> list[list[int]]:
    """What is heard when the parent answers ``data``; raises what ``follow`` does."""
    ours, theirs = trio.testing.memory_stream_pair()
    heard: list[list[int]] = []
    await theirs.send_all(data)
    try:
        await follow(ours, "parent:1", TASK, "v1", lambda held: heard.append(list(held)))
    except PieceMissing:
        assert heard
        return heard
    finally:
        request = bytes(await theirs.receive_some())
        assert request.startswith(b"GET /v1/tasks/%s/availability HTTP/1.1\r\n" % TASK.encode())
        assert b"dragonet-version: v1" in request.lower()
    raise AssertionError("follow returns only by an error")


async def test_a_child_hears_the_bitmap_grow() -> None:
    data = HEAD + b"".join(
        chunk(event)
        for event in (
            Availability("v1", Bitmap([1]).to_bytes()),
            Beat(),
            PiecesAdded([5, 3]),
            AvailabilityEnded(),
        )
    )
    assert await followed(data) == [[1], [1, 3, 5]]


async def test_events_may_be_cut_anywhere() -> None:
    data = HEAD + b"".join(
        b"1\r\n%c\r\n" % byte
        for event in (Availability("v1", b"\x01"), PiecesAdded([9]), AvailabilityEnded())
        for byte in frame(encode(event))
    )
    assert await followed(data) == [[0], [0, 9]]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", PieceMissing),
        (b"HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n", PieceMissing),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ParentGone),
        (HEAD + chunk(Availability("v2", b"")), PieceMissing),
        (HEAD + b"0\r\n\r\n", ParentGone),
        (HEAD, ParentGone),
        (b"", ParentGone),
        (b"SSH-2.0\r\n\r\n", ParentGone),
        (HEAD + b"4\r\n\xff\xff\xff\xff\r\n", ParentGone),  # a frame of 4 GiB
        (HEAD + b"8\r\n\0\0\0\4junk\r\n", ParentGone),
        (HEAD + chunk(PiecesAdded([-1])), ParentGone),
        (HEAD + chunk(PiecesAdded([1 << 40])), ParentGone),
        (HEAD + chunk(Availability("v1", b"\xff" * (1 << 20))), ParentGone),
    ],
)
async def test_what_is_wrong_with_a_parent_has_a_name(data: bytes, error: type[DragonetError]) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(data)
    await theirs.send_eof()
    with pytest.raises(error):
        await follow(ours, "parent:1", TASK, "v1", lambda held: None)


async def test_a_deeply_nested_event_is_refused() -> None:
    payload = b"\x82\xa4type\xa5added\xa1x" + b"\x91" * 200_000
    data = frame(payload)
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(HEAD + b"%x\r\n%s\r\n" % (len(data), data))
    with pytest.raises(ParentGone):
        await follow(ours, "parent:1", TASK, "v1", lambda held: None)


async def test_silence_is_a_stall_but_beats_are_not(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    start = trio.current_time()

    async def beat() -> None:
        await theirs.send_all(HEAD)
        for _ in range(5):
            await trio.sleep(SILENCE - 1)
            await theirs.send_all(chunk(Beat()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        with pytest.raises(ParentStalled):
            await follow(ours, "parent:1", TASK, "v1", lambda held: None)
    assert trio.current_time() - start == pytest.approx(5 * (SILENCE - 1) + SILENCE)


async def test_cancelling_closes_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.move_on_after(1):
        await follow(ours, "parent:1", TASK, "v1", lambda held: None)
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


@given(st.binary(max_size=300))
def test_garbage_never_ends_but_in_a_named_error(data: bytes) -> None:
    async def main() -> None:
        framed = frame(data)
        for stream in (data, HEAD + data, HEAD + b"%x\r\n%s\r\n" % (len(framed), framed)):
            ours, theirs = trio.testing.memory_stream_pair()
            await theirs.send_all(stream)
            await theirs.send_eof()
            with pytest.raises((ParentGone, PieceMissing)):
                await follow(ours, "parent:1", TASK, "v1", lambda held: None)

    trio.run(main)
