"""The control protocol over a real connection: a stream that breaks is noticed, a slow body is not needed."""

from __future__ import annotations

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from scheduler.config import SchedulerConfig
from scheduler.hub import Subscription, as_frame
from scheduler.service import SchedulerService
from shared.http.client import Feeds, HttpClient
from shared.http.frames import FrameDecoder
from shared.http.listeners import bound_address, listen_tcp
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.protocol import (
    Assignment,
    Beat,
    HostLease,
    LeaseGranted,
    PeerRegistered,
    Reports,
    SourceGranted,
    decode_assignment,
    encode,
)
from shared.swarm.identity import HostIdentity
from shared.swarm.link import BEAT, SchedulerLink
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

    with trio.fail_after(60):
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


class Listening:
    """The host of a link."""

    def __init__(self) -> None:
        self.identity = HostIdentity("host", "seeder", "h:1", instance="instance")
        self.welcomed = 0
        self.connected, self.granted, self.lost = trio.Event(), trio.Event(), trio.Event()

    def lease(self, link: SchedulerLink) -> HostLease:
        return HostLease("host", "instance", "seeder", "h:1")

    async def leased(self, granted: LeaseGranted, link: SchedulerLink) -> None:
        pass

    async def tell_anew(self, full: bool, link: SchedulerLink) -> None:
        self.welcomed += not full

    async def catch_up(self, link: SchedulerLink) -> None:
        pass

    async def assigned(self, assignment: Assignment, link: SchedulerLink) -> None:
        self.granted.set()

    def changed(self, reason: str | None) -> None:
        if reason is None:
            self.connected.set()
        elif self.connected.is_set():
            self.lost.set()


class Mute(SchedulerService):
    """Gives signs of life until it is told not to."""

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config, CollectorRegistry())
        self.mute = False
        self.signs = 0
        self.many = trio.Event()

    def subscribe(self, host: str, *, json: bool) -> Subscription:
        subscription = super().subscribe(host, json=json)
        beat = subscription.beat

        def counted() -> None:
            if not self.mute:
                beat()
                self.signs += 1
                if self.signs == 6:  # longer than the silence that a link allows
                    self.many.set()

        subscription.beat = counted  # type: ignore[method-assign]
        return subscription


async def test_a_quiet_stream_lasts_and_a_frozen_scheduler_is_noticed(
    nursery: trio.Nursery, hasty_clock: trio.testing.MockClock
) -> None:
    """The signs of life go past the tasks of both sides, over a real connection."""
    service = Mute(SchedulerConfig(beat=0.6))
    router = Router()
    service.routes(router)
    await nursery.start(service.run)
    listeners = await listen_tcp("127.0.0.1:0")
    nursery.start_soon(HttpServer(router, name="scheduler").serve, listeners)
    host, feeds = Listening(), Feeds()
    nursery.start_soon(feeds.run)
    async with HttpClient() as client, trio.open_nursery() as links:
        link = SchedulerLink(f"http://{bound_address(listeners[0])}", client, host, host.changed, feeds=feeds)
        links.start_soon(link.run)
        with trio.fail_after(30):
            await service.many.wait()
            assert link.connected
            assert host.welcomed == 1
            assert not host.lost.is_set()
            service.report("host", Reports("instance", [PeerRegistered(SPEC.task_id, SPEC)]))
            await host.granted.wait()
            service.mute = True
            await host.lost.wait()
        links.cancel_scope.cancel()
    nursery.cancel_scope.cancel()


def test_links_know_a_sign_of_life() -> None:
    assert as_frame(Beat()) == BEAT
