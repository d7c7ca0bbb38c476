"""What stands in an announcement, and what strangers may put there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.lan.records import (
    MAX_LABEL,
    SERVICE,
    Announced,
    Announcement,
    decode,
    encode,
    instance,
    is_instance,
    key_of,
    label,
    machine_of,
    server,
)
from shared.protocol import PROTOCOL_VERSION

MINE = Announcement(
    id="0123456789abcdef",
    role="peer",
    cluster="default",
    port=65002,
    location="berlin/rack-7",
    release="0.2.0",
    name="laptop",
)


def text(*pairs: bytes) -> bytes:
    return b"".join(bytes([len(pair)]) + pair for pair in pairs)


GOOD = (b"txtvers=1", b"cl=default", b"id=abc123", b"role=seeder", b"pv=%d" % PROTOCOL_VERSION)


def test_what_is_written_can_be_read() -> None:
    made = encode(MINE)
    assert made.startswith(b"\x09txtvers=1\x0acl=default")
    assert len(made) < 400
    assert decode(made, "default") == Announced(MINE.id, "peer", "berlin/rack-7", "0.2.0")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_location_and_release_fit(location: str, release: str) -> None:
    found = decode(encode(replace(MINE, location=location, release=release)), "default")
    assert isinstance(found, Announced)
    assert (found.location + found.release).isprintable() or not (found.location + found.release)
    assert len(found.location.encode()) <= 200


def test_keys_in_any_case_and_order_with_others_between() -> None:
    found = text(
        b"ROLE=scheduler", b"Pv=%d" % PROTOCOL_VERSION, b"flag", b"x=\xff\xfe", b"", b"ID=h1", b"=", b"\xff=1"
    )
    assert decode(found + text(b"CL=default", b"txtVers=1"), "default") == Announced(
        "h1", "scheduler", "", ""
    )


def test_of_a_key_that_is_there_twice_the_first_counts() -> None:
    assert decode(text(*GOOD, b"id=other", b"cl=other"), "default") == Announced("abc123", "seeder", "", "")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "malformed"),
        (b"\0", "malformed"),
        (b"\xff", "malformed"),
        (text(*GOOD)[:-1], "malformed"),
        (text(*GOOD[1:]), "malformed"),
        (text(*GOOD[:-1]), "malformed"),
        (text(*GOOD[:2], *GOOD[3:]), "malformed"),
        (text(b"txtvers=2", *GOOD[1:]), "protocol"),
        (text(*GOOD[:-1], b"pv=99"), "protocol"),
        (text(*GOOD[:-1], b"pv=one"), "malformed"),
        (text(*GOOD[:-1], b"pv="), "malformed"),
        (text(b"cl=other", *GOOD), "cluster"),
        (text(b"cl=", *GOOD), "malformed"),
        (text(b"cl=\xff", *GOOD), "malformed"),
        (text(b"id=a/../b", *GOOD), "malformed"),
        (text(b"id=\x1b[2J", *GOOD), "malformed"),
        (text(b"id=" + b"a" * 65, *GOOD), "malformed"),
        (text("id=ähm".encode(), *GOOD), "malformed"),
        (text(b"role=king", *GOOD), "malformed"),
        (text(b"loc=\xff", *GOOD), "malformed"),
        (text(*GOOD, *[b"x" * 255] * 6), "malformed"),
    ],
)
def test_what_is_left_out_and_why(record: bytes, reason: str) -> None:
    assert decode(record, "default") == reason


def test_control_characters_are_not_believed() -> None:
    found = decode(text(b"loc=a\x1b]0;b\nc", b"rel=1\x00", *GOOD), "default")
    assert found == Announced("abc123", "seeder", "a?]0;b?c", "1?")


@given(st.binary(max_size=1500))
def test_any_bytes_are_read_or_refused(record: bytes) -> None:
    assert decode(record, "default") in ("malformed", "protocol", "cluster")


@given(st.lists(st.binary(max_size=60)).map(lambda parts: text(*GOOD[:3], *parts, *GOOD[3:])))
def test_anything_between_the_pairs(record: bytes) -> None:
    found = decode(record, "default")
    assert isinstance(found, Announced) or found in ("malformed", "protocol", "cluster")


def test_labels() -> None:
    assert label(MINE) == "laptop-01234567"
    assert label(MINE, 2) == "laptop-01234567-2"
    assert label(replace(MINE, name="node.example.org")) == "node-example-org-01234567"
    assert label(replace(MINE, name="")) == "host-01234567"
    assert server(label(MINE)) != server(label(MINE, 2))
    assert server(label(MINE)).endswith(".local.")


@given(st.text(max_size=100), st.integers(1, 9))
def test_a_label_is_never_too_long(name: str, number: int) -> None:
    made = label(replace(MINE, name=name), number)
    assert len(made.encode()) <= MAX_LABEL
    assert made.isprintable()
    assert "." not in made
    assert is_instance(instance(made))
    assert key_of(instance(made)) == made.lower()


def test_names_of_instances() -> None:
    assert is_instance("x._dragonet._tcp.local.")
    assert is_instance("X._Dragonet._TCP.local.")
    for other in (SERVICE, "." + SERVICE, "x._http._tcp.local.", "", "x._dragonet._tcp.local.evil."):
        assert not is_instance(other)


def test_a_key_is_short_and_can_be_printed() -> None:
    assert key_of("Laptop-01234567." + SERVICE) == "laptop-01234567"
    for odd in ("a\x1b[2Jb", "a\0", "ä" * 200, "\ud800", "x" * 64):
        key = key_of(f"{odd}.{SERVICE}")
        assert key.startswith("#")
        assert len(key) < 64
    assert key_of(f"a\0.{SERVICE}") != key_of(f"b\0.{SERVICE}")


def test_the_name_of_the_machine() -> None:
    assert machine_of(instance(label(MINE)), MINE.id) == "laptop"
    assert machine_of(instance(label(MINE, 3)), MINE.id) == "laptop"
    assert machine_of(f"something\x1b else.{SERVICE}", MINE.id) == "something? else"
