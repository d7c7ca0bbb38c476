"""How long the ranges are that a source is asked for, by how long it takes to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.metrics import OriginMetrics
from cdn.reading.session import SourceSession
from cdn.sources.interface import (
    AsyncResourceClient,
    ContentRange,
    ExpireInfo,
    SourceRequest,
    SourceResponse,
)
from tests.unit.cdn.fakes import MIB, MemorySink, job

SIZE = 400 * MIB


class SlowSource(AsyncResourceClient):
    """Answers after ``asking`` seconds, and then gives ``rate`` bytes per second."""

    def __init__(self, asking: float, rate: float) -> None:
        self.asking = asking
        self.rate = rate
        self.ranges: list[int] = []
        self.most = self.now = 0

    async def get_content_length(self, request: SourceRequest) -> int:
        return SIZE

    async def is_support_range(self, request: SourceRequest) -> bool:
        return True

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return False

    async def get_last_modified(self, request: SourceRequest) -> int:
        return -1

    async def download(self, request: SourceRequest) -> SourceResponse:
        assert request.range is not None
        first, last = request.range[0], min(request.range[1] or SIZE, SIZE - 1)
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(self.asking)
        self.ranges.append(last - first + 1)
        return SourceResponse(
            self._body(last - first + 1),
            status=206,
            range=ContentRange(first, last, SIZE),
            etag='"one"',
            url=request.url,
        )

    async def _body(self, left: int) -> AsyncIterator[bytes]:
        zeros = bytes(4 * MIB)
        while left:
            await trio.sleep(min(left, len(zeros)) / self.rate)
            yield zeros[:left]
            left -= min(left, len(zeros))
        self.now -= 1


class Counting(MemorySink):
    """Keeps no bytes."""

    async def piece(self, number: int, data: memoryview) -> None:
        self.numbers = [*getattr(self, "numbers", []), number]


async def read(source: SlowSource) -> list[int]:
    sink = Counting()
    metrics = OriginMetrics(CollectorRegistry())
    config = SourceConfig(span=16 * MIB)
    await SourceSession(source, job("slow://a"), sink, config, metrics).run()
    assert sorted(sink.numbers) == list(range(len(sink.numbers)))
    assert sum(source.ranges) == SIZE, "nothing is read twice"
    return source.ranges


async def test_a_source_that_answers_at_once_is_read_in_spans(autojump_clock: trio.testing.MockClock) -> None:
    source = SlowSource(asking=0.001, rate=100 * MIB)
    assert await read(source) == [16 * MIB] * 25
    assert source.most == 4


async def test_a_source_that_takes_long_to_begin_is_asked_seldom(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = SlowSource(asking=2.0, rate=1000 * MIB)
    ranges = await read(source)
    assert ranges[:3] == [16 * MIB] * 3
    assert len(ranges) <= 5
    assert source.most == 2


async def test_ranges_grow_only_as_far_as_it_is_worth(autojump_clock: trio.testing.MockClock) -> None:
    source = SlowSource(asking=0.1, rate=100 * MIB)  # 0.1 s to begin is a quarter of reading 40 MiB
    ranges = await read(source)
    assert max(ranges) <= 48 * MIB
    assert len(ranges) < 25
    assert source.most == 4
