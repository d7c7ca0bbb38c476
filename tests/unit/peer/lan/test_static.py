"""Hosts that the configuration names."""

from __future__ import annotations

import ipaddress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peer.lan.addresses import Interface
from peer.lan.config import LanConfig
from peer.lan.dns import DnsSource
from peer.lan.interfaces import Interfaces
from peer.lan.mdns import MdnsSource
from peer.lan.sources import sources
from peer.lan.static import StaticSource
from shared.config import WrongSetting
from tests.unit.peer.lan.watching import Watching


async def test_each_is_told_once() -> None:
    watching = Watching()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(StaticSource(["a:1", "[fe80::1%eth0]:2", "a:1"]).run, watching)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert watching.told == [("seen", "a:1"), ("seen", "[fe80::1%eth0]:2")]
    assert watching.here["a:1"].addresses == ("a:1",)
    assert watching.here["a:1"].source == "static"


def test_the_sources_that_are_asked_for() -> None:
    own = Interface("eth0", 2, (ipaddress.ip_interface("10.1.2.3/24"),))
    interfaces = Interfaces(read=lambda _: [own])

    def kinds(config: LanConfig) -> list[type]:
        return [type(source) for source in sources(config, None, interfaces)]

    assert kinds(LanConfig()) == [MdnsSource]
    assert kinds(LanConfig(mdns=False)) == []
    assert kinds(LanConfig(peers=("a:1",), dns="_x._tcp.example")) == [MdnsSource, StaticSource, DnsSource]


@pytest.mark.parametrize(
    "wrong", ["foo", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "a b:1", "*:1", "http://a:1"]
)
def test_what_cannot_be_asked_is_a_wrong_setting(wrong: str) -> None:
    with pytest.raises(WrongSetting, match="HOST:PORT") as refused:
        LanConfig(peers=("10.0.0.1:1", wrong))
    assert refused.value.key == "peers"
    with pytest.raises(WrongSetting, match="_SERVICE") as refused:
        LanConfig(dns=wrong)
    assert refused.value.key == "dns"


@pytest.mark.parametrize("dns", ["", "_dragonet._tcp.example.org", "hosts.example.org:65002"])
def test_names_in_dns(dns: str) -> None:
    assert LanConfig(dns=dns).dns == dns
