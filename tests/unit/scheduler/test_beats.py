"""Signs of life: each stream gets its own in time, and many get them at once."""

from __future__ import annotations

from itertools import pairwise

import trio
from trio.testing import MockClock

from scheduler.beats import Beats
from scheduler.hub import Subscription, as_frame
from shared.protocol import Beat

SIGN = as_frame(Beat())


class Line:
    """A stream whose connection can take chunks at any time, or cannot."""

    def __init__(self, *, room: bool = True) -> None:
        self.subscription = Subscription("host", 1, as_frame, 16)
        self.room = room
        self.times: list[float] = []
        self.subscription.attach(self._push)

    def _push(self, data: bytes) -> bool:
        assert data == SIGN
        if self.room:
            self.times.append(trio.current_time())
        return self.room


async def test_each_stream_gets_a_sign_of_life_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    beats, lines = Beats(1.0), []
    nursery.start_soon(beats.run)
    for _ in range(300):
        line = Line()
        lines.append((line, trio.current_time()))
        beats.add(line.subscription)
        await trio.sleep(0.013)
    await trio.sleep(10)
    for line, opened in lines:
        gaps = [b - a for a, b in pairwise([opened, *line.times, trio.current_time()])]
        assert max(gaps) <= 1.0 + 1e-6
        assert len(gaps) < 18
    rounds = {time for line, _ in lines for time in line.times if time > trio.current_time() - 3}
    assert len(rounds) <= 3 * 9, "they are served together"


async def test_a_closed_stream_is_left_out(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    beats, line = Beats(1.0), Line()
    nursery.start_soon(beats.run)
    beats.add(line.subscription)
    await trio.sleep(2.5)
    line.subscription.close()
    await trio.sleep(5)
    assert len(line.times) == 2
    assert "0 streams" in repr(beats)


async def test_who_cannot_take_it_at_once_gets_it_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    beats, line = Beats(1.0), Line(room=False)
    nursery.start_soon(beats.run)
    beats.add(line.subscription)
    await trio.sleep(10.5)
    assert await line.subscription.take() == SIGN
    line.room = True
    await trio.sleep(2)
    assert len(line.times) == 2


async def test_what_is_queued_is_a_sign_of_life(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    beats, line = Beats(1.0), Line()
    nursery.start_soon(beats.run)
    beats.add(line.subscription)
    line.subscription.put(b"decision")
    await trio.sleep(3)
    assert not line.times
    assert await line.subscription.take() == b"decision"


async def test_without_a_connection_it_waits_in_the_queue() -> None:
    subscription = Subscription("host", 1, as_frame, 16)
    subscription.beat()
    subscription.beat()
    assert await subscription.take() == SIGN
    subscription.close()
    subscription.beat()
    assert len(subscription) == 0
