"""Which addresses hosts tell each other of."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.lan.knows import on_loopback, some, told
from shared.protocol import MAX_KNOWS


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("10.1.2.3:65002", "10.1.2.3:65002"),
        ("192.168.0.9:1", "192.168.0.9:1"),
        ("172.16.0.1:065", "172.16.0.1:65"),
        ("[fd00::1]:65002", "[fd00::1]:65002"),
        ("[FD00:0::1]:65002", "[fd00::1]:65002"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
    ],
)
def test_private_addresses_are_told(text: str, kept: str) -> None:
    assert told(text, loopback=False) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:٣",
        "10.1:80",
        "host:65002",
        "localhost:65002",
        "8.8.8.8:65002",
        "100.64.0.1:65002",
        "[2001:db8::1]:65002",
        "169.254.1.1:65002",
        "[fe80::1%eth0]:65002",
        "[fe80::1]:65002",
        "[fd00::1%eth0]:65002",
        "224.0.0.251:5353",
        "0.0.0.0:65002",
        "127.0.0.1:65002",
        "[::1]:65002",
        "10.0.0.1:80/../",
        "http://10.0.0.1:80",
    ],
)
def test_others_are_not(text: str) -> None:
    assert told(text, loopback=False) == ""


def test_loopback_is_told_on_one_machine_alone() -> None:
    assert told("127.0.0.1:65002", loopback=True) == "127.0.0.1:65002"
    assert told("[::1]:65002", loopback=True) == "[::1]:65002"
    assert told("8.8.8.8:65002", loopback=True) == ""


def test_some_are_told_others_each_time() -> None:
    places = [("[fe80::1%e]:1", f"10.0.0.{number}:1") for number in range(40)] + [("8.8.8.8:1",)]
    rng = Random(7)
    first, second = (some(places, rng, loopback=False) for _ in range(2))
    assert len(first) == len(second) == MAX_KNOWS
    assert len(set(first)) == MAX_KNOWS
    assert set(first) != set(second)
    assert some([], rng, loopback=False) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5", True),
        ("127.0.0.1", True),
        ("[::1]:5", True),
        ("::1:40000", True),
        ("::1:4000", False),  # an address of its own, and what is not sure is not loopback
        ("10.0.0.1:5", False),
        ("unix", False),
        ("", False),
    ],
)
def test_what_is_on_loopback(text: str, *, expected: bool) -> None:
    assert on_loopback(text) is expected


@given(st.text(max_size=80), st.booleans())
def test_nothing_that_is_told_is_strange(text: str, loopback: bool) -> None:
    kept = told(text, loopback=loopback)
    assert told(kept, loopback=loopback) == kept
