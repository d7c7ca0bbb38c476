"""Which interfaces are used, which address is best, and who is near."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from peer.lan import interfaces as module
from peer.lan.addresses import Interface, host_port, own_addresses, reachable
from peer.lan.interfaces import Interfaces, is_chosen, read_interfaces


def interface(name: str, *addresses: str, index: int = 2, real: bool = True) -> Interface:
    return Interface(name, index, tuple(ipaddress.ip_interface(address) for address in addresses), real)


ETH = interface("eth0", "10.1.2.3/24", "2001:db8:5::3/64", "fe80::3/64", index=2)
WLAN = interface("wlan0", "192.168.7.3/24", "fe80::7/64", index=3)


def fixed(*given: Interface, patterns: tuple[str, ...] = ()) -> Interfaces:
    return Interfaces(patterns, read=lambda _: list(given))


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "bond0", "br0", "eth0.7", "en0", "wlp2s0"])
def test_interfaces_that_lead_to_neighbours_are_chosen(name: str) -> None:
    assert is_chosen(name, ())


@pytest.mark.parametrize(
    "name",
    [
        *("lo", "lo0", "docker0", "br-1f2e3d4c5b6a", "veth12ab", "virbr0", "cni0", "flannel.1", "cali12345"),
        *("tun0", "tap1", "wg0", "tailscale0", "utun3", "awdl0", "vxlan.calico", "ppp0"),
    ],
)
def test_those_of_containers_and_tunnels_are_not(name: str) -> None:
    assert not is_chosen(name, ())


def test_patterns_choose_whatever_they_match() -> None:
    assert is_chosen("br-lan", ("br-*",))
    assert is_chosen("docker0", ("eth*", "docker0"))
    assert not is_chosen("eth0", ("en*",))
    assert not is_chosen("ETH0", ("eth*",))


def test_the_machine_of_the_test_can_be_read() -> None:
    for found in read_interfaces(("*",)):
        assert found.name
        assert found.index > 0
        assert not any(address.ip.is_loopback for address in found.addresses)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flags").write_text("0x1003\n")
    (tmp_path / "carrier").write_text("1\n")
    return tmp_path


def test_an_interface_is_used_when_it_is_up_with_a_carrier(folder: Path) -> None:
    assert module._is_usable(folder, by_pattern=False)
    (folder / "carrier").write_text("0\n")
    assert not module._is_usable(folder, by_pattern=False)
    assert not module._is_usable(folder, by_pattern=True)
    (folder / "carrier").unlink()
    assert module._is_usable(folder, by_pattern=False)
    (folder / "flags").write_text("0x1002\n")
    assert not module._is_usable(folder, by_pattern=True)


def test_tunnels_are_used_only_when_they_are_asked_for(folder: Path) -> None:
    (folder / "tun_flags").write_text("0x1\n")
    assert not module._is_usable(folder, by_pattern=False)
    assert module._is_usable(folder, by_pattern=True)
    (folder / "tun_flags").unlink()
    (folder / "flags").write_text("0x10d1\n")  # point to point
    assert not module._is_usable(folder, by_pattern=False)


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert module._is_usable(tmp_path / "none", by_pattern=False)
    assert module._unready(tmp_path / "none") == frozenset()


def test_addresses_that_are_being_asked_for_are_not_ready(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text(
        "fe80000000000000a80038fffe70b6e6 02 40 20 c0     eth0\n"
        "fd000000000000000000000000000002 02 40 00 82     eth0\n"
        "fd000000000000000000000000000003 02 40 00 88     eth0\n"
        "nonsense\n"
    )
    assert module._unready(table) == {"fe80::a800:38ff:fe70:b6e6", "fd00::3"}


@pytest.mark.parametrize(
    ("given", "best"),
    [
        ([ETH, WLAN], "10.1.2.3"),
        ([interface("br0", "10.9.9.9/24", index=1, real=False), ETH], "10.1.2.3"),
        ([interface("eth0", "203.0.113.5/24", "fe80::1/64"), WLAN], "192.168.7.3"),
        ([interface("eth0", "203.0.113.5/24", "fe80::1/64")], "203.0.113.5"),
        ([interface("eth0", "fe80::1/64", "2001:db8::1/64")], "2001:db8::1"),
        ([interface("eth0", "fe80::1/64", "fd00::1/64")], "fd00::1"),
        ([interface("eth0", "169.254.3.4/16", "fe80::1/64")], "169.254.3.4"),
        ([interface("eth0", "fe80::1/64")], "fe80::1%eth0"),
        ([], ""),
    ],
)
def test_the_address_to_tell_others(given: list[Interface], best: str) -> None:
    assert fixed(*given).primary() == best


def test_the_network_of_an_address() -> None:
    found = fixed(ETH, WLAN)
    assert found.network_of("10.1.2.200") == "10.1.2.0/24"
    assert found.network_of("192.168.7.1") == "192.168.7.0/24"
    assert found.network_of("2001:db8:5::77") == "2001:db8:5::/64"
    assert found.network_of("::ffff:10.1.2.9") == "10.1.2.0/24"
    for elsewhere in ("10.1.3.1", "fe80::3", "fe80::3%eth0", "127.0.0.1", "", "nonsense", "2001:db8:6::1"):
        assert found.network_of(elsewhere) == ""


@pytest.mark.parametrize(
    ("ip", "admitted"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.200.1.1", True),
        ("172.31.0.1", True),
        ("192.168.99.1", True),
        ("169.254.1.1", True),
        ("fe80::1%eth9", True),
        ("fd12::1", True),
        ("2001:db8:5::abcd", True),
        ("::ffff:192.168.1.1", True),
        ("2001:db8:6::1", False),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("172.32.0.1", False),
        ("100.64.0.1", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_who_is_admitted(ip: str, admitted: bool) -> None:
    assert fixed(ETH, WLAN).admits(ip) is admitted


def test_all_addresses_of_a_machine_best_first() -> None:
    assert own_addresses([WLAN, ETH]) == [
        *("10.1.2.3", "192.168.7.3", "2001:db8:5::3", "fe80::3%eth0", "fe80::7%wlan0"),
    ]


def test_addresses_of_a_neighbour_in_our_subnets_come_first() -> None:
    told = ["fe80::9%2", "fd00::9", "172.16.0.9", "2001:db8:5::9", "10.1.2.9", "192.168.7.9"]
    assert reachable(told, [ETH, WLAN]) == [
        *("10.1.2.9", "192.168.7.9", "2001:db8:5::9", "fe80::9%eth0", "172.16.0.9", "fd00::9"),
    ]


def test_nobody_can_send_us_to_strangers() -> None:
    told = [
        "8.8.8.8",
        "127.0.0.1",
        "::1",
        "224.0.0.251",
        "0.0.0.0",
        "::",
        "2001:db8:99::1",
        "x",
        "fe80::9%77",
    ]
    assert reachable(told, [ETH, WLAN]) == []
    assert reachable(["10.1.2.9"], []) == ["10.1.2.9"]


def test_the_zone_of_a_link_local_address() -> None:
    assert reachable(["fe80::9"], [ETH]) == ["fe80::9%eth0"]
    assert reachable(["fe80::9"], [ETH, WLAN]) == []
    assert reachable(["fe80::9", "192.168.7.9"], [ETH, WLAN]) == ["192.168.7.9", "fe80::9%wlan0"]
    assert reachable(["fe80::9%3"], [ETH, WLAN]) == ["fe80::9%wlan0"]
    assert reachable(["fe80::9%wlan0"], [ETH, WLAN]) == ["fe80::9%wlan0"]
    assert reachable(["fe80::9"], [interface("eth0", "10.1.2.3/24")]) == []


def test_hosts_with_ports() -> None:
    assert host_port("10.1.2.3", 80) == "10.1.2.3:80"
    assert host_port("fe80::1%eth0", 80) == "[fe80::1%eth0]:80"


async def test_changes_are_noticed(autojump_clock: MockClock) -> None:
    given = [[ETH], [ETH], [ETH, WLAN], [ETH, WLAN], []]
    found = Interfaces(read=lambda _: given.pop(0) if len(given) > 1 else given[0])
    assert found.current() == [ETH]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await found.changed.wait()
        assert found.current() == [ETH, WLAN]
        await found.changed.wait()
        assert found.current() == []
        nursery.cancel_scope.cancel()


async def test_a_system_that_cannot_be_read_is_told_once(autojump_clock: MockClock) -> None:

    def read(_: object) -> list[Interface]:
        raise OSError("no more descriptors")

    with structlog.testing.capture_logs() as logs:
        found = Interfaces(read=read)
        with trio.move_on_after(10):
            await found.run()
    assert found.current() == []
    assert [entry["log_level"] for entry in logs] == ["warning"]
