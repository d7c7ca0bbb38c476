"""The ear at zeroconf's records: packets are read by zeroconf itself, nothing is sent.

What an ear raises would be written to stderr by zeroconf's compiled code; here such a thing fails the test.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zeroconf import DNSIncoming, DNSOutgoing, ServiceInfo  # type: ignore[attr-defined]
from zeroconf._cache import DNSCache
from zeroconf._dns import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText
from zeroconf._handlers.record_manager import RecordManager

from peer.lan.addresses import Interface
from peer.lan.ear import AAAA, IN, PTR, SRV, TXT, A, Ear
from peer.lan.hearing import Hearing, Instance
from peer.lan.records import SERVICE, Announcement, encode, instance, label, server
from peer.lan.responder import _choice

OTHER = Announcement(id="b" * 16, role="peer", cluster="default", port=7000, name="other")
UNIQUE = 0x8001


class Wire:
    """An ear beside zeroconf's cache, and what it has heard."""

    def __init__(self, limit: int = 100) -> None:
        self.hearing = Hearing("default", limit, lambda: None)
        self.cache: Any = DNSCache()
        self.loop = SimpleNamespace(call_soon_threadsafe=lambda do, *what: do(*what))
        self.ear = Ear(self.hearing)
        self._manager = RecordManager(self)  # type: ignore[arg-type]
        self._manager.async_add_listener(self.ear, None)

    def async_notify_all(self) -> None:
        """Nobody waits."""

    def say(self, *records: DNSRecord) -> None:
        out = DNSOutgoing(0x8400)
        for record in records:
            out.add_answer_at_time(record, 0)
        for packet in out.packets():
            self.bytes(packet)

    def bytes(self, packet: bytes, scope: int | None = None) -> None:
        message = DNSIncoming(packet, ("10.0.0.9", 5353), scope, time.monotonic() * 1000)
        if message.valid and not message.is_query():
            self._manager.async_updates_from_response(message)

    @property
    def names(self) -> list[str]:
        return sorted(self.cache.names())

    def news(self) -> list[Instance | None]:
        return [found for _, found in self.hearing.take(1000)[0]]


@pytest.fixture
def wire() -> Wire:
    return Wire()


def records(announcement: Announcement, *addresses: str, ttl: int = 120) -> list[DNSRecord]:
    mine = label(announcement)
    name, host = instance(mine), server(mine)
    return [
        DNSPointer(SERVICE, PTR, IN, ttl, name),
        DNSService(name, SRV, UNIQUE, ttl, 0, 0, announcement.port, host),
        DNSText(name, TXT, UNIQUE, ttl, encode(announcement)),
        *(address(host, text, ttl) for text in addresses),
    ]


def address(host: str, text: str, ttl: int = 120) -> DNSRecord:
    packed = ipaddress.ip_address(text).packed
    return DNSAddress(host, A if len(packed) == 4 else AAAA, UNIQUE, ttl, packed)


def test_an_announcement_is_heard_once(wire: Wire) -> None:
    for _ in range(3):
        wire.say(*records(OTHER, "10.0.0.9", "fd00::9"))
    (found,) = wire.news()
    assert found is not None
    assert found.announced.id == OTHER.id
    assert found.port == 7000
    assert found.addresses == ("10.0.0.9", "fd00::9")
    assert not wire.ear.wanted


def test_a_goodbye_and_a_return(wire: Wire) -> None:
    wire.say(*records(OTHER, "10.0.0.9"))
    assert wire.news()
    wire.say(*records(OTHER, "10.0.0.9", ttl=0))
    assert wire.news() == [None]
    assert wire.names == []
    wire.say(*records(OTHER, "10.0.0.9"))
    assert wire.news()


def test_a_link_local_address_has_the_number_of_its_interface(wire: Wire) -> None:
    out = DNSOutgoing(0x8400)
    for record in records(OTHER, "fe80::9", "fd00::9"):
        out.add_answer_at_time(record, 0)
    wire.bytes(out.packets()[0], scope=4)
    (found,) = wire.news()
    assert found is not None
    assert found.addresses == ("fd00::9", "fe80::9%4")


def test_records_that_come_one_by_one(wire: Wire) -> None:
    pointer, service, text, host = records(OTHER, "10.0.0.9")
    for record in (pointer, service, text):
        wire.say(record)
        assert wire.news() == []
        assert list(wire.ear.wanted) == [instance(label(OTHER))]
    wire.say(host)
    assert len(wire.news()) == 1
    assert not wire.ear.wanted


def test_what_is_missing_is_asked_for_some_times(wire: Wire) -> None:
    name = instance(label(OTHER))
    pointer, service, *_ = records(OTHER)
    wire.say(pointer)
    asked: Any = wire
    assert [question.type for question in wire.ear.questions(asked, name)] == [SRV, TXT]
    wire.say(service)
    assert [question.type for question in wire.ear.questions(asked, name)] == [SRV, TXT, A, AAAA]
    assert wire.ear.questions(asked, name)
    assert wire.ear.questions(asked, name) == []
    assert not wire.ear.wanted
    assert wire.names == []


def test_another_port_is_heard(wire: Wire) -> None:
    wire.say(*records(OTHER, "10.0.0.9"))
    wire.news()
    pointer, _, text, host = records(OTHER, "10.0.0.9")
    name = instance(label(OTHER))
    wire.say(pointer, DNSService(name, SRV, UNIQUE, 120, 0, 0, 8000, server(label(OTHER))), text, host)
    assert [found.port for found in wire.news() if found] == [8000]


def test_what_is_not_about_dragonet_leaves_the_cache(wire: Wire) -> None:
    wire.say(
        DNSPointer("_http._tcp.local.", PTR, IN, 4500, "printer._http._tcp.local."),
        DNSService("printer._http._tcp.local.", SRV, UNIQUE, 120, 0, 0, 80, "printer.local."),
        DNSText("printer._http._tcp.local.", TXT, UNIQUE, 4500, b"\x03a=b"),
        address("printer.local.", "10.0.0.50"),
        DNSPointer(SERVICE, PTR, IN, 4500, "elsewhere.local."),
        DNSPointer("9.0.0.10.in-addr.arpa.", PTR, IN, 4500, "printer.local."),
    )
    assert wire.names == []
    assert wire.news() == []


def test_what_is_beyond_the_bound_leaves_the_cache() -> None:
    wire = Wire(limit=20)
    for number in range(3000):
        fake = Announcement(id=f"{number:016x}", role="peer", cluster="default", port=1, name=f"f{number}")
        wire.say(*records(fake, "10.9.9.9"))
    for number in range(3000):
        wire.say(DNSPointer(SERVICE, PTR, IN, 4500, instance(f"alone-{number}")))
    assert len(wire.hearing) == 20
    assert len(wire.ear.wanted) <= 64
    assert len(wire.names) < 20 * 2 + 64 + 2
    assert wire.hearing.take(0)[1]["full"] == 2980


def test_somebody_with_too_many_addresses(wire: Wire) -> None:
    host = server(label(OTHER))
    for number in range(30):
        wire.say(*(address(host, f"10.{number}.0.{place}") for place in range(60)), *records(OTHER))
    assert len(wire.news()) <= 1
    assert wire.hearing.take(0)[1]["malformed"] >= 1 or len(wire.names) <= 4
    assert len(wire.cache.entries_with_name(host)) <= 130


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes(packet: bytes) -> None:
    Wire().bytes(packet)


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_announcements_with_bytes_changed(seed: int, changes: int) -> None:
    wire = Wire()
    out = DNSOutgoing(0x8400)
    for record in records(OTHER, "10.0.0.9", "fe80::9"):
        out.add_answer_at_time(record, 0)
    packet = bytearray(out.packets()[0])
    chance = random.Random(seed)
    for _ in range(changes):
        packet[chance.randrange(12, len(packet))] = chance.randrange(256)
    wire.bytes(bytes(packet))
    wire.say(*records(OTHER, "10.0.0.9"))
    wire.say(*records(OTHER, "10.0.0.9", ttl=0))


def interface(name: str, index: int, *addresses: str) -> Interface:
    return Interface(name, index, tuple(ipaddress.ip_interface(text) for text in addresses))


def _choices() -> Iterator[tuple[list[Interface], list[str | int]]]:
    eth = interface("eth0", 2, "10.0.0.1/24", "10.0.0.2/24", "fd00::1/64", "fe80::1/64")
    yield [eth], ["10.0.0.1", "fe80::1"]
    yield [interface("eth0", 2, "fd00::1/64")], [2]
    yield [interface("eth0", 2, "fe80::1/64"), interface("eth0.7", 3, "fe80::1/64")], [2, 3]
    yield [], []


@pytest.mark.parametrize(("given", "chosen"), list(_choices()))
def test_what_zeroconf_is_told(given: list[Interface], chosen: list[str | int]) -> None:
    assert _choice(given) == chosen


def test_what_we_announce_fits_one_packet() -> None:
    full = Announcement(
        id="f" * 64,
        role="scheduler",
        cluster="c" * 64,
        port=65535,
        location="ä" * 300,
        release="1" * 99,
        name="ü" * 99,
    )
    info = ServiceInfo(
        SERVICE,
        instance(label(full)),
        port=full.port,
        properties=encode(full),
        server=server(label(full)),
        parsed_addresses=[f"fd00::{number}" for number in range(8)],
    )
    out = DNSOutgoing(0x8400)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    assert [len(packet) < 1200 for packet in out.packets()] == [True]
