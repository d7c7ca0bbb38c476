"""What a host tells others of where it is."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

import msgspec
import pytest

from peer.config import Config, HostConfig
from peer.hosting import Place, _address, _connections, _network
from peer.lan.addresses import Interface
from peer.lan.interfaces import Interfaces
from peer.lan.plan import Plan
from shared.http.limits import ServerLimits
from shared.service import Service

LOCAL, REMOTE = "http://127.0.0.1:8002", "http://192.0.2.1:8002"
WIRED = Interface("eth0", 2, (ip_interface("192.168.7.5/24"), ip_interface("fd00:7::5/64")))
FOUND = ""


def place(bound: str, scheduler: str, *, discovers: bool, there: tuple[Interface, ...] = (WIRED,)) -> Place:
    return Place(
        service=Service("peer", limits=ServerLimits()),
        plan=Plan(discovers, False, bound, False, scheduler),
        bound=bound,
        folder=Path("/nowhere"),
        interfaces=Interfaces(read=lambda _patterns: list(there)),
    )


def config(advertise: str = "") -> Config:
    return Config(host=HostConfig(advertise=advertise))


@pytest.mark.parametrize(
    ("bound", "scheduler", "discovers", "advertise", "expected"),
    [
        ("*:65002", FOUND, True, "", "*:65002"),
        ("127.0.0.1:9", FOUND, True, "", "127.0.0.1:9"),
        ("192.168.7.5:65002", FOUND, True, "", "192.168.7.5:65002"),
        ("*:65002", FOUND, True, "host.lan", "host.lan:65002"),
        ("*:65002", LOCAL, True, "", "192.168.7.5:65002"),
        ("0.0.0.0:65002", LOCAL, False, "", "192.168.7.5:65002"),
        ("127.0.0.1:65002", LOCAL, False, "", "127.0.0.1:65002"),
        ("0.0.0.0:65002", LOCAL, False, "127.0.0.1:7", "127.0.0.1:7"),
        ("10.1.1.1:65002", REMOTE, False, "", "10.1.1.1:65002"),
    ],
)
def test_the_address(bound: str, scheduler: str, discovers: bool, advertise: str, expected: str) -> None:
    assert _address(config(advertise), place(bound, scheduler, discovers=discovers)) == expected


def test_without_a_network_it_is_loopback() -> None:
    assert _address(config(), place("*:65002", LOCAL, discovers=True, there=())) == "127.0.0.1:65002"


def test_the_network_is_one_of_this_machines() -> None:
    interfaces = place("*:1", FOUND, discovers=True).interfaces
    assert _network(interfaces, "*:65002") == "192.168.7.0/24"
    assert _network(interfaces, "192.168.7.5:65002") == "192.168.7.0/24"
    assert _network(interfaces, "[fd00:7::5]:65002") == "fd00:7::/64"
    assert _network(interfaces, "203.0.113.9:65002") == ""
    assert _network(interfaces, "host.lan:65002") == ""
    assert _network(interfaces, "127.0.0.1:65002") == ""


def test_the_links_have_room_for_a_whole_ring() -> None:
    ring = msgspec.structs.replace(config(), lan=msgspec.structs.replace(config().lan, max_ring=256))
    assert _connections(ring, Plan(True, True, "*:1", True, "")) >= 3 * 256
    assert _connections(ring, Plan(False, False, "*:1", True, LOCAL)) < 64
