"""Many GETs ahead of their answers, and whatever a server may answer to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest, SourceError
from shared.http.client import HttpClient, HttpConnectError, HttpError, HttpTimeout, Pipeline
from shared.http.client.pipeline import AHEAD, MAX_SKIPPED, _Exchange
from tests.unit.shared.http.test_client import Server, serving

TARGETS = [b"/file%d" % number for number in range(300)]
LIMIT = 2000


class Collected:
    """What was told."""

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}
        self.large_ones: list[int] = []
        self.pauses = 0

    def content(self, number: int, data: memoryview) -> None:
        assert number not in self.contents
        self.contents[number] = bytes(data)

    def large(self, number: int) -> None:
        self.large_ones.append(number)

    async def pause(self) -> None:
        self.pauses += 1


def number_of(head: bytes) -> int:
    return int(head.split(b" ")[1].removeprefix(b"/file"))


def plain(number: int, fields: bytes = b"") -> bytes:
    body = b"%d;" % number * (number + 1)
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)


def answering(special: dict[int, bytes]) -> Callable[[bytes, bytes, trio.SocketStream], Awaitable[bool]]:
    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        number = number_of(head)
        await stream.send_all(special.get(number) or plain(number))
        return b"Connection: close" not in special.get(number, b"")

    return answer


async def asked(
    client: HttpClient, server: Server, targets: list[bytes] = TARGETS, **options: object
) -> tuple[Collected, int, Pipeline]:
    pipeline = await client.pipeline(server.url, **{"limit": LIMIT, **options})  # type: ignore[arg-type]
    assert pipeline is not None
    collected = Collected()
    try:
        settled = await pipeline.get(targets, collected)
    finally:
        await pipeline.aclose()
    return collected, settled, pipeline


async def test_all_come_in_order_over_one_connection() -> None:
    async with serving(answering({})) as server, HttpClient() as client:
        collected, settled, _ = await asked(client, server, headers={"X-Own": "yes"})
        assert settled == 300
        assert list(collected.contents) == list(range(300))
        assert collected.contents[17] == b"17;" * 18
        assert server.connections == 1
        assert all(b"X-Own: yes" in head and b"\r\nHost: 127.0.0.1:" in head for head in server.heads)


async def test_the_first_answer_is_waited_for_and_what_is_ahead_is_bounded() -> None:
    gate, received = trio.Event(), b""

    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        nonlocal received
        if number_of(head) == 0:
            with trio.move_on_after(0.05):
                received += await stream.receive_some()
            assert not received, "more was asked for before the first answer"
        if number_of(head) == 1:
            await gate.wait()
        await stream.send_all(plain(number_of(head)))
        return True

    async with serving(answer) as server, HttpClient() as client, trio.open_nursery() as nursery:
        nursery.start_soon(asked, client, server)
        await trio.testing.wait_all_tasks_blocked(0.1)
        gate.set()
    assert len(server.heads) == 300
    assert len(b"".join(server.heads[:20])) < AHEAD


async def test_a_connection_that_ends_is_told() -> None:
    async with serving(answering({9: plain(9, b"Connection: close\r\n")})) as server, HttpClient() as client:
        collected, settled, pipeline = await asked(client, server)
        assert settled == len(collected.contents) == 10
        assert pipeline.closed


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-0/9\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_other_answers_are_passed_over(answer: bytes) -> None:
    async with serving(answering({5: answer})) as server, HttpClient() as client:
        collected, settled, _ = await asked(client, server)
        assert settled == 300
        assert sorted(set(range(300)) - set(collected.contents)) == [5]
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nup to the end",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n folded\r\n\r\nx",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
        b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % (MAX_SKIPPED + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_past_ends_the_connection(answer: bytes) -> None:
    async with serving(answering({5: answer})) as server, HttpClient() as client:
        collected, settled, pipeline = await asked(client, server)
        assert settled == 6
        assert list(collected.contents) == [0, 1, 2, 3, 4]
        assert pipeline.closed


async def test_large_ones_are_told_and_not_received() -> None:
    async with serving(answering({5: plain(1000)})) as server, HttpClient() as client:
        collected, settled, pipeline = await asked(client, server)
        assert (collected.large_ones, settled, pipeline.closed) == ([5], 6, True)


async def test_bytes_that_nobody_asked_for() -> None:
    async with serving(answering({2: plain(2) + b"more"})) as server, HttpClient() as client:
        collected, settled, pipeline = await asked(client, server, TARGETS[:3])
        assert (len(collected.contents), settled, pipeline.closed) == (3, 3, True)


@pytest.mark.parametrize("first", [0, 3])
async def test_a_hangup_before_and_after_something_came(first: int) -> None:
    cut = plain(first)[:-1] + b""

    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        number = number_of(head)
        await stream.send_all(cut if number == first else plain(number))
        return number != first

    async with serving(answer) as server, HttpClient() as client:
        if first:
            collected, settled, _ = await asked(client, server)
            assert settled == len(collected.contents) == first
        else:
            with pytest.raises(HttpError):
                await asked(client, server)


async def test_silence() -> None:
    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        await trio.sleep_forever()
        return True

    async with serving(answer) as server, HttpClient() as client:
        with pytest.raises(HttpTimeout):
            await asked(client, server, read_timeout=0.02)


async def test_cancellation_closes_the_connection() -> None:
    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        await trio.sleep_forever()
        return True

    async with serving(answer) as server, HttpClient() as client:
        pipeline = await client.pipeline(server.url, limit=LIMIT)
        assert pipeline is not None
        with trio.move_on_after(0.02):
            await pipeline.get(TARGETS, Collected())
        assert pipeline.closed


async def test_what_no_pipeline_can_be_had_for() -> None:
    def forbid(address: str) -> None:
        raise SourceError(f"{address} is forbidden")

    async with serving(answering({})) as server:
        async with HttpClient(connect_check=forbid) as client:
            with pytest.raises(SourceError, match="forbidden"):
                await client.pipeline(server.url, limit=LIMIT)
        async with HttpClient(proxy=server.url) as client:
            assert await client.pipeline("http://elsewhere/", limit=LIMIT) is None
        async with HttpClient() as client:
            with pytest.raises(InvalidRequest):
                await client.pipeline(server.url, headers={"X": "a\r\nY: b"}, limit=LIMIT)
            with pytest.raises(HttpConnectError):
                await client.pipeline("http://127.0.0.1:1/", limit=LIMIT)
    assert server.connections == 0


ANSWERS = st.lists(
    st.sampled_from(
        [
            plain(3),
            b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
            b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n",
            b"HTTP/1.1 ",
            b"Content-Length: 5\r\n",
            b"\r\n\r\n",
        ]
    )
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)


@given(ANSWERS, st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_answers_are_cut_the_same_wherever_they_are_torn(stream: bytes, sizes: list[int]) -> None:
    def taken(cuts: list[int]) -> tuple[dict[int, bytes], int, bool]:
        collected = Collected()
        exchange = _Exchange(bytearray(200_000), 6, LIMIT, collected)
        rest = stream
        while rest and not exchange.over and exchange.settled < 6:
            part, rest = rest[: cuts[0]], rest[cuts[0] :]
            cuts = cuts[1:] + cuts[:1]
            exchange.room()[: len(part)] = part
            exchange.take(len(part))
        return collected.contents, exchange.settled, exchange.over

    whole, torn = taken([len(stream) or 1]), taken(sizes)
    assert torn[:2] == whole[:2]
