"""What is made of sightings and answers."""

import msgspec
import pytest

from peer.lan.folding import Seen, fold
from peer.lan.sightings import Sighting
from peer.lan.views import HostView, LanView
from shared.protocol import PROTOCOL_VERSION, Hello

HELLO = Hello(
    id="b" * 16,
    instance="1",
    role="peer",
    release="0.1.0",
    name="bert",
    location="attic",
    schedules=True,
    tasks=2,
    held=2048,
)
BERT = Sighting("mdns", "bert-bbbb", ("10.0.0.2:65002", "[fe80::2%eth0]:65002"), "b" * 16, "peer", "bert")


def seen(sighting: Sighting = BERT, hello: Hello | None = HELLO, present: bool = True) -> Seen:
    address = sighting.addresses[0] if hello else ""
    return Seen(sighting, True, hello, address, 0.001 if hello else None, present and hello is not None, 50.0)


def folded(*all_seen: Seen, configured: str = "", **ignored: int) -> LanView:
    return fold(all_seen, cluster="default", configured=configured, name="anna", ignored=ignored)


def test_nobody() -> None:
    assert folded() == LanView(here=HostView(id="", name="anna", state="absent"))


def test_one_who_answers() -> None:
    view = folded(seen())
    assert view.mode == "ring"
    assert view.hosts == (
        HostView(
            id="b" * 16,
            name="bert",
            role="peer",
            address="10.0.0.2:65002",
            addresses=BERT.addresses,
            version="0.1.0",
            location="attic",
            state="present",
            rtt=0.001,
            found=("mdns",),
            tasks=2,
            held=2048,
            member=True,
            schedules=True,
            since=50.0,
        ),
    )


def test_one_who_does_not() -> None:
    view = folded(seen(hello=None))
    assert view.mode == "alone"
    (host,) = view.hosts
    assert (host.id, host.name, host.role, host.state) == ("b" * 16, "bert", "peer", "unknown")
    assert host.addresses == BERT.addresses
    (gone,) = folded(seen(present=False)).hosts
    assert (gone.state, gone.member, gone.since) == ("absent", False, 50.0)


def test_one_who_was_found_in_two_ways_is_one_host() -> None:
    static = Sighting("static", "bert.lan:65002", ("bert.lan:65002",))
    (host,) = folded(seen(present=False), seen(static)).hosts
    assert host.state == "present"
    assert host.address == "bert.lan:65002"
    assert host.found == ("mdns", "static")
    assert set(host.addresses) == {*BERT.addresses, "bert.lan:65002"}


def test_silent_addresses_without_an_id_are_told_apart() -> None:
    nobody = [seen(Sighting("static", f"10.0.0.{n}:1", (f"10.0.0.{n}:1",)), None) for n in range(3)]
    assert len({host.id for host in folded(*nobody).hosts}) == 3


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (msgspec.structs.replace(HELLO, cluster="lab"), "cluster"),
        (msgspec.structs.replace(HELLO, version=PROTOCOL_VERSION + 1), "protocol"),
    ],
)
def test_hosts_of_others_are_left_out(hello: Hello, reason: str) -> None:
    view = folded(seen(hello=hello), **{reason: 2})
    assert view.hosts == ()
    assert view.ignored == {reason: 3}


def test_who_schedules() -> None:
    zeus = seen(
        Sighting("mdns", "zeus", ("10.0.0.9:8002",)),
        msgspec.structs.replace(HELLO, id="s" * 16, role="scheduler"),
    )
    found = folded(seen(), zeus)
    assert (found.mode, found.schedulers) == ("scheduler", ("http://10.0.0.9:8002",))
    told = folded(seen(), zeus, configured="http://s:1")
    assert (told.mode, told.schedulers) == ("configured", ("http://s:1",))
