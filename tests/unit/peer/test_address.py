"""Under which address other hosts reach this one."""

from __future__ import annotations

import pytest

from peer.address import advertised_address, host_of, in_url, own_address, port_of

NEAR = "http://127.0.0.1:8002"


@pytest.mark.parametrize(
    ("bound", "advertise", "scheduler", "expected"),
    [
        ("10.0.0.1:65002", "", NEAR, "10.0.0.1:65002"),
        ("10.0.0.1:65002", "", "", "10.0.0.1:65002"),
        ("0.0.0.0:65002", "", NEAR, "127.0.0.1:65002"),
        ("*:65002", "", NEAR, "127.0.0.1:65002"),
        ("[::]:65002", "", "", "[::]:65002"),
        ("*:65002", "", "", "*:65002"),
        ("*:65002", "host.lan", "", "host.lan:65002"),
        ("*:65002", "host.lan:1", NEAR, "host.lan:1"),
        ("*:65002", "[fd00::1]", "", "[fd00::1]:65002"),
        ("*:65002", "[fd00::1]:9", "", "[fd00::1]:9"),
    ],
)
def test_what_others_are_told(bound: str, advertise: str, scheduler: str, expected: str) -> None:
    assert advertised_address(bound, advertise, scheduler) == expected


@pytest.mark.parametrize(
    ("address", "primary", "expected"),
    [
        ("*:65002", "192.168.1.7", "192.168.1.7:65002"),
        ("0.0.0.0:65002", "fd00::7", "[fd00::7]:65002"),
        ("[::]:65002", "", "127.0.0.1:65002"),
        ("10.0.0.1:65002", "192.168.1.7", "10.0.0.1:65002"),
        ("host.lan:1", "192.168.1.7", "host.lan:1"),
    ],
)
def test_what_the_own_scheduler_is_told(address: str, primary: str, expected: str) -> None:
    assert own_address(address, primary) == expected


def test_parts() -> None:
    assert host_of("[fd00::1]:65002") == "fd00::1"
    assert host_of("10.0.0.1:1") == "10.0.0.1"
    assert host_of("*:1") == host_of("0.0.0.0:1") == host_of("[::]:1") == ""
    assert port_of("[fd00::1]:65002") == port_of("*:65002") == 65002
    assert in_url("fe80::1%eth0") == "[fe80::1%eth0]"
    assert in_url("10.0.0.1") == "10.0.0.1"
