"""Whom a host of a LAN takes for a neighbour, whoever says so."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path
from typing import cast

import pytest

from peer.hosting import Place, is_near
from peer.lan.addresses import Interface
from peer.lan.interfaces import Interfaces
from peer.lan.plan import Plan
from shared.service import Service

CARD = Interface("eth0", 2, (ip_interface("198.51.100.7/24"), ip_interface("2001:db8::7/64")))


def place(bound: str) -> Place:
    return Place(
        service=cast(Service, None),
        plan=cast(Plan, None),
        bound=bound,
        folder=Path(),
        interfaces=Interfaces(read=lambda _: [CARD]),
    )


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("192.168.1.3:65002", True),
        ("198.51.100.9:65002", True),
        ("[2001:db8::9]:65002", True),
        ("[fe80::9%eth0]:65002", True),
        ("203.0.113.5:80", False),
        ("[2001:db8:1::9]:65002", False),
        ("example.org:80", False),
        ("127.0.0.1:22", False),
        ("[::1]:22", False),
        ("", False),
    ],
)
def test_neighbours(address: str, near: bool) -> None:
    assert is_near(place("*:65002"), address) is near


def test_hosts_on_loopback_are_each_others_neighbours() -> None:
    assert is_near(place("127.0.0.1:65002"), "127.0.0.1:65012")
