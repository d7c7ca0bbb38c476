"""Whole hosts on a network in memory, each with a scheduler inside: everything is real but sockets and disks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import trio
import trio.testing
from prometheus_client import CollectorRegistry

from scheduler.config import SchedulerConfig, ring_config
from scheduler.service import SchedulerService
from shared.errors import DragonetError, ParentGone
from shared.http.client import ClientResponse, HttpClient, HttpConnectError, HttpTimeout
from shared.http.fields import Headers
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.protocol import Beat, Welcome, decode_lease, decode_reports, encode
from shared.store import Store
from shared.swarm import ring
from shared.swarm.config import SwarmConfig
from shared.swarm.fetch import Fetched, FetchOrder, fetch
from shared.swarm.host import Host
from shared.swarm.identity import HostIdentity
from shared.swarm.links import Links
from shared.swarm.origin import OriginJob, OriginSink
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import SPEC, WALL, FakeOrigin, MemoryStore, Sample, metrics

HOP = 0.001
PIECE_TIME = 0.1
"""Seconds in which the origin gives a piece."""


class Machine:
    """One host (or a scheduler alone). Its name is its id, its address and its URL."""

    def __init__(self, lan: Net, name: str, of: Sample, *, hosts: bool = True) -> None:
        self.name = name
        self.running = False
        self.store = MemoryStore()
        self.origin = FakeOrigin(of)
        self.origin.script = self._read
        config = SchedulerConfig()
        self.scheduler = SchedulerService(
            ring_config(config) if hosts else config, CollectorRegistry(), rng=random.Random(name)
        )
        self.changes: list[str | None] = []
        self.host = Host(
            HostIdentity(name, "peer", name),
            cast(Store, self.store),
            self.origin,
            SwarmConfig(),
            metrics(),
            connect=self._connect,
            clock=lambda: WALL + trio.current_time(),
        )
        self.links = Links(cast(HttpClient, Client(lan, name)), self.host, self.changes.append)
        router = Router()
        self.host.add_routes(router)
        self.server = HttpServer(router)
        self._lan = lan
        self._hosts = hosts
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.scheduler.run)
                if self._hosts:
                    await nursery.start(self.host.run, self.links)
                self.running = True
                task_status.started()

    def kill(self) -> None:
        """Without a word to anybody."""
        self._lan.cut.add(self.name)
        self.running = False
        self._scope.cancel()

    def stop(self) -> None:
        """In good order."""
        self._scope.cancel()

    async def get(self, spec: TaskSpec = SPEC) -> Fetched:
        return await fetch(self.host, FetchOrder(spec))

    def serve(self, stream: trio.abc.Stream) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self.server.serve_stream, stream)

    async def _connect(self, address: str) -> trio.abc.Stream:
        try:
            with trio.fail_after(3):
                machine = await self._lan.reach(self.name, address)
        except (HttpConnectError, trio.TooSlowError):
            raise ParentGone(f"{address} is not there") from None
        ours, theirs = trio.testing.memory_stream_pair()
        machine.serve(theirs)
        return ours

    async def _read(self, job: OriginJob, sink: OriginSink) -> None:
        of = self.origin.sample
        await sink.opened(of.meta)
        wanted = set(range(of.count))
        if job.pieces is not None:
            wanted = {n for first, count in job.pieces for n in range(first, first + count)}
        for number in sorted(wanted):
            if number not in sink.held():
                await trio.sleep(PIECE_TIME)
                await self._lan.go_on.wait()
                data = of.piece(number)
                self._lan.read[number] += 1
                sink.received(len(data))
                await sink.piece(number, memoryview(data))
        await sink.finished(of.meta)

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"


class Net:
    """The network. ``cut`` are the machines whose cable is out; ``read`` counts what was read of the origin, which
    stands still while ``go_on`` is not set."""

    def __init__(self, nursery: trio.Nursery, of: Sample) -> None:
        self.machines: dict[str, Machine] = {}
        self.cut: set[str] = set()
        self.read: Counter[int] = Counter()
        self.of = of
        self.go_on = trio.Event()
        self.go_on.set()
        self._nursery = nursery

    async def add(self, name: str, *, hosts: bool = True) -> Machine:
        machine = self.machines[name] = Machine(self, name, self.of, hosts=hosts)
        self.cut.discard(name)
        await self._nursery.start(machine.run)
        return machine

    def meet(self) -> None:
        """All who run know each other from now on, and are the ring."""
        running = [machine for machine in self.machines.values() if machine.running]
        for machine in running:
            machine.links.use({other.name: f"http://{other.name}" for other in running}, ring=True)

    async def reach(self, source: str, target: str) -> Machine:
        """The machine; who cannot be reached is waited for, one that does not run refuses."""
        await trio.sleep(HOP)
        if source != target and self.cut & {source, target}:
            await trio.sleep_forever()
        machine = self.machines[target]
        if not machine.running:
            raise HttpConnectError(f"{target} refuses")
        return machine

    def owner(self, spec: TaskSpec = SPEC) -> Machine:
        running = [name for name, machine in self.machines.items() if machine.running]
        return self.machines[ring.owner(running, spec.logical_id)]


class Client:
    """As HttpClient, to the schedulers of the network."""

    def __init__(self, lan: Net, name: str) -> None:
        self._lan = lan
        self._name = name

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout: float,
    ) -> ClientResponse:
        parts = urlsplit(url)
        host, query = parts.path.split("/")[3], dict(parse_qsl(parts.query))
        try:
            with trio.fail_after(timeout):
                machine = await self._lan.reach(self._name, parts.netloc)
        except trio.TooSlowError:
            raise HttpTimeout("too slow") from None
        scheduler = machine.scheduler
        answer: Any = None
        try:
            if method == "PUT":
                answer = scheduler.renew(decode_lease(content))
            elif method == "POST":
                answer = scheduler.report(host, decode_reports(content))
            elif scheduler.state.knows(host, query.get("instance")):
                scheduler.leave(host)
        except DragonetError as error:
            return ClientResponse(409, Headers([]), str(error).encode())
        await trio.sleep(HOP)
        return ClientResponse(200, Headers([]), b"" if answer is None else encode(answer))

    @asynccontextmanager
    async def feed(
        self, url: str, *, headers: object, timeout: float, read_timeout: float, quiet: bytes, feeds: object
    ) -> AsyncIterator[Stream]:
        parts = urlsplit(url)
        try:
            with trio.fail_after(timeout):
                machine = await self._lan.reach(self._name, parts.netloc)
        except trio.TooSlowError:
            raise HttpTimeout("too slow") from None
        host = parts.path.split("/")[3]
        if not machine.scheduler.state.knows(host):
            yield Stream(404, lambda: None, machine, read_timeout)
            return
        subscription = machine.scheduler.subscribe(host, json=False)
        ends = {self._name, machine.name}
        try:
            yield Stream(
                200, lambda: len(ends) > 1 and self._lan.cut & ends, machine, read_timeout, subscription
            )
        finally:
            machine.scheduler.unsubscribe(subscription)


class Stream:
    """An assignment stream; silent while its cable is out, at its end when the scheduler has died."""

    def __init__(
        self,
        status: int,
        is_cut: Callable[[], Any],
        machine: Machine,
        read_timeout: float,
        subscription: Any = None,
    ) -> None:
        self.status = status
        self._is_cut = is_cut
        self._machine = machine
        self._timeout = read_timeout
        self._subscription = subscription

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._subscription.encoder(Welcome(self._machine.scheduler.name))
        while True:
            with trio.move_on_after(self._timeout) as silence:
                data = await self._next()
            if silence.cancelled_caught:
                raise HttpTimeout("silent")
            if data is None:
                raise HttpConnectError("the stream ended")
            yield data

    async def _next(self) -> bytes | None:
        data: bytes | None = b""
        while data == b"":
            with trio.move_on_after(self._machine.scheduler.beat) as silence:
                data = await self._subscription.take()
            if silence.cancelled_caught:
                data = self._subscription.encoder(Beat())
            if self._is_cut() and self._machine.running:
                await trio.sleep_forever()
        await trio.sleep(HOP)
        return data


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what nobody announces."""
    while True:
        if condition():
            return
        await trio.sleep(HOP)


@asynccontextmanager
async def new_net(of: Sample, *names: str) -> AsyncIterator[Net]:
    """A network of hosts that know each other."""
    async with trio.open_nursery() as nursery:
        net = Net(nursery, of)
        for name in names:
            await net.add(name)
        net.meet()
        await trio.sleep(1)
        yield net
        for machine in net.machines.values():
            machine.kill()
