"""A look at the LAN without taking part in it; sources and hosts are stand-ins."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from peer.config import Config
from peer.lan.config import LanConfig
from peer.lan.looking import ASKING, AT_ONCE, FIRST_LOOK, Looker, open_looker
from peer.lan.sightings import Sighting, Watcher
from shared.errors import Unavailable
from shared.protocol import Hello

HELLO = Hello(id="b" * 16, instance="1", role="peer", name="bert", schedules=True)


class Hosts:
    """Who answers where; an address with ``None`` is silent for ever."""

    def __init__(self, **hosts: Hello | None) -> None:
        self.hosts = {f"{name}:1": hello for name, hello in hosts.items()}
        self.asked: list[str] = []
        self.asking = self.most = 0

    async def ask(self, address: str) -> tuple[Hello, float]:
        self.asked.append(address)
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            if address not in self.hosts:
                raise Unavailable("nobody is there")
            hello = self.hosts[address]
            if hello is None:
                await trio.sleep_forever()
            return hello, 0.25
        finally:
            self.asking -= 1


def sighting(name: str, *more: str, id: str = "") -> Sighting:
    return Sighting("mdns", name, tuple(f"{place}:1" for place in (name, *more)), id, "peer", name)


def looker(hosts: Hosts, **lan: object) -> Looker:
    config = Config(lan=msgspec.structs.replace(LanConfig(), **lan))
    return Looker(config, hosts.ask, clock=lambda: 7.0)


async def test_others_have_time_to_be_seen(autojump_clock: MockClock) -> None:
    hosts = Hosts(bert=HELLO)
    eyes = looker(hosts)
    async with trio.open_nursery() as nursery:

        async def see() -> None:
            await trio.sleep(FIRST_LOOK - 0.1)
            eyes.seen(sighting("bert"))

        nursery.start_soon(see)
        view = await eyes.view(True)
    assert [(host.name, host.state, host.rtt, host.since) for host in view.hosts] == [
        ("bert", "present", 0.25, 7.0)
    ]
    before = trio.current_time()
    await eyes.view(True)
    assert trio.current_time() == before
    assert hosts.asked == ["bert:1"] * 2


async def test_who_answered_is_asked_again_only_when_told_so(autojump_clock: MockClock) -> None:
    hosts = Hosts(bert=HELLO)
    eyes = looker(hosts)
    eyes.seen(sighting("bert"))
    await eyes.view(True)
    eyes.seen(sighting("carl"))
    assert [host.state for host in (await eyes.view(False)).hosts] == ["present", "unknown"]
    assert hosts.asked == ["bert:1", "carl:1"]
    del hosts.hosts["bert:1"]
    assert [host.state for host in (await eyes.view(True)).hosts] == ["absent", "unknown"]
    eyes.gone("mdns", "bert")
    eyes.gone("mdns", "bert")
    assert [host.name for host in (await eyes.view(True)).hosts] == ["carl"]


async def test_all_addresses_are_tried_and_the_id_must_be_right(autojump_clock: MockClock) -> None:
    other = msgspec.structs.replace(HELLO, id="x" * 16)
    eyes = looker(Hosts(wrong=other, right=HELLO))
    eyes.seen(sighting("silent", "wrong", "right", id=HELLO.id))
    (host,) = (await eyes.view(True)).hosts
    assert (host.state, host.address) == ("present", "right:1")
    eyes.seen(sighting("silent", "wrong", id=HELLO.id))
    assert (await eyes.view(True)).hosts[0].state == "absent"


async def test_many_who_do_not_exist_hold_nothing_up(autojump_clock: MockClock) -> None:
    ghosts: dict[str, Hello | None] = {f"g{number}": None for number in range(300)}
    hosts = Hosts(**ghosts, bert=HELLO)
    eyes = looker(hosts)
    eyes.seen(sighting("bert"))
    for name in ghosts:
        eyes.seen(sighting(name))
    assert [host.name for host in (await eyes.view(True)).hosts if host.state == "present"] == ["bert"]


async def test_no_more_are_remembered_than_the_setting_says(autojump_clock: MockClock) -> None:
    ghosts: dict[str, Hello | None] = {f"g{number}": None for number in range(1000)}
    hosts = Hosts(**ghosts)
    eyes = looker(hosts)
    for name in ghosts:
        eyes.seen(sighting(name))
    began = trio.current_time()
    view = await eyes.view(True)
    assert trio.current_time() - began == pytest.approx(FIRST_LOOK + ASKING)
    assert len(view.hosts) == 512
    assert view.ignored == {"full": 1000 - 512}
    assert hosts.most == AT_ONCE
    assert hosts.asking == 0


class OneSource:
    """Tells of one host, and of one that was left out."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, watcher: Watcher) -> None:
        self.runs += 1
        try:
            watcher.seen(sighting("127.0.0.1"))
            watcher.ignored("cluster")
            await trio.sleep_forever()
        finally:
            self.runs -= 1


async def test_sources_run_while_it_is_open() -> None:
    source = OneSource()
    config = Config()
    async with open_looker(config, [source]) as eyes:
        await trio.testing.wait_all_tasks_blocked()
        assert source.runs == 1
        eyes._first = False
        view = await eyes.view(True)  # port 1 of this machine: nobody is there
        assert [host.state for host in view.hosts] == ["unknown"]
        assert view.ignored == {"cluster": 1}
    assert source.runs == 0


async def test_nobody_is_looked_for_where_that_is_off(autojump_clock: MockClock) -> None:
    source = OneSource()
    config = Config(lan=LanConfig(discovery="off"))
    began = trio.current_time()
    async with open_looker(config, [source]) as eyes:
        view = await eyes.view(True)
    assert trio.current_time() == began
    assert (view.discovery, view.hosts, view.mode) == (False, (), "alone")
