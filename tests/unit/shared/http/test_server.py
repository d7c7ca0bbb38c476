"""The server on real sockets: what memory streams cannot show."""

from __future__ import annotations

import array
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from shared.http.messages import FileBody, Handler, Request, Response
from shared.http.server import HttpServer, ServerLimits, bound_address, listen_tcp, listen_unix
from tests.unit.shared.http.wires import parse, read_all

GET = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CERTIFICATE = Path(__file__).with_name("localhost.pem")


@asynccontextmanager
async def running(
    handler: Handler, limits: ServerLimits | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(handler, limits=limits or ServerLimits())
    listeners = await listen_tcp("127.0.0.1:0")
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await server.serve(listeners, ssl_context=ssl_context, task_status=task_status)

        await nursery.start(serve)
        yield server, int(bound_address(listeners[0]).rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def ask(port: int, data: bytes = GET) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        return await read_all(stream)


async def read_until_reset(stream: trio.SocketStream) -> int:
    """The number of bytes before the connection breaks; fails when it ends in order instead."""
    received = 0
    try:
        while chunk := await stream.receive_some():
            received += len(chunk)
    except trio.BrokenResourceError:
        return received
    raise AssertionError("the response could be taken for complete")


async def hello(request: Request) -> Response:
    assert request.peer.startswith("127.0.0.1:")
    return Response.text("hello")


async def test_tcp() -> None:
    async with running(hello) as (server, port):
        assert parse(await ask(port), "GET")[0][2] == b"hello"
        assert server.statistics().accepted == 1


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
@pytest.mark.parametrize("kind", ["view", "file", "chunks", "views"])
async def test_bodies_larger_than_the_socket_buffer(kind: str, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(b"xy" + content)
    view = memoryview(bytearray(content))
    released: list[int] = []

    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, size, 1_000_000):
                yield content[start : start + 1_000_000]

        async def views() -> AsyncIterator[memoryview]:
            for start in range(0, size, 1_000_000):
                with view[start : start + 1_000_000] as part:  # would raise at its end, as below
                    yield part

        body = {"view": view, "file": FileBody(tmp_path / "f", 2), "chunks": chunks(), "views": views()}[kind]
        return Response(200, body, release=lambda: released.append(1))

    async with running(handler) as (_, port):
        answers = parse(await ask(port, GET.replace(b"Connection: close\r\n", b"") + GET), "GET", "GET")
    assert [answer[2] == content for answer in answers] == [True, True]
    assert released == [1, 1]
    view.release()  # would raise if the server still held a part of it


async def test_a_client_that_takes_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    over = trio.Event()

    async def handler(request: Request) -> Response:
        return Response(200, memoryview(bytes(50_000_000)), release=over.set)

    async with running(handler, ServerLimits(write_timeout=4)) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET)
            await over.wait()
            assert await read_until_reset(stream) < 50_000_000


async def test_cancelling_breaks_a_stalled_send_at_once() -> None:
    over = trio.Event()
    begun = trio.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        return Response(200, memoryview(bytes(50_000_000)), release=over.set)

    async with running(handler) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        await begun.wait()
    assert over.is_set()
    await stream.aclose()


async def test_a_file_that_shrinks_breaks_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(30_000_000))

    async def handler(request: Request) -> Response:
        return Response(200, FileBody(path))

    async with running(handler) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(GET)
            assert await stream.receive_some(1000)
            os.truncate(path, 20_000_000)
            assert await read_until_reset(stream) < 30_000_000


async def test_a_half_closed_client_gets_its_answer() -> None:
    async with running(hello) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(GET.replace(b"Connection: close\r\n", b""))
        await stream.send_eof()
        assert parse(await read_all(stream), "GET")[0][2] == b"hello"


async def test_a_refusal_survives_unread_input() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, await request.body(10))

    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n"
    async with running(handler) as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head + bytes(5_000_000))
        assert parse(await read_all(stream), "POST")[0][0] == 413


async def test_a_full_server_closes_idle_connections_first() -> None:
    async with running(hello, ServerLimits(max_connections=2)) as (server, port):
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in idle:
            await stream.send_all(GET.replace(b"Connection: close\r\n", b""))
            assert await stream.receive_some()
        assert parse(await ask(port), "GET")[0][0] == 200
        assert await read_all(idle[0]) == b""
        for stream in idle:
            await stream.aclose()
        assert server.statistics().refused == 0


async def test_a_full_and_busy_server_says_so() -> None:
    async def stuck(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with running(stuck, ServerLimits(max_connections=1)) as (server, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as busy:
            await busy.send_all(GET)
            while not server.statistics().active_requests:
                await trio.lowlevel.checkpoint()
            assert (await ask(port, b"")).startswith(b"HTTP/1.1 503 ")
        assert server.statistics().refused == 1


@pytest.mark.parametrize("admitted", [True, False])
async def test_callers_from_elsewhere_are_hung_up_on_unread(admitted: bool) -> None:
    asked: list[str] = []

    def admit(ip: str) -> bool:
        asked.append(ip)
        return admitted

    server = HttpServer(hello, admit=admit)
    listeners = await listen_tcp("127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        port = int(bound_address(listeners[0]).rpartition(":")[2])
        if admitted:
            assert parse(await ask(port), "GET")[0][0] == 200
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                assert await stream.receive_some() == b""
        assert asked == ["127.0.0.1"]
        now = server.statistics()
        assert (now.accepted, now.unwelcome, now.requests) == (
            int(admitted),
            int(not admitted),
            int(admitted),
        )
        nursery.cancel_scope.cancel()


async def test_callers_of_this_machine_are_admitted_on_a_unix_socket(tmp_path: Path) -> None:
    async def greet(request: Request) -> Response:
        return Response.text("hello")

    server = HttpServer(greet, admit=lambda ip: False)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [await listen_unix(tmp_path / "s")])
        async with await trio.open_unix_socket(tmp_path / "s") as stream:
            await stream.send_all(GET)
            assert parse(await read_all(stream), "GET")[0][0] == 200
        nursery.cancel_scope.cancel()


async def test_draining_stops_accepting_and_serve_returns() -> None:
    server = HttpServer(hello)
    listeners = await listen_tcp("127.0.0.1:0")
    port = int(bound_address(listeners[0]).rpartition(":")[2])
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        assert parse(await ask(port), "GET")[0][0] == 200
        await server.drain(5)
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_tls(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        assert request.tls
        assert request.peer.startswith("127.0.0.1:")
        return Response(200, FileBody(tmp_path / "f"))

    content = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    client = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with running(handler, ssl_context=context) as (server, port):
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=client, https_compatible=True
        ) as stream:
            await stream.send_all(GET)
            assert parse(await read_all(stream), "GET")[0][2] == content
        assert await ask(port, b"no handshake at all\r\n\r\n") is not None
        assert server.statistics().requests == 1


async def test_unix_sockets_bring_file_descriptors(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        assert request.peer == "unix"
        if request.path == "/left":
            return Response.text("left")
        taken = request.take_fds()
        for fd in taken:
            os.write(fd, b"written by the server")
            os.close(fd)
        return Response.text(str(len(taken)))

    server = HttpServer(handler)
    path = tmp_path / "s"
    listener = await listen_unix(path)
    assert bound_address(listener) == str(path)
    readable, writable = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        for target, expected in ((b"/", b"1"), (b"/left", b"left"), (b"/", b"1")):
            async with await trio.open_unix_socket(path) as stream:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writable]))
                await stream.socket.sendmsg([GET.replace(b"/", target, 1)], [rights])
                assert parse(await read_all(stream), "GET")[0][2] == expected
        await server.drain(1)
    assert os.read(readable, 100) == b"written by the server" * 2
    assert len(os.listdir("/proc/self/fd")) <= before
    os.close(readable)
    os.close(writable)
