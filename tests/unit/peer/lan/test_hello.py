"""Who answers, over real connections: what is believed, and what strangers may cost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from peer.lan.addresses import is_address
from peer.lan.hello import (
    MAX_HELLO,
    HelloRefused,
    add_hello,
    ask_hello,
    is_id,
    parse_hello,
    shown,
)
from shared.http.client import HttpClient
from shared.http.limits import ServerLimits
from shared.http.listeners import bound_address, listen_tcp
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.protocol import Hello

GOOD = Hello(id="a1", instance="i1", role="seeder", name="machine", schedules=True, tasks=3, held=1 << 40)
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def stranger(handler: Handler) -> AsyncIterator[str]:
    """A server that does whatever the handler does with a connection; gives its address."""
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            try:
                async with stream:
                    await handler(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        try:
            yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        finally:
            nursery.cancel_scope.cancel()


def says(data: bytes) -> Handler:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data)

    return handler


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def body_of(**changes: object) -> bytes:
    told: dict[str, object] = {"type": "hello", "id": "a1", "instance": "i1", "role": "peer"}
    return json.dumps(told | changes).encode()


async def refusal(handler: Handler, timeout: float = 5.0) -> HelloRefused:
    async with stranger(handler) as address, HttpClient() as client:
        with pytest.raises(HelloRefused) as caught:
            await ask_hello(client, address, timeout)
    return caught.value


async def test_what_is_told_arrives() -> None:
    router = Router()
    add_hello(router, lambda _caller: GOOD)
    async with trio.open_nursery() as nursery, HttpClient() as client:
        listeners = await listen_tcp("127.0.0.1:0")
        await nursery.start(HttpServer(router, limits=ServerLimits()).serve, listeners)
        hello, rtt = await ask_hello(client, bound_address(listeners[0]))
        nursery.cancel_scope.cancel()
    assert hello == GOOD
    assert 0 < rtt < 60


async def test_nobody_there() -> None:
    async with HttpClient() as client:
        with pytest.raises(HelloRefused) as caught:
            await ask_hello(client, "127.0.0.1:1")
    assert caught.value.reason == "unreachable"


async def test_who_hangs_up_is_not_there() -> None:
    assert (await refusal(says(b""))).reason == "unreachable"


async def test_silence_ends() -> None:
    async def silent(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    assert (await refusal(silent, 0.05)).reason == "unreachable"


async def test_an_answer_that_trickles_ends() -> None:
    async def trickle(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.01)

    assert (await refusal(trickle, 0.1)).reason == "unreachable"


async def test_megabytes_are_not_read() -> None:
    sent = 0

    async def much(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    assert (await refusal(much)).reason == "malformed"
    assert sent < 64 << 20


async def test_a_redirection_is_not_followed() -> None:
    asked = 0

    async def elsewhere(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked += 1
        await stream.receive_some()
        await stream.send_all(answer(b"", "302 Found", "Location: /v1/other\r\nConnection: close\r\n"))

    assert (await refusal(elsewhere)).reason == "malformed"
    assert asked == 1


@pytest.mark.parametrize(
    "data",
    [
        answer(b"<html><body>It works!</body></html>"),
        answer(b""),
        answer(b"null"),
        answer(b"[]"),
        answer(b'"hello"'),
        answer(b"[" * (MAX_HELLO - 1)),
        answer(b'{"a":' * 600),
        answer(b"\xff\xfe\x00"),
        answer(b'{"type":"hello","id":"\xff","instance":"i","role":"peer"}'),
        answer(body_of(), "404 Not Found"),
        answer(body_of(), "500 Oh"),
        answer(body_of(name="x" * MAX_HELLO)),
        answer(body_of(type="lease")),
        answer(body_of(id=7)),
        answer(body_of(id="")),
        answer(body_of(id="a b")),
        answer(body_of(id="a\n")),
        answer(body_of(id="\x1b[31m")),
        answer(body_of(id="../../x")),
        answer(body_of(id="a" * 65)),
        answer(body_of(id="configured")),
        answer(body_of(instance="")),
        answer(body_of(instance="ä")),
        answer(body_of(role="king")),
        answer(body_of(role=None)),
        answer(body_of(schedules="yes")),
        answer(body_of(started="now")),
        answer(body_of(version="1")),
        answer(body_of(tasks=1.5)),
        answer(b'{"id":"a","instance":"i","role":"peer","started":1e999}'),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\nnine",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_hello_is_malformed(data: bytes) -> None:
    refused = await refusal(says(data))
    assert refused.reason == "malformed"
    assert str(refused).isprintable()
    assert len(str(refused)) < 400


def test_what_is_shown_is_cut_and_printable() -> None:
    hello = parse_hello(
        body_of(name="a\x1b[2J\n" + "b" * 999, location="\u202eevil", release="\x00", tasks=-5)
    )
    assert hello.name == "a?[2J?" + "b" * 194
    assert hello.location == "?evil"
    assert hello.release == "?"
    assert hello.tasks == 0


def test_numbers_are_bounded() -> None:
    assert parse_hello(body_of(held=10**30)).held < 1 << 63


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:65002", "host.example:1", "[::1]:80", "[fe80::1%eth0]:65002", "[::ffff:1.2.3.4]:9", "a_b-c:1"],
)
def test_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.1",
        ":80",
        "*:80",
        "::1:80",
        "[::1]",
        "[x]:1",
        "a:0",
        "a:65536",
        "a:1\n",
        "a b:1",
        "user@a:1",
        "a/b:1",
        "a#:1",
        "[fe80::1%a/b]:1",
        "a:1/x",
        "-a:1",
        "a" * 300 + ":1",
        "ä:1",
    ],
)
async def test_what_is_no_address_is_not_asked(address: str) -> None:
    assert not is_address(address)
    async with HttpClient() as client:
        with pytest.raises(HelloRefused):
            await ask_hello(client, address)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_or_refused(data: bytes) -> None:
    try:
        hello = parse_hello(data)
    except ValueError:
        return
    assert is_id(hello.id)


@given(st.text(max_size=400))
def test_any_text_is_fit_to_be_shown(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 200
