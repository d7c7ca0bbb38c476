from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DragonetError, ParentBusy, ParentGone, ParentStalled, PieceCorrupt, PieceMissing
from shared.swarm.transfer import GATHER, MAX_HEAD, MAX_WORDS, PieceConnection, connect_tcp, parse_head
from tests.unit.shared.swarm.fakes import answer, random_bytes

TASK = "a" * 64
Streams = tuple[PieceConnection, trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


def streams() -> Streams:
    ours, theirs = trio.testing.memory_stream_pair()
    return PieceConnection(ours, "parent:1"), theirs.send_stream, theirs.receive_stream


async def receive(connection: PieceConnection) -> bytes:
    buffer = bytearray(await connection.head())
    await connection.body(memoryview(buffer))
    return bytes(buffer)


async def asked(data: bytes, *, end: bool = False) -> PieceConnection:
    """A connection with one request out and ``data`` come in."""
    connection, send, _ = streams()
    await connection.request(TASK, 3, "v1")
    await send.send_all(data)
    if end:
        await send.aclose()
    return connection


async def test_a_request_names_task_piece_and_version() -> None:
    connection, _, requests = streams()
    await connection.request(TASK, 7, "v1")
    assert bytes(await requests.receive_some()) == (
        f"GET /v1/tasks/{TASK}/pieces/7 HTTP/1.1\r\nHost: parent:1\r\nDragonet-Version: v1\r\n\r\n".encode()
    )
    assert connection.outstanding == 1


async def test_a_request_shows_the_key_of_its_task() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await PieceConnection(ours, "parent:1", "abc").request(TASK, 7, "v1")
    asked = bytes(await theirs.receive_some())
    assert asked.endswith(b"\r\nDragonet-Version: v1\r\nDragonet-Key: abc\r\n\r\n")


async def test_pipelined_pieces_come_in_order_however_they_are_cut() -> None:
    pieces = [random_bytes(length, length) for length in (0, 1, 5000, 3 * MAX_HEAD, 17)]
    stream = b"".join(answer(200, piece) for piece in pieces)
    for size in (1, 7, 4096, len(stream)):
        connection, send, _ = streams()
        for number in range(len(pieces)):
            await connection.request(TASK, number, "v1")

        async def feed(send: trio.testing.MemorySendStream, size: int) -> None:
            for start in range(0, len(stream), size):
                await send.send_all(stream[start : start + size])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, send, size)
            assert [await receive(connection) for _ in pieces] == pieces
        assert connection.outstanding == 0


@pytest.mark.parametrize("status", [404, 409, 410])
async def test_what_is_not_held_is_missing_and_the_connection_goes_on(status: int) -> None:
    connection = await asked(answer(status, b"words") + answer(200, b"piece"))
    await connection.request(TASK, 4, "v1")
    with pytest.raises(PieceMissing, match="piece 3"):
        await connection.head()
    assert await receive(connection) == b"piece"


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ((), 0.25),
        (("Retry-After: 2",), 2.0),
        (("Retry-After: -5",), 0.0),
        (("Retry-After: nan",), 1.0),
        (("Retry-After: 1e999",), 1.0),
        (("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), 0.25),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_parent_says_when_to_come_back(
    status: int, fields: tuple[str, ...], wait: float
) -> None:
    connection = await asked(answer(status, b"", *fields) + answer(200, b"piece"))
    await connection.request(TASK, 4, "v1")
    with pytest.raises(ParentBusy) as caught:
        await connection.head()
    assert caught.value.retry_after == wait
    assert await receive(connection) == b"piece"


@pytest.mark.parametrize(
    "data",
    [
        answer(500),
        answer(302, b"", "Location: /"),
        answer(200, b"x", "Dragonet-Version: v2"),
        answer(200, b"x", "Transfer-Encoding: chunked"),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % (MAX_WORDS + 1),
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"\r\n\r\n",
        b"x" * (MAX_HEAD + 1),
    ],
)
async def test_an_answer_that_is_not_our_protocol_ends_the_connection(data: bytes) -> None:
    connection = await asked(data)
    with pytest.raises(ParentGone):
        await connection.head()


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nwor"]
)
async def test_hanging_up_before_the_answer_ends_the_connection(data: bytes) -> None:
    connection = await asked(data, end=True)
    with pytest.raises(ParentGone, match="hung up"):
        await connection.head()


async def test_a_body_that_is_cut_ends_the_connection() -> None:
    connection = await asked(answer(200, b"0123456789")[:-4], end=True)
    with pytest.raises(ParentGone, match="4 bytes before the end of piece 3"):
        await receive(connection)


async def test_a_piece_of_another_length_is_corrupt() -> None:
    connection = await asked(answer(200, b"0123456789"))
    await connection.head()
    with pytest.raises(PieceCorrupt, match="10 bytes for piece 3, which has 9"):
        await connection.body(memoryview(bytearray(9)))


async def test_a_broken_connection_is_a_parent_gone() -> None:
    connection, send, requests = streams()
    await send.aclose()
    await requests.aclose()
    with pytest.raises(ParentGone):
        await connection.request(TASK, 1, "v1")
    await connection.aclose()
    with pytest.raises(ParentGone):
        await connection.request(TASK, 1, "v1")


async def test_a_cancelled_receive_can_be_closed(autojump_clock: trio.testing.MockClock) -> None:
    connection = await asked(answer(200, b"0123456789")[:-4])
    with trio.move_on_after(1) as scope:
        await receive(connection)
    assert scope.cancelled_caught
    await connection.aclose()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:x", "nowhere", "\0:1", ":"])
async def test_what_cannot_be_connected_to_is_gone(address: str) -> None:
    with pytest.raises((ParentGone, ParentStalled)):
        await connect_tcp(address)


async def test_a_socket_is_received_from_without_copies() -> None:
    piece = random_bytes(300_000)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer(200, piece))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        connection = PieceConnection(await connect_tcp(f"127.0.0.1:{port}"), "parent")
        await connection.request(TASK, 0, "v1")
        assert await receive(connection) == piece
        await connection.aclose()
        nursery.cancel_scope.cancel()


async def received_from_socket(data: bytes, requests: int) -> list[bytes | str]:
    """What comes of so many requests when a parent answers ``data``, in portions, and hangs up."""
    got: list[bytes | str] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            for start in range(0, len(data), 50_000):
                await stream.send_all(data[start : start + 50_000])
            await stream.send_eof()
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        connection = PieceConnection(await connect_tcp(f"127.0.0.1:{port}"), "parent")
        for number in range(requests):
            await connection.request(TASK, number, "v1")
            try:
                with trio.fail_after(10):
                    got.append(await receive(connection))
            except DragonetError as error:
                got.append(type(error).__name__)
        await connection.aclose()
        nursery.cancel_scope.cancel()
    return got


async def test_a_short_answer_after_a_long_piece_is_not_waited_for_in_vain() -> None:
    answers = [
        answer(200, bytes(2 * GATHER)),
        answer(404, b"no"),
        answer(200, bytes(GATHER)),
        answer(200, b"x"),
    ]

    async def serve(stream: trio.SocketStream) -> None:
        for each in answers:
            assert await stream.receive_some()
            await stream.send_all(each)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        connection = PieceConnection(await connect_tcp(f"127.0.0.1:{port}"), "parent")
        lengths: list[int] = []
        with trio.fail_after(10):
            for number in range(len(answers)):
                await connection.request(TASK, number, "v1")
                try:
                    lengths.append(len(await receive(connection)))
                except PieceMissing:
                    lengths.append(-1)
        assert lengths == [2 * GATHER, -1, GATHER, 1]
        await connection.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("missing", [1, GATHER - 1, GATHER, GATHER + 1])
async def test_a_socket_that_ends_in_mid_piece_is_heard_of(missing: int) -> None:
    data = answer(200, random_bytes(2 * GATHER))[:-missing]
    assert await received_from_socket(data, 1) == ["ParentGone"]


async def test_receiving_from_a_socket_can_be_cancelled() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(answer(200, bytes(GATHER))[:-1])
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        connection = PieceConnection(await connect_tcp(f"127.0.0.1:{port}"), "parent")
        await connection.request(TASK, 0, "v1")
        await connection.head()
        async with trio.open_nursery() as receiving:
            receiving.start_soon(connection.body, memoryview(bytearray(GATHER)))
            await trio.testing.wait_all_tasks_blocked()
            receiving.cancel_scope.cancel()
        await connection.aclose()
        with pytest.raises(ParentGone):
            await connection.request(TASK, 1, "v1")
        nursery.cancel_scope.cancel()


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
def test_any_head_is_read_or_refused(head: bytes) -> None:
    try:
        status, fields = parse_head(head)
    except ParentGone:
        return
    assert 0 <= status <= 999
    assert all(name == name.lower() for name in fields)


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_any_answer_is_a_piece_or_a_named_error(data: bytes, tail: bytes) -> None:
    async def main() -> None:
        for stream in (data, b"HTTP/1.1 200 OK\r\n" + data, answer(200, data) + tail, answer(503, tail)):
            connection = await asked(stream, end=True)
            try:
                length = await connection.head()
                if length < 10_000:
                    await connection.body(memoryview(bytearray(length)))
            except DragonetError:
                pass

    trio.run(main)
