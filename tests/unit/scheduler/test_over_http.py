"""The control protocol over a real connection: a stream that breaks is noticed, a slow body is not needed."""

from __future__ import annotations

import trio
from prometheus_client import CollectorRegistry

from scheduler.config import SchedulerConfig
from scheduler.hub import Subscription
from scheduler.service import SchedulerService
from shared.http.frames import FrameDecoder
from shared.http.listeners import bound_address, listen_tcp
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.protocol import HostLease, PeerRegistered, Reports, SourceGranted, decode_assignment, encode
from tests.unit.scheduler.driver import SPEC


class Watched(SchedulerService):
    """Tells when an assignment stream has ended."""

    def __init__(self, config: SchedulerConfig, registry: CollectorRegistry) -> None:
        super().__init__(config, registry)
        self.stream_ended = trio.Event()

    def unsubscribe(self, subscription: Subscription) -> None:
        super().unsubscribe(subscription)
        self.stream_ended.set()


async def test_a_host_over_a_real_connection(nursery: trio.Nursery) -> None:
    service = Watched(SchedulerConfig(), CollectorRegistry())
    router = Router()
    service.routes(router)
    await nursery.start(service.run)
    server = HttpServer(router, name="scheduler")
    listeners = await listen_tcp("127.0.0.1:0")
    host, _, port = bound_address(listeners[0]).rpartition(":")
    nursery.start_soon(server.serve, listeners)

    async def call(method: str, path: str, body: bytes) -> bytes:
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
            return b"".join([chunk async for chunk in stream])

    with trio.fail_after(10):
        answer = await call("PUT", "/v1/hosts/a", encode(HostLease("a", "1", "peer", "a:1")))
        assert answer.startswith(b"HTTP/1.1 200 ")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"GET /v1/hosts/a/assignments HTTP/1.1\r\nhost: x\r\n\r\n")
        await call("POST", "/v1/hosts/a/reports", encode(Reports("1", [PeerRegistered(SPEC.task_id, SPEC)])))
        received = b""
        while b"source_granted" not in received:
            received += await stream.receive_some()
        assert b"application/vnd.msgpack" in received
        assert any(isinstance(m, SourceGranted) for m in _messages(received))
        assert service.state.cluster.present("a").stream is not None  # type: ignore[union-attr]
        await stream.aclose()
        await service.stream_ended.wait()
        assert service.state.cluster.present("a").stream is None  # type: ignore[union-attr]
    await server.drain(0)
    nursery.cancel_scope.cancel()


def _messages(received: bytes) -> list[object]:
    """The messages of a chunked body."""
    _, _, rest = received.partition(b"\r\n\r\n")
    decoder, messages = FrameDecoder(), []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        messages += [decode_assignment(payload) for payload in decoder.feed(rest[:length])]
        rest = rest[length + 2 :]
    return messages
