"""The LAN of a host, in virtual time with a network that is a fake, and a few of them over real connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from peer.lan import roster
from peer.lan.config import LanConfig
from peer.lan.hello import CONFIGURED
from peer.lan.hosts import CALM, KEEN
from peer.lan.lan import STOOD_STILL, TICK, WATCH, Lan
from peer.lan.me import Me
from peer.lan.mode import FIRST_PAUSE, GRACE, PATIENCE, SETTLE
from peer.lan.records import Announcement
from peer.lan.sightings import Sighting, Source, Watcher
from peer.lan.static import StaticSource
from peer.lan.twins import NEWCOMER
from shared.errors import ConfigError
from shared.http.client import ClientResponse, HttpClient, HttpConnectError, HttpTimeout
from shared.http.fields import Headers
from shared.http.limits import ServerLimits
from shared.http.listeners import bound_address, listen_tcp
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.protocol import Hello, HostLease
from shared.swarm.pulse import Pulse
from tests.unit.peer.lan.networks import DEAD, hello, sighting

Clock = trio.testing.MockClock

A, B, S = "10.0.0.1:65002", "10.0.0.2:65002", "10.0.0.9:8002"
OWN = "http://127.0.0.1:65002"
ME = Me(id="me", instance="me-1", role="peer", port=65002, name="here", started=100.0)


class Web:
    """An HttpClient: who answers at which address."""

    def __init__(self) -> None:
        self.at: dict[str, Hello | str | bytes] = {}
        self.asked: list[tuple[float, str]] = []

    async def request(
        self, method: str, url: str, *, headers: object = (), timeout: float = 1.0, limit: int = 0
    ) -> ClientResponse:
        address = url.removeprefix("http://").removesuffix("/v1/hello")
        self.asked.append((trio.current_time(), address))
        there = self.at.get(address)
        if there == DEAD:
            await trio.sleep(timeout)
            raise HttpTimeout("silent")
        await trio.sleep(0.001)
        if there == "defect":
            raise ZeroDivisionError
        if there is None:
            raise HttpConnectError("refused")
        body = there if isinstance(there, bytes) else msgspec.json.encode(there)
        return ClientResponse(200, Headers([]), body)

    def count(self, address: str) -> int:
        return sum(asked == address for _, asked in self.asked)


class FakeLinks:
    """Links that are connected to whoever is in ``up``; a link that breaks counts for GRACE."""

    def __init__(self) -> None:
        self.usable: frozenset[str] = frozenset()
        self.changed = Pulse()
        self.used: list[tuple[bool, dict[str, str]]] = []
        self.up: set[str] = {"me"}
        self._broken: dict[str, float] = {}

    def silent_for(self, name: str) -> float:
        return 0.0 if name in self.up else trio.current_time() - self._broken.get(name, -1e9)

    def use(self, schedulers: Mapping[str, str], *, ring: bool = False, own: str = "") -> None:
        self.used.append((ring, dict(schedulers)))
        self._review()

    @property
    def ring(self) -> set[str] | None:
        """The members of the ring that is used now."""
        ring, schedulers = self.used[-1]
        return set(schedulers) if ring else None

    @property
    def now(self) -> dict[str, str]:
        return self.used[-1][1]

    def connect(self, *names: str) -> None:
        self.up |= set(names)
        self._review()

    def end(self, name: str) -> None:
        """The link breaks."""
        self.up.discard(name)
        self._broken[name] = trio.current_time()

    async def run(self) -> None:
        while True:
            await trio.sleep(0.05)
            self._review()

    def _review(self) -> None:
        now = trio.current_time()
        names = self.used[-1][1] if self.used else {}
        usable = frozenset(n for n in names if n in self.up or now - self._broken.get(n, -1e9) < GRACE)
        if usable != self.usable:
            self.usable = usable
            self.changed.beat()


@dataclass
class Ring:
    """The scheduler within."""

    url: str = OWN
    left: list[str] = field(default_factory=list)

    def leave(self, host: str) -> None:
        self.left.append(host)


class Announcing:
    """A source that announces, too."""

    def __init__(self) -> None:
        self.announced: list[Announcement] = []
        self.refreshed = 0

    async def run(self, watcher: Watcher) -> None:
        await trio.sleep_forever()

    def announce(self, announcement: Announcement) -> None:
        self.announced.append(announcement)

    def refresh(self) -> None:
        self.refreshed += 1


class World:
    """A Lan of whose network the test decides."""

    def __init__(self, *sources: Source, configured: str = "", me: Me = ME, **config: Any) -> None:
        self.web = Web()
        self.links = FakeLinks()
        self.ring = Ring()
        self.registry = CollectorRegistry()
        self.renamed: list[str] = []
        self.ready: list[str | None] = []
        self.slept = 0.0
        self.lan = Lan(
            LanConfig(**config),
            me,
            sources,
            cast(HttpClient, self.web),
            self.registry,
            configured=configured,
            counts=lambda: (2, 4096),
            rename=self._rename,
            readiness=self.ready.append,
            clock=lambda: trio.current_time() + self.slept,
        )

    async def _rename(self, new: str) -> None:
        await trio.lowlevel.checkpoint()
        self.renamed.append(new)
        if len(self.renamed) == 1:
            raise ConfigError("the disk is full")

    def announce(self, name: str, address: str, instance: str = "", **words: object) -> None:
        self.web.at[address] = hello(name, instance, **words)
        self.lan.seen(sighting(f"{name} {instance}", address, id=name))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.links.run)
            nursery.start_soon(self.lan.run, self.links, self.ring)
            await trio.testing.wait_all_tasks_blocked()
            yield self
            nursery.cancel_scope.cancel()


# --- the ring ------------------------------------------------------------------------------------------


async def test_a_host_alone_decides_for_itself(autojump_clock: Clock) -> None:
    async with World().running() as world:
        assert world.ready == ["looking for others on the network"]
        assert world.links.used == []
        await trio.sleep(SETTLE + 0.1)
        assert world.ready[-1] is None
        assert world.links.used == [(True, {"me": OWN})]
        assert world.lan.mode == "alone"


async def test_hosts_that_are_found_are_the_ring(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.announce("b", B)
        await trio.sleep(SETTLE + 0.1)
        assert world.links.used == [(True, {"me": OWN, "a": f"http://{A}", "b": f"http://{B}"})]
        assert world.lan.mode == "ring"
        assert world.lan.address_of("a") == A
        assert world.lan.address_of("nobody") is None


async def test_who_does_not_schedule_is_no_member(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A, schedules=False)
        await trio.sleep(2)
        assert world.links.ring == {"me"}
        assert world.lan.address_of("a") == A


async def test_a_member_that_dies_is_lost_at_once(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up = {"me", "a"}
        await trio.sleep(5)
        del world.web.at[A]
        world.links.end("a")
        await trio.sleep(WATCH + 0.1)
        assert world.links.ring == {"me"}
        assert world.ring.left == ["a"]
        assert world.lan.address_of("a") is None
        world.web.at[A] = hello("a", "second")
        await trio.sleep(KEEN + 0.1)
        assert world.links.ring == {"me", "a"}


async def test_a_frozen_member_is_lost_a_second_after_its_link(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up = {"me", "a"}
        await trio.sleep(5)
        world.web.at[A] = DEAD
        world.links.end("a")
        await trio.sleep(WATCH + 1.1)
        assert world.links.ring == {"me"}
        assert "a" in world.ring.left


async def test_a_link_that_breaks_for_a_moment_changes_nothing(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up = {"me", "a"}
        await trio.sleep(5)
        world.links.end("a")
        await trio.sleep(0.4)
        world.links.connect("a")
        await trio.sleep(5)
        assert len(world.links.used) == 1
        assert world.ring.left == []


async def test_a_member_whose_link_stays_away_though_it_answers_is_forgotten_by_the_scheduler_within(
    autojump_clock: Clock,
) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up = {"me", "a"}
        await trio.sleep(5)
        world.links.end("a")
        await trio.sleep(GRACE + 0.1)
        assert world.ring.left == ["a"]
        assert world.links.ring == {"me", "a"}


async def test_a_lease_at_the_scheduler_within_is_a_sighting(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.web.at[A] = hello("a")
        lease = HostLease(host="a", instance="a-1", role="peer", address=A)
        world.lan.leased(lease)
        world.lan.leased(msgspec.structs.replace(lease, host="own", instance="me-1", address=B))
        world.lan.leased(msgspec.structs.replace(lease, host="b", address=B, draining=True))
        world.lan.leased(msgspec.structs.replace(lease, host="c", address="*:65002"))
        await trio.sleep(2)
        assert world.links.ring == {"me", "a"}
        assert {asked for _, asked in world.web.asked} == {A}
        assert (await world.lan.view(probe=False)).hosts[0].found == ("lease",)


# --- schedulers ----------------------------------------------------------------------------------------


async def test_a_scheduler_that_is_found_decides(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.announce("s", S, role="scheduler")
        world.links.up.add("s")
        await trio.sleep(2)
        assert world.links.used == [(False, {"s": f"http://{S}"})]
        assert world.lan.mode == "scheduler"
        view = await world.lan.view(probe=False)
        assert view.schedulers == (f"http://{S}",)
        assert [host.id for host in view.hosts if host.member] == ["s"]


async def test_the_ring_takes_over_from_a_scheduler_and_gives_back(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.announce("s", S, role="scheduler")
        world.links.up.add("s")
        await trio.sleep(10)
        world.web.at.pop(S)
        world.links.end("s")
        await trio.sleep(PATIENCE + 0.2)
        assert world.links.ring == {"me", "a"}
        world.web.at[S] = hello("s", "second", role="scheduler")
        await trio.sleep(KEEN + 0.2)
        assert world.links.now == {"s": f"http://{S}"}


async def test_a_scheduler_that_gives_no_link_does_not_make_the_host_flap(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("s", S, role="scheduler")
        await trio.sleep(SETTLE + PATIENCE + FIRST_PAUSE - 0.5)
        assert [ring for ring, _ in world.links.used] == [False, True]
        await trio.sleep(300)
        assert len(world.links.used) < 20


async def test_members_that_are_dead_are_noticed_when_the_ring_takes_over(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.announce("s", S, role="scheduler")
        world.links.up.add("s")
        await trio.sleep(CALM / 2)
        del world.web.at[A]
        del world.web.at[S]
        world.links.end("s")
        await trio.sleep(PATIENCE + 1)
        assert world.links.ring == {"me"}


async def test_the_configured_scheduler_comes_first_and_the_others_help_out(autojump_clock: Clock) -> None:
    async with World(configured=f"http://{S}").running() as world:
        world.announce("a", A)
        await trio.sleep(0.1)
        assert world.links.used == [(False, {CONFIGURED: f"http://{S}"})]
        assert world.ready[-1] is None
        assert world.lan.mode == "configured"
        await trio.sleep(PATIENCE)
        assert world.links.ring == {"me", "a"}
        world.web.at[S] = hello("s", role="scheduler")
        world.links.up.add(CONFIGURED)
        await trio.sleep(KEEN + 0.2)
        assert world.links.now == {CONFIGURED: f"http://{S}"}


async def test_nobody_passes_for_the_configured_scheduler(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce(CONFIGURED, A)
        world.web.at[B] = hello(CONFIGURED)
        world.lan.seen(sighting("static", B, source="static"))
        await trio.sleep(5)
        assert world.links.ring == {"me"}


async def test_a_process_that_only_schedules_is_found_and_counts(autojump_clock: Clock) -> None:
    world = World(me=Me(id="s", instance="s-1", role="scheduler", port=8002))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.lan.run, None, None)
        world.announce("a", A)
        await trio.sleep(5)
        assert [host.state for host in (await world.lan.view(probe=True)).hosts] == ["present"]
        assert world.lan.mode == "scheduler"
        assert world.lan.hello("10.0.0.5:40000").role == "scheduler"
        assert world.metric("dragonet_lan_hosts", state="present") == 1
        nursery.cancel_scope.cancel()


# --- ids -----------------------------------------------------------------------------------------------


async def test_a_copied_machine_takes_another_id(autojump_clock: Clock) -> None:
    source = Announcing()
    async with World(source).running() as world:
        world.announce("me", A, instance="first", started=50.0)
        await trio.sleep(2)
        (new,) = world.renamed
        assert world.lan.me.id == new != "me"
        assert [told.id for told in source.announced] == [new]
        assert world.links.ring == {new, "me"}
        assert world.links.now == {new: OWN, "me": f"http://{A}"}
        assert world.lan.hello("10.0.0.5:40000").id == new


async def test_the_later_one_of_two_newcomers_is_given_time_to_take_another_id(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("me", A, instance="later", started=150.0)
        await trio.sleep(NEWCOMER - 1)
        assert world.renamed == []
        world.web.at[A] = hello("other")
        await trio.sleep(60)
        assert world.renamed == []
        assert world.links.ring == {"me", "other"}


async def test_of_two_that_started_together_one_gives_way(autojump_clock: Clock) -> None:
    given = []
    for mine, other in (("i1", "i2"), ("i2", "i1")):
        world = World(me=Me(id="me", instance=mine, role="peer", port=1, started=100.0))
        async with world.running():
            world.announce("me", A, instance=other, started=100.0)
            await trio.sleep(2)
            given.append(bool(world.renamed))
    assert given == [False, True]


async def test_who_has_been_here_for_a_while_keeps_its_id_whatever_is_claimed(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("b", B)
        world.links.up.add("b")
        await trio.sleep(NEWCOMER + 1)
        world.announce("me", A, instance="evil", started=1.0)
        await trio.sleep(300)
        assert world.renamed == []
        assert world.links.ring == {"me", "b"}
        view = await world.lan.view(probe=True)
        assert [host.id for host in view.hosts] == ["b"]
        assert view.ignored == {"conflict": 1}


async def test_nobody_is_renamed_again_and_again(autojump_clock: Clock) -> None:
    async with World().running() as world:
        for _ in range(30):
            world.announce(world.lan.me.id, A, instance="evil", started=0.0)
            await trio.sleep(5)
        assert len(world.renamed) == 1


async def test_the_own_id_is_shown_once_whatever_is_announced(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.web.at[A] = DEAD
        world.lan.seen(sighting("me", A, id="me"))
        await trio.sleep(5)
        view = await world.lan.view(probe=True)
        assert view.here.id == "me"
        assert view.hosts == ()


async def test_no_more_are_shown_than_are_remembered(autojump_clock: Clock) -> None:
    async with World(max_hosts=8).running() as world:
        for name in "abcd":
            world.announce(name, f"10.0.1.{ord(name)}:1")
        for number in range(20):
            world.lan.seen(sighting(f"g{number}", f"10.9.0.{number + 1}:1", id=f"g{number}"))
        await trio.sleep(5)
        hosts = (await world.lan.view(probe=False)).hosts
        assert len(hosts) == 8
        assert [host.state for host in hosts] == ["present"] * 4 + ["unknown"] * 4


# --- troubles ------------------------------------------------------------------------------------------


async def test_a_source_that_fails_does_not_stop_the_others(autojump_clock: Clock) -> None:
    class Broken:
        async def run(self, watcher: Watcher) -> None:
            raise ZeroDivisionError

    async with World(Broken(), StaticSource([A])).running() as world:
        world.web.at[A] = hello("a")
        await trio.sleep(2)
        assert world.links.ring == {"me", "a"}


async def test_a_defect_in_a_question_costs_that_question(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.web.at[A] = "defect"
        world.lan.seen(sighting("a", A))
        world.announce("b", B)
        await trio.sleep(2)
        assert world.links.ring == {"me", "b"}
        assert world.metric("dragonet_lan_probes_total", result="malformed") == 2


async def test_after_a_standstill_everybody_is_asked_again(autojump_clock: Clock) -> None:
    source = Announcing()
    async with World(source).running() as world:
        world.announce("a", A)
        world.links.up.add("a")
        await trio.sleep(10)
        before = world.web.count(A)
        world.slept = STOOD_STILL + 2
        await trio.sleep(TICK + 0.1)
        assert world.web.count(A) == before + 1
        assert source.refreshed == 1


async def test_on_another_network_everybody_is_asked_again(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up.add("a")
        await trio.sleep(10)
        before = world.web.count(A)
        world.lan.disturbed()
        await trio.sleep(0.1)
        assert world.web.count(A) == before + 1


async def test_hostile_answers_and_floods_harm_nobody(autojump_clock: Clock) -> None:
    async with World(max_hosts=64).running() as world:
        world.announce("a", A)
        await trio.sleep(0.1)
        for number in range(1000):
            address = f"10.9.{number // 250}.{number % 250}:65002"
            world.web.at[address] = (DEAD, b"<html>", b"\x00" * 5000, b'{"id": "\x1b[2J"}')[number % 4]
            world.lan.seen(sighting(f"g{number}", address, id=f"g{number}"))
        world.announce("b", B)
        await trio.sleep(3)
        assert world.links.ring == {"me", "a", "b"}
        await trio.sleep(120)
        assert world.links.ring == {"me", "a", "b"}
        view = await world.lan.view(probe=False)
        assert len(view.hosts) <= 64
        assert view.ignored["malformed"] > 0


# --- the view and the metrics --------------------------------------------------------------------------


async def test_the_view(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A, release="1.2.3", location="hall|rack", tasks=7, held=1 << 30)
        world.announce("b", B)
        world.lan.seen(Sighting("mdns", "ghost", ("10.0.0.66:1",), id="ghost", role="peer", name="boo"))
        world.lan.seen(Sighting("static", "x:1", ("x:1",)))
        await trio.sleep(5)
        world.web.at[B] = DEAD
        view = await world.lan.view(probe=True)
        assert (view.mode, view.cluster, view.schedulers) == ("ring", "default", ())
        assert (view.here.id, view.here.tasks, view.here.held, view.here.member) == ("me", 2, 4096, True)
        hosts = {host.id: host for host in view.hosts}
        a = hosts["a"]
        assert (a.state, a.version, a.location, a.tasks, a.held) == (
            "present",
            "1.2.3",
            "hall|rack",
            7,
            1 << 30,
        )
        assert (a.address, a.addresses, a.found, a.member) == (A, (A,), ("mdns",), True)
        assert a.rtt == pytest.approx(0.001)
        assert (hosts["b"].state, hosts["b"].rtt) == ("absent", None)
        ghost = hosts["ghost"]
        assert (ghost.state, ghost.name, ghost.role, ghost.member) == ("unknown", "boo", "peer", False)
        assert hosts["x:1"].found == ("static",)
        assert msgspec.json.decode(msgspec.json.encode(view))["mode"] == "ring"


async def test_many_views_at_once_ask_everybody_once(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.links.up.add("a")
        await trio.sleep(10)
        before = world.web.count(A)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(world.lan.view, True)
        assert world.web.count(A) == before + 1


async def test_a_view_is_soon_there_though_nobody_answers(autojump_clock: Clock) -> None:
    async with World().running() as world:
        for number in range(100):
            world.announce(f"h{number}", f"10.0.1.{number}:1")
        await trio.sleep(10)
        for number in range(100):
            world.web.at[f"10.0.1.{number}:1"] = DEAD
        began = trio.current_time()
        await world.lan.view(probe=True)
        assert trio.current_time() - began < 1.5
        await trio.sleep(20)
        assert world.links.ring == {"me"}


async def test_metrics(autojump_clock: Clock) -> None:
    async with World().running() as world:
        world.announce("a", A)
        world.announce("b", B, cluster="other")
        world.lan.seen(sighting("c", "10.0.0.3:1", id="c"))
        world.lan.ignored("protocol")
        await trio.sleep(0.5)
        assert world.metric("dragonet_lan_mode", mode="none") == 1
        world.links.up.add("a")
        await trio.sleep(2)
        assert world.metric("dragonet_lan_mode", mode="ring") == 1
        assert world.metric("dragonet_lan_mode", mode="none") == 0
        assert world.metric("dragonet_lan_members") == 2
        assert world.metric("dragonet_lan_hosts", state="present") == 1
        assert world.metric("dragonet_lan_hosts", state="unknown") == 1
        assert world.metric("dragonet_lan_ignored_total", reason="cluster") == 1
        assert world.metric("dragonet_lan_ignored_total", reason="protocol") == 1
        assert world.metric("dragonet_lan_probes_total", result="ok") == 1
        assert b"dragonet_lan_ignored_total" in generate_latest(world.registry)


# --- for real ------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await trio.sleep(0.02)


class Machine:
    """A Lan behind a real listener, whose links come up by themselves."""

    def __init__(self, name: str, role: str = "peer") -> None:
        self.name = name
        self.role = role
        self.links = FakeLinks()
        self.ring = Ring()
        self.address = ""
        self.scope = trio.CancelScope()
        self.lan: Lan | None = None

    async def listen(self) -> None:
        self.listeners = await listen_tcp(self.address or "127.0.0.1:0")
        self.address = bound_address(self.listeners[0])

    async def run(self, others: list[str]) -> None:
        me = Me(self.name, f"{self.name}-1", self.role, 1, name=self.name)  # type: ignore[arg-type]
        with self.scope:
            async with HttpClient(connect_timeout=30, keepalive=5) as client, trio.open_nursery() as nursery:
                self.lan = Lan(LanConfig(), me, [StaticSource(others)], client, CollectorRegistry())
                router = Router()
                self.lan.add_routes(router)
                self.links.up = {"a", "b", "c", "d", "s"}
                self.ring.url = f"http://{self.address}"
                nursery.start_soon(self.links.run)
                nursery.start_soon(HttpServer(router, limits=ServerLimits()).serve, self.listeners)
                links = None if self.role == "scheduler" else self.links
                nursery.start_soon(self.lan.run, links, self.ring)

    def uses(self, *machines: Machine) -> bool:
        return bool(self.links.used) and self.links.now == {m.name: f"http://{m.address}" for m in machines}


async def test_several_hosts_find_each_other_over_real_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "ANSWER", 30.0)  # this machine may be busy
    machines = [Machine(name) for name in "abcd"]
    a, b, c, d = machines
    scheduler = Machine("s", "scheduler")
    for machine in (*machines, scheduler):
        await machine.listen()
    addresses = [machine.address for machine in machines]
    scheduler.listeners[0].socket.close()
    async with trio.open_nursery() as nursery:
        for machine in machines:  # each is told of itself, too
            nursery.start_soon(machine.run, [*addresses, scheduler.address])
        await until(lambda: all(m.uses(*machines) for m in machines))
        d.scope.cancel()
        for machine in (a, b, c):
            machine.links.end("d")
        await until(lambda: all(m.uses(a, b, c) for m in (a, b, c)))
        assert a.ring.left == ["d"]
        await scheduler.listen()
        nursery.start_soon(scheduler.run, [])
        await until(lambda: all(m.uses(scheduler) for m in (a, b, c)))
        assert a.lan is not None
        states = {"b": "present", "c": "present", "d": "absent", "s": "present"}
        view = await a.lan.view(probe=True)
        with trio.fail_after(60):
            while {host.id: host.state for host in view.hosts} != states:
                view = await a.lan.view(probe=True)
        assert view.ignored == {"self": 1}
        nursery.cancel_scope.cancel()
