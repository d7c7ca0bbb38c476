"""One connection: requests in, responses out, over in-memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h11
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import TaskNotFound, Unavailable
from shared.http.errors import ClientGone, RequestTimeout
from shared.http.messages import FileBody, Request, Response
from shared.http.server import HttpServer, ServerLimits
from tests.unit.shared.http.wires import exchange, parse, read_all, serving

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def hello(request: Request) -> Response:
    return Response.text(f"{request.method} {request.path}")


async def echo(request: Request) -> Response:
    return Response(200, await request.body())


def message(body: bytes) -> str:
    return str(msgspec.json.decode(body)["error"]["message"])


# --- the connection's life ----------------------------------------------------------------------


async def test_a_request_is_answered() -> None:
    [(status, headers, body)] = parse(await exchange(hello, GET), "GET")
    assert (status, body) == (200, b"GET /")
    assert headers["content-length"] == "5"
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["date"].endswith("GMT")
    assert "connection" not in headers


async def test_pipelined_requests_are_answered_in_order() -> None:
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(50))
    answers = parse(await exchange(hello, data), *["GET"] * 50)
    assert [body for _, _, body in answers] == [b"GET /%d" % n for n in range(50)]


async def test_requests_may_come_byte_by_byte_after_empty_lines() -> None:
    async with serving(hello) as client:
        for byte in b"\r\n\r\n" + LAST:
            await client.send_all(bytes([byte]))
        assert parse(await read_all(client), "GET")[0][2] == b"GET /"


async def test_the_connection_is_kept_unless_told_otherwise() -> None:
    server = HttpServer(hello)
    async with serving(server) as client:
        for _ in range(3):
            await client.send_all(GET)
            await trio.testing.wait_all_tasks_blocked()
            assert b"GET /" in await client.receive_some()
        await client.send_all(LAST)
        assert b"connection: close" in await read_all(client)
    assert server.statistics().requests == 4
    assert server.statistics().responses == (0, 4, 0, 0, 0)
    assert server.statistics().connections == 0


async def test_http_1_0_gets_a_close_and_no_chunks() -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return Response(200, chunks())

    async with serving(stream) as client:
        await client.send_all(b"GET / HTTP/1.0\r\n\r\n")
        data = await read_all(client)
    assert b"transfer-encoding" not in data
    assert b"connection: close" in data
    assert data.endswith(b"\r\n\r\nab")


async def test_head_has_the_length_and_no_body() -> None:
    data = await exchange(hello, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    [(_, headers, body), (_, _, second)] = parse(data, "HEAD", "GET")
    assert (headers["content-length"], body, second) == ("6", b"", b"GET /")


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status: int) -> None:
    async def handler(request: Request) -> Response:
        return Response(status, b"not to be sent")

    data = await exchange(handler, GET + GET)
    assert [answer[0] for answer in parse(data, "GET", "GET")] == [status, status]
    assert b"not to be sent" not in data


async def test_an_idle_connection_is_closed_silently(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(hello, ServerLimits(idle_timeout=20)) as client:
        assert await read_all(client) == b""
        assert 20 <= trio.current_time() <= 22


async def test_slow_headers_are_answered_408(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(hello, ServerLimits(header_timeout=5)) as client:
        await client.send_all(b"GET / HTTP/1.1\r\n")
        for _ in range(4):
            await trio.sleep(1)
            await client.send_all(b"x")  # drip by drip does not help
        [(status, headers, _)] = parse(await read_all(client), "GET")
        assert (status, headers["connection"]) == (408, "close")
        assert trio.current_time() <= 9


async def test_a_long_handler_is_not_timed_out(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(request: Request) -> Response:
        await trio.sleep(10_000)
        return Response.text("late")

    assert parse(await exchange(slow, GET), "GET")[0][2] == b"late"


# --- malformed input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.7\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000, 414),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"a" * 100_000, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost", 400),
    ],
)
async def test_malformed_requests_get_their_status(data: bytes, status: int) -> None:
    server = HttpServer(hello)
    [(got, headers, body)] = parse(await exchange(server, data), "GET")
    assert (got, headers["connection"]) == (status, "close")
    assert message(body)
    assert server.statistics().malformed == 1


async def test_a_refused_head_request_has_no_body() -> None:
    data = await exchange(hello, b"HEAD / HTTP/2.0\r\nHost: h\r\n\r\n")
    assert data.endswith(b"\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 505 ")


async def test_good_requests_before_a_bad_one_are_answered() -> None:
    data = await exchange(hello, GET + b"garbage\r\n\r\n")
    assert [answer[0] for answer in parse(data, "GET", "GET")] == [200, 400]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"POST / HTTP/1.1\r\nHost: h\r\n",
                    b"HEAD /x HTTP/1.1\r\nHost: h\r\n",
                    b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n",
                    b"Host: h\r\n",
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Expect: 100-continue\r\n",
                    b"Upgrade: x\r\nConnection: upgrade\r\n",
                    b"Connection: close\r\n",
                    b"\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"abc",
                ]
            ),
        ),
        max_size=12,
    )
)
async def test_any_bytes_are_answered_or_closed(parts: list[bytes]) -> None:
    errors: list[Exception] = []

    def on_error(request: Request, error: Exception) -> None:
        errors.append(error)

    server = HttpServer(echo, on_error=on_error)
    data = await exchange(server, b"".join(parts))
    assert data == b"" or data.startswith(b"HTTP/1.1 ")
    assert server.statistics().responses[4] == data.count(b"HTTP/1.1 501 ") + data.count(b"HTTP/1.1 505 ")
    assert all(getattr(error, "status", 500) < 500 for error in errors)
    assert server.statistics().connections == server.statistics().active_requests == 0


# --- request bodies -----------------------------------------------------------------------------


async def test_bodies_of_both_framings() -> None:
    data = (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\n\r\n"
    )
    assert [answer[2] for answer in parse(await exchange(echo, data), "POST", "POST")] == [b"abc", b"def"]


async def test_a_body_is_streamed() -> None:
    async def handler(request: Request) -> Response:
        return Response.text(str(sum([len(chunk) async for chunk in request.stream()])))

    big = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000)
    assert parse(await exchange(handler, big), "POST")[0][2] == b"3000000"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1e8480\r\n"]
)
async def test_a_long_body_is_refused(framing: bytes) -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + bytes(2_000_000) + b"\r\n0\r\n\r\n" + GET
    [(status, headers, _)] = parse(await exchange(echo, data), "POST")
    assert (status, headers["connection"]) == (413, "close")


async def test_a_short_body_that_nobody_reads_is_dropped() -> None:
    data = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n" + bytes(70_000) + GET
    assert [answer[2] for answer in parse(await exchange(hello, data), "POST", "GET")] == [
        b"POST /x",
        b"GET /",
    ]


async def test_a_cut_body_is_the_clients_fault() -> None:
    errors: list[Exception] = []

    def on_error(request: Request, error: Exception) -> None:
        errors.append(error)

    server = HttpServer(echo, on_error=on_error)
    data = await exchange(server, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
    assert parse(data, "POST")[0][0] == 400
    assert isinstance(errors[0], ClientGone)


async def test_a_stalled_body_times_out(autojump_clock: trio.testing.MockClock) -> None:
    errors: list[Exception] = []

    def on_error(request: Request, error: Exception) -> None:
        errors.append(error)

    async with serving(HttpServer(echo, limits=ServerLimits(body_timeout=7), on_error=on_error)) as client:
        await client.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
        assert parse(await read_all(client), "POST")[0][0] == 408
    assert isinstance(errors[0], RequestTimeout)


async def test_100_continue_is_said_when_the_body_is_wanted() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(echo) as client:
        await client.send_all(head)
        assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send_all(b"abc")
        await client.send_eof()
        assert parse(await read_all(client), "POST")[0][2] == b"abc"


async def test_an_unwanted_body_is_not_asked_for() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(hello) as client:
        await client.send_all(head)
        data = await read_all(client)
    assert b"100 Continue" not in data
    assert parse(data, "POST")[0][1]["connection"] == "close"


# --- handlers' errors ---------------------------------------------------------------------------


async def test_own_errors_have_their_status() -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/group":
            raise ExceptionGroup("g", [TaskNotFound("no such task")])
        error = Unavailable("come back later")
        error.retry_after = 1.2
        raise error

    data = await exchange(handler, GET + b"GET /group HTTP/1.1\r\nHost: h\r\n\r\n")
    [(status, headers, body), (second, _, _)] = parse(data, "GET", "GET")
    assert (status, second, headers["retry-after"]) == (503, 404, "2")
    assert message(body) == "come back later"


async def test_a_bug_is_a_500_that_tells_nothing() -> None:
    async def handler(request: Request) -> Response:
        raise ValueError("internal detail")

    data = await exchange(handler, GET + GET)
    assert [answer[0] for answer in parse(data, "GET", "GET")] == [500, 500]
    assert b"internal detail" not in data


async def test_what_is_not_a_response_is_a_bug() -> None:
    async def handler(request: Request) -> Response:
        return None  # type: ignore[return-value]

    assert parse(await exchange(handler, GET), "GET")[0][0] == 500


async def test_error_answers_may_have_another_form() -> None:
    def on_error(request: Request, error: Exception) -> Response | None:
        if request.path == "/own":
            return Response.text("in my own words", 418)
        raise RuntimeError("this fails too")

    async def handler(request: Request) -> Response:
        raise TaskNotFound("no such task")

    data = await exchange(
        HttpServer(handler, on_error=on_error), b"GET /own HTTP/1.1\r\nHost: h\r\n\r\n" + GET
    )
    assert [answer[0] for answer in parse(data, "GET", "GET")] == [418, 404]


@pytest.mark.parametrize(
    "response",
    [
        Response(headers=[("a", "b\r\nc: d")]),
        Response(headers=[("content-length", "5")], body=b"abc"),
        Response(199),
        Response(body=FileBody("/nowhere/at/all")),
        Response(body=memoryview(bytes(8)).cast("I")),
        Response(200, upgrade=trio.abc.AsyncResource.aclose),
    ],
)
async def test_a_response_that_cannot_be_sent_is_an_error(response: Response) -> None:
    async def handler(request: Request) -> Response:
        return response

    assert parse(await exchange(handler, GET), "GET")[0][0] in (500, 501)


# --- response bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
async def test_buffers_and_files_arrive_whole(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    path = tmp_path / "f"
    path.write_bytes(b"head" + content + b"tail")
    released: list[str] = []

    async def handler(request: Request) -> Response:
        body = {
            "/bytes": content,
            "/view": memoryview(content),
            "/file": FileBody(path, 4, size),
        }[request.path]
        return Response(200, body, release=lambda: released.append(request.path))

    data = b"".join(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % p for p in (b"/bytes", b"/view", b"/file"))
    answers = parse(await exchange(handler, data), *["GET"] * 3)
    assert [answer[2] == content for answer in answers] == [True] * 3
    assert released == ["/bytes", "/view", "/file"]


@pytest.mark.parametrize("kind", [bytes, memoryview])
async def test_iterators_are_chunked_or_have_a_length(kind: Callable[[bytes], bytes]) -> None:
    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield kind(b"abc")
            yield kind(b"")
            yield kind(bytes(70_000))

        return Response(200, chunks(), length=70_003 if request.path == "/length" else None)

    data = await exchange(
        handler, GET + b"GET /length HTTP/1.1\r\nHost: h\r\n\r\n" + b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    [(_, chunked, first), (_, known, second), (_, bare, third)] = parse(data, "GET", "GET", "HEAD")
    assert chunked["transfer-encoding"] == bare["transfer-encoding"] == "chunked"
    assert known["content-length"] == "70003"
    assert first == second == b"abc" + bytes(70_000)
    assert third == b""


@pytest.mark.parametrize("how", ["short", "long", "own error", "bug"])
async def test_a_body_that_breaks_off_is_not_taken_for_complete(how: str) -> None:
    closed: list[str] = []

    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"abc"
                if how == "long":
                    yield b"too much"
                if how == "own error":
                    raise Unavailable("the source is gone")
                if how == "bug":
                    raise ValueError
            finally:
                closed.append(how)

        return Response(200, chunks(), length=None if how in ("own error", "bug") else 5)

    data = await exchange(handler, GET + GET)
    with pytest.raises(h11.RemoteProtocolError):
        parse(data, "GET")
    assert b"abc" in data
    assert closed == [how]


@pytest.mark.parametrize("endless", [True, False])
async def test_hanging_up_closes_the_iterator_and_releases(
    endless: bool, autojump_clock: trio.testing.MockClock
) -> None:
    steps: list[str] = []
    over = trio.Event()

    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await trio.sleep_forever()
            finally:
                steps.append("closed")

        def release() -> None:
            steps.append("released")
            over.set()

        return Response(200, chunks(), release=release, endless=endless)

    async with serving(handler) as client:
        await client.send_all(GET)
        while b"first" not in await client.receive_some():
            pass
        await client.aclose()
        await over.wait()
        assert trio.current_time() == (0 if endless else 2)
    assert steps == ["closed", "released"]


async def test_requests_sent_during_a_stream_wait_for_their_turn() -> None:
    go = trio.Event()

    async def handler(request: Request) -> Response:
        if request.path != "/":
            return Response.text("second")

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            await go.wait()
            yield b"b"

        return Response(200, chunks())

    async with serving(handler) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        answers = parse(await read_all(client), "GET", "GET")
    assert [answer[2] for answer in answers] == [b"ab", b"second"]


async def test_a_handler_may_watch_for_the_hangup() -> None:
    seen = trio.Event()

    async def handler(request: Request) -> Response:
        await request.hangup()
        seen.set()
        return Response.text("nobody hears this")

    async with serving(handler) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await seen.wait()


async def test_an_unread_iterator_is_closed_for_head() -> None:
    class Chunks:
        closed = 0

        def __aiter__(self) -> Chunks:
            return self

        async def __anext__(self) -> bytes:
            raise AssertionError("HEAD has no body")

        async def aclose(self) -> None:
            self.closed += 1

    chunks = Chunks()

    async def handler(request: Request) -> Response:
        return Response(200, chunks)

    await exchange(handler, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert chunks.closed == 1


# --- other protocols ----------------------------------------------------------------------------


async def test_connect_hands_the_stream_over() -> None:
    async def tunnel(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some(3) == b"ear"
        assert await stream.receive_some() == b"ly"
        while data := await stream.receive_some():
            await stream.send_all(data.upper())

    async def handler(request: Request) -> Response:
        assert request.target == "host:443"
        return Response(200, upgrade=tunnel)

    async with serving(handler) as client:
        await client.send_all(b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\nearly")
        head = await client.receive_some()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length" not in head
        await client.send_all(b"abc")
        assert await client.receive_some() == b"ABC"
        await client.send_eof()
        assert await read_all(client) == b""


async def test_101_hands_the_stream_over() -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hi")

    async def handler(request: Request) -> Response:
        return Response(101, headers=[("upgrade", "talk")], upgrade=talk)

    async with serving(handler) as client:
        await client.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n")
        data = await read_all(client)
    assert data.startswith(b"HTTP/1.1 101 ")
    assert data.endswith(b"\r\n\r\nhi")


async def test_connect_may_be_refused_and_the_connection_kept() -> None:
    data = await exchange(_refusing, b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n" + GET)
    assert [answer[0] for answer in parse(data, "GET", "GET")] == [403, 403]


async def _refusing(request: Request) -> Response:
    return Response.text("no", 403)


async def test_an_upgrade_that_is_not_taken_up_is_a_plain_request() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    assert [answer[0] for answer in parse(await exchange(hello, upgrade + GET), "GET", "GET")] == [200, 200]


# --- the server's end ---------------------------------------------------------------------------


async def test_draining_ends_endless_streams_cleanly() -> None:
    async def handler(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await trio.sleep_forever()

        return Response(200, chunks(), endless=True)

    server = HttpServer(handler)
    async with serving(server) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(10)
        assert parse(await read_all(client), "GET")[0][2] == b"one"


async def test_draining_waits_for_responses_and_closes_idle_connections(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(request: Request) -> Response:
        await trio.sleep(5)
        return Response.text("done")

    server = HttpServer(slow)
    async with serving(server) as busy, serving(server) as idle, trio.open_nursery() as nursery:
        await busy.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().idle == 1
        nursery.start_soon(server.drain, 60)
        assert await read_all(idle) == b""
        [(_, headers, body)] = parse(await read_all(busy), "GET")
    assert (headers["connection"], body) == ("close", b"done")


async def test_draining_cancels_what_lasts_too_long(autojump_clock: trio.testing.MockClock) -> None:
    cancelled: list[int] = []

    async def stuck(request: Request) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(1)
        raise AssertionError

    server = HttpServer(stuck)
    async with serving(server) as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(3)
        assert trio.current_time() >= 3
        assert await read_all(client) == b""
    assert cancelled == [1]
    async with serving(server) as late:
        assert await read_all(late) == b""
    assert server.statistics().refused == 1


async def test_a_body_that_drips_is_not_waited_for_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    server = HttpServer(echo_length, limits=ServerLimits(body_timeout=10.0))
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        answer = b""
        for _ in range(100):
            await ours.send_all(b"x")
            with trio.move_on_after(1.0):
                answer = await ours.receive_some()
                break
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 10.0 <= trio.current_time() <= 13.0
        nursery.cancel_scope.cancel()


async def echo_length(request: Request) -> Response:
    return Response.text(str(len(await request.body())))
