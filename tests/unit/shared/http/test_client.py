from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from shared.errors import ConfigError, InvalidRequest, SourceError
from shared.http.client import (
    DIRECT_THRESHOLD,
    ClientStream,
    HttpClient,
    HttpConnectError,
    HttpConnectionLost,
    HttpError,
    HttpProtocolError,
    HttpTimeout,
)
from shared.offline import is_offline

Answer = Callable[[bytes, bytes, trio.SocketStream], Awaitable[bool]]


class Server:
    """Counts connections and gives each request (head, body) to ``answer``; False closes the connection."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    if not (data := await stream.receive_some()):
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                length = int(fields.get(b"content-length", b"0"))
                while len(buffer) < length:
                    buffer += await stream.receive_some()
                body, buffer = buffer[:length], buffer[length:]
                self.heads.append(head)
                self.bodies.append(body)
                if not await self.answer(head, body, stream):
                    return
        except trio.BrokenResourceError:
            return


@asynccontextmanager
async def serving(answer: Answer, socket_path: Path | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    async with trio.open_nursery() as nursery:
        if socket_path is None:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        else:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
            await sock.bind(str(socket_path))
            sock.listen()
            listeners = [trio.SocketListener(sock)]
            server.url = "http://dragonet"
        nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


async def hello(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Twice: a\r\nx-twice: b\r\n\r\nhello")
    return True


def sending(data: bytes, *, stay: bool = False) -> Answer:
    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        await stream.send_all(data)
        if stay:
            await trio.sleep_forever()
        return False

    return answer


async def test_small_exchanges_share_one_connection() -> None:
    async with serving(hello) as server, HttpClient(user_agent="me/1") as client:
        for _ in range(3):
            answer = await client.request("PUT", f"{server.url}/a?b=c", headers={"X-K": "v"}, content=b"abc")
            assert (answer.status, answer.body) == (200, b"hello")
            assert answer.headers.get_all("X-TWICE") == ["a", "b"]
        assert server.connections == 1
        assert server.bodies == [b"abc"] * 3
        head = server.heads[0].lower()
        assert head.startswith(b"put /a?b=c http/1.1\r\nhost: 127.0.0.1:")
        assert b"user-agent: me/1" in head
        assert b"x-k: v" in head
        assert b"accept-encoding" not in head


async def test_a_post_without_body_says_so() -> None:
    async with serving(hello) as server, HttpClient() as client:
        await client.request("POST", server.url)
        assert b"content-length: 0" in server.heads[0].lower()


async def test_the_zone_of_a_link_local_address_stays_here(tmp_path: Path) -> None:
    async with serving(hello, tmp_path / "socket") as server, HttpClient(uds=tmp_path / "socket") as client:
        await client.request("GET", "http://[fe80::1%eth0]:65002/x")
        assert b"host: [fe80::1]:65002\r\n" in server.heads[0].lower()


async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serving(hello, path) as server, HttpClient(uds=path) as client:
        assert (await client.request("GET", server.url + "/x")).body == b"hello"
        assert b"host: dragonet" in server.heads[0].lower()
    async with HttpClient(uds=tmp_path / "none") as client:
        with pytest.raises(HttpConnectError, match="No such file"):
            await client.request("GET", "http://dragonet/")


async def test_a_long_stream_is_read_as_it_comes() -> None:
    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in (b"one", b"two"):
            await stream.send_all(b"3\r\n" + word + b"\r\n")
            await seen.receive()
        await stream.send_all(b"0\r\n\r\n")
        return True

    sent, seen = trio.open_memory_channel[None](0)
    async with serving(answer) as server, HttpClient() as client:
        async with client.stream("GET", server.url) as stream:
            assert stream.content_length is None
            words = []
            async for chunk in stream.chunks():
                words.append(chunk)
                await sent.send(None)
        assert words == [b"one", b"two"]
        async with client.stream("GET", server.url) as stream:
            assert await stream.receive() == b"one"
        assert server.connections == 1


async def test_leaving_a_stream_early_closes_its_connection() -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000)
    async with serving(sending(big, stay=True)) as server, HttpClient() as client:
        async with client.stream("GET", server.url) as stream:
            async for _ in stream.chunks():
                break
        async with client.stream("GET", server.url) as stream:
            await stream.receive_into(memoryview(bytearray(10)))
        async with client.stream("GET", server.url):
            pass
        assert server.connections == 3


async def test_leaving_a_stream_while_the_kernel_counts_its_bytes() -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(300_000)
    async with serving(sending(big, stay=True)) as server, HttpClient() as client:
        async with client.stream("GET", server.url) as stream:
            buffer, got = memoryview(bytearray(1_000_000)), 0
            while got < 300_000:  # the last time it gathers for a moment, in vain
                got += await stream.receive_into(buffer)
        async with client.stream("GET", server.url):
            pass
        assert server.connections == 2


@pytest.mark.parametrize("length", [0, 1, 100, DIRECT_THRESHOLD * 3 + 7])
@pytest.mark.parametrize("size", [1000, 700_001])
async def test_receive_into(length: int, size: int) -> None:
    content = bytes(range(256)) * (length // 256 + 1)
    content = content[:length]

    async def answer(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + content)
        return True

    async with serving(answer) as server, HttpClient() as client, client.stream("GET", server.url) as stream:
        assert stream.content_length == length
        buffer, got = memoryview(bytearray(size)), bytearray()
        while count := await stream.receive_into(buffer):
            got += buffer[:count]
        assert got == content
        assert await stream.receive_into(buffer) == 0


@pytest.mark.parametrize("direct", [False, True])
async def test_a_cut_body_is_an_error(direct: bool) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(200_000)

    async def drain(stream: ClientStream) -> None:
        buffer = memoryview(bytearray(4096))
        while await (stream.receive_into(buffer) if direct else stream.receive()):
            pass

    async with (
        serving(sending(cut)) as server,
        HttpClient() as client,
        client.stream("GET", server.url) as stream,
    ):
        with pytest.raises(HttpConnectionLost, match="closed the connection"):
            await drain(stream)


async def test_a_stale_connection_is_replaced_only_for_harmless_requests() -> None:
    async def once(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        if server.heads.count(head) > 1 and server.connections == 1:
            return False
        return await hello(head, body, stream)

    async with serving(once) as server, HttpClient() as client:
        await client.request("GET", server.url)
        assert (await client.request("GET", server.url)).body == b"hello"
        assert server.connections == 2
    async with serving(once) as server, HttpClient() as client:
        await client.request("POST", server.url)
        with pytest.raises(HttpConnectionLost):
            await client.request("POST", server.url)
        assert server.connections == 1
    async with serving(sending(b"")) as server, HttpClient() as client:
        with pytest.raises(HttpConnectionLost):
            await client.request("GET", server.url)
        assert server.connections == 1, "a new connection that is closed at once is not tried again"


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-x\r\n", b"HTTP/1.1 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
)
async def test_garbage_is_not_an_answer(garbage: bytes) -> None:
    async with serving(sending(garbage)) as server, HttpClient() as client:
        with pytest.raises(HttpError):
            await client.request("GET", server.url)


async def test_limits() -> None:
    async with serving(hello) as server, HttpClient() as client:
        with pytest.raises(HttpProtocolError, match="more than the 4 bytes"):
            await client.request("GET", server.url, limit=4)
        with pytest.raises(HttpProtocolError, match="not valid"):
            await client.request("GET", server.url, headers={"x": "a\r\nb"})


async def test_patience_ends() -> None:
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
    async with serving(sending(part, stay=True)) as server, HttpClient(read_timeout=0.02) as client:
        with pytest.raises(HttpTimeout, match="no byte for"):
            await client.request("GET", server.url)
        async with client.stream("GET", server.url, read_timeout=5) as stream:
            assert await stream.receive() == b"hello"
        with pytest.raises(HttpTimeout, match="did not answer within"):
            await client.request("GET", server.url, timeout=0.0)
    async with serving(sending(part.partition(b"\r\n\r\n")[0], stay=True)) as server, HttpClient() as client:
        with pytest.raises(HttpTimeout, match="did not answer within"):
            async with client.stream("GET", server.url, timeout=0.02):
                pass


async def test_cancellation_leaves_a_usable_client() -> None:
    async with (
        serving(sending(b"HTTP/1.1 200 OK\r\n", stay=True)) as server,
        HttpClient(max_connections=1) as client,
    ):
        for _ in range(3):
            with trio.move_on_after(0.01) as scope:
                await client.request("GET", server.url)
            assert scope.cancelled_caught
        server.answer = hello
        assert (await client.request("GET", server.url)).body == b"hello"


async def test_connect_errors_name_their_cause() -> None:
    async with HttpClient() as client:
        with pytest.raises(HttpConnectError, match="refused"):
            await client.request("GET", "http://127.0.0.1:1/?token=abc")
        with pytest.raises(HttpConnectError) as caught:
            await client.request("GET", "http://127.0.0.1:1/?token=abc")
        assert "abc" not in str(caught.value)


async def test_an_address_without_a_way_says_less_than_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine without IPv6 has no way to the first address of many names; it has a network all the same."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 1, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
    ]

    async def addresses(*_arguments: object, **_options: object) -> object:
        return found

    class NoIPv6:
        async def connect(self, address: object) -> None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

        def close(self) -> None:
            pass

    real = trio.socket.socket
    monkeypatch.setattr(
        trio.socket,
        "socket",
        lambda family, kind: NoIPv6() if family == socket.AF_INET6 else real(family, kind),
    )
    monkeypatch.setattr(trio.socket, "getaddrinfo", addresses)
    async with HttpClient() as client:
        with pytest.raises(HttpConnectError, match="refused") as caught:
            await client.request("GET", "http://both.example:1/")
        assert not is_offline(caught.value)
        del found[1]
        with pytest.raises(HttpConnectError, match="unreachable") as caught:
            await client.request("GET", "http://both.example:1/")
        assert is_offline(caught.value)


async def test_no_more_open_files_are_an_error_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with HttpClient() as client:
        monkeypatch.setattr(trio.socket, "socket", none_left)
        with pytest.raises(HttpConnectError, match="Too many open files"):
            await client.request("GET", "http://127.0.0.1:1/")


async def test_connect_check_sees_every_address() -> None:
    seen: list[str] = []

    def check(address: str) -> None:
        seen.append(address)
        if address == "127.0.0.1":
            raise SourceError("denied", fault="request")

    async with HttpClient(connect_check=check) as client:
        with pytest.raises(SourceError, match="denied"):
            await client.request("GET", "http://127.0.0.1:9/")
    assert seen == ["127.0.0.1"]


async def test_tls_is_verified() -> None:
    async def not_tls(head: bytes, body: bytes, stream: trio.SocketStream) -> bool:
        return False

    async with serving(not_tls) as server, HttpClient(connect_timeout=0.05) as client:
        with pytest.raises(HttpConnectError):
            await client.request("GET", server.url.replace("http:", "https:"))
    client = HttpClient()
    assert client._trust().verify_mode is ssl.CERT_REQUIRED
    assert client._trust().check_hostname


async def test_wrong_use(tmp_path: Path) -> None:
    client = HttpClient()
    for url in ("ftp://x/", "http://", "http://[::1/", "nothing"):
        with pytest.raises(InvalidRequest):
            await client.request("GET", url)
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.request("GET", "http://127.0.0.1/")
    with pytest.raises(ConfigError, match="proxy"):
        HttpClient(proxy="socks5://x")
    with pytest.raises(ConfigError, match="certificates"):
        await HttpClient(ca_file=tmp_path / "none.pem").request("GET", "https://127.0.0.1:1/")


async def test_a_proxy_is_asked_for_everything() -> None:
    async with serving(hello) as server, HttpClient(proxy=server.url) as client:
        assert (await client.request("GET", "http://nowhere.invalid/x")).body == b"hello"
        assert server.heads[0].startswith(b"GET http://nowhere.invalid/x HTTP/1.1")


async def test_urls_are_sent_as_ascii() -> None:
    async with serving(hello) as server, HttpClient() as client:
        await client.request("GET", server.url + "/ä b?q=ü%20")
        assert server.heads[0].startswith(b"GET /%C3%A4%20b?q=%C3%BC%20 HTTP/1.1")
