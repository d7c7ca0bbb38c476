"""The life of an MdnsSource, with a stand-in for the responder. The real one is tried in tests/lab/test_mdns.py."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
import trio
from trio.testing import MockClock

from peer.lan.addresses import Interface
from peer.lan.hearing import Hearing
from peer.lan.interfaces import Interfaces
from peer.lan.mdns import Announcement, MdnsSource
from peer.lan.records import encode, instance, label
from shared.swarm.pulse import Pulse
from tests.unit.peer.lan.watching import Watching

MINE = Announcement(id="a" * 16, role="peer", cluster="default", port=65002, name="me")
OTHER = Announcement(id="b" * 16, role="seeder", cluster="default", port=7000, name="other")


def interface(*addresses: str, name: str = "eth0", index: int = 2) -> Interface:
    return Interface(name, index, tuple(ipaddress.ip_interface(address) for address in addresses))


ETH = interface("10.0.0.1/24", "fe80::1/64")


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """The responder is called in threads, which this clock waits for."""
    return autojump_clock


class Net:
    """Interfaces that change when the test says so."""

    def __init__(self, *given: Interface) -> None:
        self.given = list(given)
        self.interfaces = Interfaces(read=lambda _: self.given)

    def become(self, *given: Interface) -> None:
        self.interfaces._now = list(given)
        self.interfaces.changed.beat()


class Responders:
    """Makes stand-ins. ``done`` tells what was done with them; ``others`` answer each probe and question."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.errors: list[OSError] = []
        self.refusals: list[OSError] = []
        self.others: dict[str, tuple[Announcement, tuple[str, ...]]] = {}
        self.whole = True
        self.stuck = False
        self.hearing: Hearing | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._pulse = Pulse()

    def note(self, *entry: object) -> None:
        """Something was done, in whatever thread."""
        self.done.append(entry)
        self._token.run_sync_soon(self._pulse.beat)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on what was done holds. No deadline: the clock would jump to it."""
        while not condition():
            await self._pulse.wait()

    def open(self, interfaces: Sequence[Interface], hearing: Hearing) -> Responder:
        if self.errors:
            raise self.errors.pop(0)
        self.hearing = hearing
        self.note("open", [str(address) for each in interfaces for address in each.addresses])
        return Responder(self)

    def hear(self, name: str, announcement: Announcement, *addresses: str) -> None:
        assert self.hearing is not None
        text = encode(announcement)
        self.hearing.heard(instance(name), text, announcement.port, addresses, time.monotonic())

    def say(self) -> None:
        for name, (announcement, addresses) in self.others.items():
            self.hear(name, announcement, *addresses)

    def all(self, what: str) -> list[tuple[object, ...]]:
        return [entry[1:] for entry in self.done if entry[0] == what]


class Responder:
    wants = False

    def __init__(self, owner: Responders) -> None:
        self._owner = owner
        self.whole = owner.whole

    def probe(self, announcement: Announcement, number: int) -> None:
        self._owner.note("probe", label(announcement, number))
        self._owner.say()

    def announce(self, announcement: Announcement, number: int, interfaces: Sequence[Interface]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if self._owner.refusals:
            raise self._owner.refusals.pop()
        self._owner.note("announce", label(announcement, number), announcement.port, len(interfaces))

    def repeat(self) -> None:
        self._owner.note("repeat")

    def ask(self, *, browse: bool, unicast: bool = False) -> None:
        self._owner.note("ask", browse, unicast)
        self._owner.say()

    def close(self, *, goodbye: bool) -> None:
        self._owner.note("close", goodbye)
        if self._owner.stuck:
            threading.Event().wait(0.5)


class Running:
    def __init__(self, source: MdnsSource, made: Responders, net: Net, watching: Watching) -> None:
        self.source = source
        self.made = made
        self.net = net
        self.watching = watching


@asynccontextmanager
async def running(
    announcement: Announcement | None = MINE, *given: Interface, made: Responders | None = None
) -> AsyncIterator[Running]:
    made = made or Responders()
    net = Net(*(given or (ETH,)))
    source = MdnsSource(announcement, "default", net.interfaces, open=made.open)
    watching = Watching()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, watching)
        yield Running(source, made, net, watching)
        nursery.cancel_scope.cancel()
    await made.until(lambda: len(made.all("close")) == len(made.all("open")))


async def test_announces_asks_and_says_goodbye(clock: MockClock) -> None:
    async with running() as run:
        await run.made.until(lambda: bool(run.made.all("announce")))
        assert run.made.all("announce") == [("me-aaaaaaaa", 65002, 1)]
        assert run.made.all("probe") == [("me-aaaaaaaa",)] * 2
        await run.made.until(lambda: len(run.made.all("ask")) > 3 and bool(run.made.all("repeat")))
        assert run.made.all("ask")[:2] == [(True, True), (True, False)]
        assert "open" in repr(run.source)
    assert run.made.done[-1] == ("close", True)
    assert run.made.all("open") == [(["10.0.0.1/24", "fe80::1/64"],)]


async def test_who_only_looks_announces_nothing(clock: MockClock) -> None:
    async with running(None) as run:
        run.made.others["other-bbbbbbbb"] = (OTHER, ("10.0.0.9",))
        await run.watching.until(lambda: bool(run.watching.here))
    assert not run.made.all("probe")
    assert not run.made.all("announce")


async def test_others_are_told_with_what_can_be_reached(clock: MockClock) -> None:
    async with running() as run:
        run.made.others["other-bbbbbbbb"] = (OTHER, ("172.16.0.9", "10.0.0.9", "fe80::9%2", "8.8.8.8"))
        await run.watching.until(lambda: bool(run.watching.here))
        sighting = run.watching.here["other-bbbbbbbb"]
        assert sighting.addresses == ("10.0.0.9:7000", "[fe80::9%eth0]:7000", "172.16.0.9:7000")
        assert (sighting.id, sighting.role, sighting.name) == ("b" * 16, "seeder", "other")
        assert run.made.hearing is not None
        run.made.others.clear()
        run.made.hearing.gone(instance("other-bbbbbbbb"))
        await run.watching.until(lambda: not run.watching.here)
        assert run.watching.told == [("seen", "other-bbbbbbbb"), ("gone", "other-bbbbbbbb")]


async def test_who_has_no_address_of_use_is_left_out(clock: MockClock) -> None:
    async with running() as run:
        run.made.others["other-bbbbbbbb"] = (OTHER, ("8.8.8.8", "127.0.0.1"))
        await run.watching.until(lambda: bool(run.watching.left_out))
        assert run.watching.left_out == {"malformed": 1}
        run.made.others["other-bbbbbbbb"] = (OTHER, ("10.0.0.9",))
        await run.watching.until(lambda: bool(run.watching.here))
        run.made.others["other-bbbbbbbb"] = (OTHER, ("8.8.8.8",))
        await run.watching.until(lambda: not run.watching.here)


async def test_another_cluster_is_counted(clock: MockClock) -> None:
    async with running() as run:
        run.made.others["other-bbbbbbbb"] = (replace(OTHER, cluster="x"), ("10.0.0.9",))
        await run.watching.until(lambda: bool(run.watching.left_out))
        await run.made.until(lambda: len(run.made.all("ask")) > 5)
        assert run.watching.left_out == {"cluster": 1}
        assert not run.watching.told


async def test_our_own_echo_is_nobody(clock: MockClock) -> None:
    async with running() as run:
        await run.made.until(lambda: bool(run.made.all("announce")))
        run.made.others["me-aaaaaaaa"] = (MINE, ("10.0.0.1", "fe80::1%2"))
        await run.watching.until(lambda: bool(run.watching.left_out))
        assert run.watching.left_out == {"self": 1}
        run.made.others["me-aaaaaaaa"] = (MINE, ("10.0.0.1", "10.0.0.66"))
        await run.watching.until(lambda: bool(run.watching.here))
        assert run.watching.here["me-aaaaaaaa"].addresses == ("10.0.0.66:65002",)


async def test_a_name_that_somebody_has_is_left_to_him(clock: MockClock) -> None:
    made = Responders()
    made.others["me-aaaaaaaa"] = (MINE, ("10.0.0.66",))
    made.others["me-aaaaaaaa-2"] = (MINE, ("10.0.0.67",))
    with structlog.testing.capture_logs() as logs:
        async with running(made=made) as run:
            await run.made.until(lambda: bool(made.all("announce")))
            assert set(run.watching.here) == {"me-aaaaaaaa", "me-aaaaaaaa-2"}
    assert made.all("announce") == [("me-aaaaaaaa-3", 65002, 1)]
    assert len([entry for entry in logs if entry["log_level"] == "warning"]) == 2


async def test_new_addresses_are_announced_without_a_goodbye(clock: MockClock) -> None:
    async with running() as run:
        run.made.others["other-bbbbbbbb"] = (OTHER, ("172.16.0.9", "10.0.0.9", "fd00::9"))
        await run.made.until(lambda: bool(run.made.all("announce")))
        await run.watching.until(lambda: bool(run.watching.here))
        assert run.watching.here["other-bbbbbbbb"].addresses[0] == "10.0.0.9:7000"
        run.net.become(interface("172.16.0.1/24"), interface("192.168.1.1/24", name="wlan0", index=3))
        await run.made.until(lambda: len(run.made.all("announce")) == 2)
        assert run.made.all("close") == [(False,)]
        assert run.made.all("announce")[1] == ("me-aaaaaaaa", 65002, 2)
        await run.watching.until(
            lambda: run.watching.here["other-bbbbbbbb"].addresses[0] == "172.16.0.9:7000"
        )
        assert ("gone", "other-bbbbbbbb") not in run.watching.told
    assert run.made.all("close") == [(False,), (True,)]


async def test_another_port_and_another_id(clock: MockClock) -> None:
    async with running() as run:
        await run.made.until(lambda: len(run.made.all("announce")) == 1)
        run.source.announce(replace(MINE, port=7))
        await run.made.until(lambda: len(run.made.all("announce")) == 2)
        run.source.announce(replace(MINE, port=7, id="c" * 16))
        await run.made.until(lambda: len(run.made.all("announce")) == 3)
    assert run.made.all("announce") == [
        *(("me-aaaaaaaa", 65002, 1), ("me-aaaaaaaa", 7, 1), ("me-cccccccc", 7, 1)),
    ]
    assert run.made.all("close") == [(False,), (True,), (True,)]


async def test_where_no_multicast_is_possible_it_is_said_once_and_tried_again(clock: MockClock) -> None:
    made = Responders()
    made.errors = [OSError(f"address {number} in use") for number in range(5)]
    with structlog.testing.capture_logs() as logs:
        async with running(made=made) as run:
            await run.made.until(lambda: bool(made.all("announce")))
            assert trio.current_time() > 5 * 30
    told = [(entry["log_level"], entry["event"]) for entry in logs if entry["log_level"] != "debug"]
    assert [level for level, _ in told] == ["warning", "info"]


async def test_without_any_interface_it_waits_for_one(clock: MockClock) -> None:
    made = Responders()
    net = Net()
    source = MdnsSource(MINE, "default", net.interfaces, open=made.open)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run, Watching())
        await trio.testing.wait_all_tasks_blocked()
        assert not made.done
        net.become(ETH)
        await made.until(lambda: bool(made.all("announce")))
        nursery.cancel_scope.cancel()


async def test_some_interfaces_that_fail_are_tried_again(clock: MockClock) -> None:
    made = Responders()
    made.whole = False
    async with running(made=made) as run:
        await run.made.until(lambda: bool(made.all("announce")))
        made.whole = True
        await run.made.until(lambda: len(made.all("open")) == 2)
        await run.made.until(lambda: len(made.all("announce")) == 2)
        count = len(made.all("open"))
        await run.made.until(lambda: len(made.all("ask")) > 20)
        assert len(made.all("open")) == count


async def test_an_announcement_that_fails_is_tried_again(clock: MockClock) -> None:
    made = Responders()
    made.refusals = [OSError("the loop is blocked")]
    async with running(made=made):
        await made.until(lambda: bool(made.all("announce")))
    assert len(made.all("open")) == 2


async def test_a_goodbye_that_hangs_does_not_keep_the_daemon(hasty_clock: MockClock) -> None:
    async with running() as run:
        await run.made.until(lambda: bool(run.made.all("announce")))
        run.made.stuck = True
        before = trio.current_time()
    assert trio.current_time() - before < 3
    assert run.made.done[-1] == ("close", True)


def test_zeroconf_is_imported_only_where_it_is_used() -> None:
    program = "import sys, peer.lan.sources; print('zeroconf' in sys.modules or 'ifaddr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
