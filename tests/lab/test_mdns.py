"""mDNS with real multicast between machines: who is seen, who is gone, and what garbage does."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.net import wait_until
from tests.integration.processes import BAD_WORDS, clean_environment
from tests.lab.network import Machine, Network, ip

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root: make lab"),
]

MIB = 1024 * 1024


class Seer:
    """A MdnsSource on a machine (tests/lab/seeing.py), and what it has told so far."""

    def __init__(self, machine: Machine, folder: Path, host: str, *flags: str) -> None:
        self.machine = machine
        self.host = host
        self.log = folder / f"{host}-{len(list(folder.iterdir()))}.log"
        with self.log.open("wb") as output:
            self.process = machine.start(
                [sys.executable, "-m", "tests.lab.seeing", host, *flags], clean_environment(folder), output
            )

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    @property
    def seen(self) -> dict[str, dict[str, Any]]:
        """Who is there now, by key."""
        found: dict[str, dict[str, Any]] = {}
        for event in self.events:
            if event["event"] == "seen":
                found[event["key"]] = event
            elif event["event"] == "gone":
                found.pop(event["key"], None)
        return found

    @property
    def ids(self) -> set[str]:
        return {event["id"] for event in self.seen.values()}

    @property
    def ever_gone(self) -> set[str]:
        return {event["key"] for event in self.events if event["event"] == "gone"}

    def ignored(self, reason: str) -> int:
        return sum(event["event"] == "ignored" and event["reason"] == reason for event in self.events)

    @property
    def resident(self) -> int:
        """Memory in bytes, as told last."""
        return next(event["resident"] for event in reversed(self.events) if event["event"] == "use") * 1024

    def addresses(self, host: str) -> list[str]:
        """Those of another one, in order."""
        return next((list(event["addresses"]) for event in self.seen.values() if event["id"] == host), [])

    def close(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


class Lan:
    """A network and the seers on it."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.seers: list[Seer] = []

    def start(self, machine: Machine, host: str, *flags: str) -> Seer:
        seer = Seer(machine, self.folder, host, *flags)
        self.seers.append(seer)
        return seer

    def find_all(self) -> None:
        """Wait until each of those who run sees all others."""
        running = [seer for seer in self.seers if seer.process.poll() is None]
        hosts = {seer.host for seer in running}
        for seer in running:
            self.wait(lambda seer=seer: seer.ids >= hosts - {seer.host}, f"{seer.host} sees all others")

    def wait(self, condition: Callable[[], bool], words: str) -> None:
        wait_until(condition, words, timeout=30)

    def close(self) -> None:
        for seer in self.seers:
            assert seer.close() in (0, -signal.SIGKILL), seer.log.read_text()
        for seer in self.seers:
            text = seer.log.read_text(errors="replace")
            assert not any(word in text for word in BAD_WORDS), text


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    with Network() as network:
        made = Lan(network, tmp_path)
        try:
            yield made
            made.close()
        finally:
            for seer in made.seers:
                seer.process.kill()
                seer.process.wait()


def send(machine: Machine, packets: list[bytes], six: bool = False) -> None:
    """Send packets to the group of mDNS from a machine."""
    program = (
        "import socket, struct, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "out = socket.socket(socket.AF_INET6 if sys.argv[1] == '6' else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "if sys.argv[1] == '6':\n"
        "    out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex('eth0'))\n"
        "    to = ('ff02::fb', 5353)\n"
        "else:\n"
        "    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[2]))\n"
        "    to = ('224.0.0.251', 5353)\n"
        "at = 0\n"
        "while at < len(data):\n"
        "    size, = struct.unpack_from('>H', data, at)\n"
        "    out.sendto(data[at + 2:at + 2 + size], to)\n"
        "    at += 2 + size\n"
    )
    data = b"".join(struct.pack(">H", len(packet)) + packet for packet in packets)
    command = [*machine.prefix, sys.executable, "-c", program, "6" if six else "4", machine.address]
    subprocess.run(command, input=data, check=True, capture_output=True)


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


SERVICE = (b"_dragonet", b"_tcp", b"local")


def record(owner: bytes, kind: int, data: bytes, ttl: int = 4500) -> bytes:
    return owner + struct.pack(">HHIH", kind, 1 if kind == 12 else 0x8001, ttl, len(data)) + data


def answer(*records: bytes) -> bytes:
    return struct.pack(">HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def strings(*pairs: bytes) -> bytes:
    return b"".join(bytes([len(pair)]) + pair for pair in pairs)


def announced(
    label: bytes, host: bytes, address: bytes, text: bytes | None = None, port: int = 65002, ttl: int = 4500
) -> bytes:
    """The packet of somebody who announces himself."""
    mine = name(label, *SERVICE)
    server = name(b"server-" + host, b"local")
    if text is None:
        text = strings(b"txtvers=1", b"cl=default", b"id=" + host, b"role=peer", b"pv=1")
    return answer(
        record(name(*SERVICE), 12, mine, ttl),
        record(mine, 33, struct.pack(">HHH", 0, 0, port) + server, ttl),
        record(mine, 16, text, ttl),
        record(server, 28 if len(address) == 16 else 1, address, ttl),
    )


def ipv4(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def test_all_find_each_other_and_a_goodbye_is_heard(lan: Lan) -> None:
    machines = [lan.network.machine() for _ in range(3)]
    for number, machine in enumerate(machines, 1):
        lan.start(machine, f"{number}" * 16, "--name", f"machine{number}")
    lan.find_all()
    first, second, third = lan.seers
    assert second.addresses(first.host)[0] == f"{first.machine.address}:65002"
    sighting = next(event for event in second.seen.values() if event["id"] == first.host)
    assert (sighting["name"], sighting["role"], sighting["source"]) == ("machine1", "peer", "mdns")

    assert first.close() == 0
    for seer in (second, third):
        lan.wait(lambda seer=seer: first.host not in seer.ids, "the goodbye is heard")

    back = lan.start(machines[0], first.host, "--name", "machine1", "--port", "7000")
    for seer in (second, third):
        lan.wait(
            lambda seer=seer: seer.addresses(back.host)[:1] == [f"{machines[0].address}:7000"], "it is back"
        )
    assert second.ever_gone == third.ever_gone == {"machine1-11111111"}


def test_new_addresses_are_announced_and_peers_notice_no_more_than_that(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), letter * 16) for letter in "ab")
    lan.find_all()
    namespace = first.machine.namespace
    ip("-n", namespace, "addr", "add", "10.99.0.7/24", "dev", "eth0")
    lan.wait(lambda: "10.99.0.7:65002" in second.addresses(first.host), "the second address is told")
    prefix = lan.network.prefix
    ip("-n", namespace, "addr", "add", f"{prefix}.77/24", "dev", "eth0")
    ip("-n", namespace, "addr", "del", f"{first.machine.address}/24", "dev", "eth0")
    ip("-n", namespace, "addr", "replace", f"{prefix}.77/24", "dev", "eth0")
    lan.wait(
        lambda: (
            f"{prefix}.77:65002" in second.addresses(first.host)
            and f"{first.machine.address}:65002" not in second.addresses(first.host)
        ),
        "the new address is told, and the old one is not",
    )
    assert second.addresses(first.host)[0] == f"{prefix}.77:65002"
    assert not second.ever_gone


def test_a_link_that_goes_and_comes_back(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), letter * 16) for letter in "ab")
    lan.find_all()
    ip("-n", first.machine.namespace, "link", "set", "eth0", "down")
    lan.wait(lambda: "the network changed" in first.log.read_text(), "the loss is noticed")
    third = lan.start(lan.network.machine(), "c" * 16)
    lan.wait(lambda: third.ids == {second.host}, "the newcomer sees who is there")
    ip("-n", first.machine.namespace, "link", "set", "eth0", "up")
    lan.wait(lambda: first.ids == {second.host, third.host}, "it sees the newcomer")
    lan.wait(lambda: third.ids == {first.host, second.host}, "the newcomer sees it")


def test_a_machine_whose_interface_comes_later(lan: Lan) -> None:
    machine = lan.network.machine()
    ip("-n", machine.namespace, "link", "set", "eth0", "down")
    late = lan.start(machine, "a" * 16)
    early = lan.start(lan.network.machine(), "b" * 16)
    lan.wait(lambda: "no network interface has an address" in late.log.read_text(), "it says so")
    ip("-n", machine.namespace, "link", "set", "eth0", "up")
    lan.find_all()
    assert early.seen


def test_machines_with_ipv6_alone(lan: Lan) -> None:
    machines = [lan.network.machine() for _ in range(2)]
    for machine in machines:
        ip("-n", machine.namespace, "addr", "flush", "dev", "eth0", "scope", "global")
    first, second = (lan.start(machine, f"{number}" * 16) for number, machine in enumerate(machines, 1))
    lan.find_all()
    for seer, other in ((first, second), (second, first)):
        address = seer.addresses(other.host)[0]
        assert address.startswith("[fe80::")
        assert address.endswith("%eth0]:65002")
    for number, machine in enumerate(machines, 1):
        ip("-n", machine.namespace, "addr", "add", f"fd00:1::{number}/64", "dev", "eth0")
    lan.wait(
        lambda: second.addresses(first.host)[:1] == ["[fd00:1::1]:65002"], "the routable address is first"
    )


def test_several_interfaces_and_those_of_containers(lan: Lan) -> None:
    machine = lan.network.machine()
    for bridge, address in (("docker0", "172.17.0.1/16"), ("lan1", "192.168.77.1/24")):
        ip("-n", machine.namespace, "link", "add", bridge, "type", "bridge")
        ip("-n", machine.namespace, "addr", "add", address, "dev", bridge)
        ports = (f"veth{bridge}", f"port{bridge}")
        ip("-n", machine.namespace, "link", "add", ports[0], "type", "veth", "peer", "name", ports[1])
        ip("-n", machine.namespace, "link", "set", ports[0], "master", bridge, "up")
        ip("-n", machine.namespace, "link", "set", ports[1], "up")
        ip("-n", machine.namespace, "link", "set", bridge, "up")
    lan.start(machine, "a" * 16)
    second = lan.start(lan.network.machine(), "b" * 16)
    lan.find_all()
    addresses = second.addresses("a" * 16)
    assert addresses[0] == f"{machine.address}:65002"
    assert "192.168.77.1:65002" in addresses
    assert "172.17.0.1:65002" not in addresses


def test_another_cluster_on_the_same_wire(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), letter * 16) for letter in "ab")
    other = lan.start(lan.network.machine(), "c" * 16, "--cluster", "other")
    lan.wait(lambda: first.ids == {second.host} and second.ids == {first.host}, "the own cluster is seen")
    lan.wait(lambda: first.ignored("cluster") > 0 and second.ignored("cluster") > 0, "the other is counted")
    lan.wait(lambda: other.ignored("cluster") == 2, "both are left out")
    assert not other.ids


def test_two_machines_with_one_id_are_both_seen(lan: Lan) -> None:
    first = lan.start(lan.network.machine(), "a" * 16, "--name", "clone")
    watcher = lan.start(lan.network.machine(), "b" * 16)
    lan.find_all()
    second = lan.start(lan.network.machine(), "a" * 16, "--name", "clone")
    lan.wait(
        lambda: (
            {next(iter(event["addresses"])) for event in watcher.seen.values()}
            == {f"{first.machine.address}:65002", f"{second.machine.address}:65002"}
        ),
        "both are seen",
    )
    assert "another machine is announced under our name" in second.log.read_text()
    lan.wait(lambda: "a" * 16 in first.ids and "a" * 16 in second.ids, "each hears of the other")


def test_another_id_and_port_from_now_on(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), host) for host in ("a" * 8 + "1" * 8, "b" * 16))
    lan.find_all()
    first.process.send_signal(signal.SIGUSR1)
    lan.wait(lambda: second.ids == {"1" * 8 + "a" * 8}, "the new id is seen, and the old one is gone")
    assert second.addresses("1" * 8 + "a" * 8)[0] == f"{first.machine.address}:65003"


def test_two_on_one_machine_beside_another_responder(lan: Lan) -> None:
    machine = lan.network.machine()
    first = lan.start(machine, "a" * 16, "--port", "1001")
    second = lan.start(machine, "b" * 16, "--port", "1002")
    third = lan.start(lan.network.machine(), "c" * 16)
    lan.find_all()
    assert first.addresses(second.host)[0] == f"{machine.address}:1002"
    assert third.addresses(first.host)[0] == f"{machine.address}:1001"


def test_where_the_port_is_taken_for_good_it_is_said_once(lan: Lan) -> None:
    machine = lan.network.machine()
    holder = (
        "import socket, sys\n"
        "taken = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        "taken.bind(('::', 5353))\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [*machine.prefix, sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"taken\n"
        seer = lan.start(machine, "a" * 16)
        lan.wait(lambda: "tried again" in seer.log.read_text(), "it says so")
        ip("-n", machine.namespace, "addr", "add", "10.99.0.7/24", "dev", "eth0")
        lan.wait(lambda: "the network changed" in seer.log.read_text(), "it tries again")
        assert seer.close() == 0
        assert seer.log.read_text().count("tried again") == 1
        taker.communicate()


def test_garbage_and_hostile_announcements_harm_nobody(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), letter * 16) for letter in "ab")
    lan.find_all()
    chance = random.Random(7)
    stranger = lan.network.machine()
    good = announced(b"good-eeeeeeee", b"e" * 16, ipv4(stranger.address))
    loop = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x0c" + struct.pack(">HHIH", 12, 1, 9, 2)
    here = ipv4(stranger.address)
    noise = [
        *(chance.randbytes(chance.randrange(1, 1400)) for _ in range(300)),
        *(good[: chance.randrange(1, len(good))] for _ in range(100)),
        *(
            bytes(byte ^ (chance.random() < 0.02) * chance.randrange(256) for byte in good)
            for _ in range(300)
        ),
    ]
    hostile = [
        loop + b"\xc0\x0c",
        loop + b"\xc0\x16",
        struct.pack(">HHHHHH", 0, 0x8400, 65535, 65535, 65535, 65535),
        announced(b"huge", b"1" * 16, here, strings(*[b"x" * 255] * 33)),
        announced(b"\x1b[2J\x00\n\x07evil", b"2" * 16, here),
        announced(b"\xff\xfe\x80", b"3" * 16, here),
        announced(b"nothing", b"4" * 16, here, b""),
        announced(b"cut", b"5" * 16, here, b"\xfftxtvers=1"),
        announced(b"id", b"6" * 16, here, strings(b"txtvers=1", b"cl=default", b"id=\x1b]0;x", b"role=peer", b"pv=1")),
        announced(b"utf", b"7" * 16, here, strings(b"txtvers=1", b"cl=\xff", b"id=7", b"role=peer", b"pv=1")),
        announced(b"version", b"8" * 16, here, strings(b"txtvers=1", b"cl=default", b"id=8", b"role=peer", b"pv=99")),
        announced(b"elsewhere", b"9" * 16, ipv4("8.8.8.8")),
        announced(b"loopback", b"9" * 16, ipv4("127.0.0.1")),
        announced(b"noport", b"9" * 16, here, port=0),
    ]  # fmt: skip
    many = name(b"server-many", b"local")
    hostile += [
        answer(*(record(many, 1, b"\x0a" + chance.randbytes(3)) for _ in range(400)))
        + record(name(b"many", *SERVICE), 33, struct.pack(">HHH", 0, 0, 1) + many)
        for _ in range(5)
    ]
    for start in range(0, len(noise), 50):
        send(stranger, noise[start : start + 50])
        send(stranger, noise[start : start + 50], six=True)
    send(stranger, hostile)
    send(stranger, hostile, six=True)
    send(stranger, [good])
    for seer in (first, second):
        lan.wait(lambda seer=seer: "e" * 16 in seer.ids, "who is real is seen all the same")
        lan.wait(lambda seer=seer: seer.ignored("protocol") > 0, "another version is counted")
        lan.wait(lambda seer=seer: seer.ignored("malformed") > 3, "what is malformed is counted")
        for event in seer.seen.values():
            assert str(event).isprintable()
            assert not any("8.8.8.8" in each or "127.0.0.1" in each for each in event["addresses"])
    assert {first.host, second.host} <= first.ids | second.ids


def test_a_flood_of_announcements_is_bounded(lan: Lan) -> None:
    first, second = (lan.start(lan.network.machine(), letter * 16) for letter in "ab")
    lan.find_all()
    lan.wait(lambda: any(event["event"] == "use" for event in first.events), "its memory is told")
    before = first.resident
    stranger = lan.network.machine()

    def fakes(start: int, count: int) -> list[bytes]:
        return [
            announced(b"fake-" + host, host, ipv4("10.77.0.1"), fake_text(host))
            for host in (b"%016d" % number for number in range(start, start + count))
        ]

    for start in range(0, 500, 25):  # more at once than a socket holds are lost before anybody looks
        send(stranger, fakes(start, 25))
        lan.wait(lambda start=start: len(first.seen) >= start + 20, "they are told as hints")
    for start in range(1000, 21_000, 1000):
        send(stranger, fakes(start, 1000))
    for start in range(30_000, 60_000, 100):
        if first.ignored("full"):
            break
        send(stranger, fakes(start, 100))
    lan.wait(lambda: first.ignored("full") > 0, "what is too much is counted")
    third = lan.start(lan.network.machine(), "c" * 16)
    lan.wait(lambda: third.ids >= {first.host, second.host}, "a newcomer sees who is there")
    assert 500 < len(first.seen) <= 1024
    assert first.resident - before < 32 * MIB
    assert second.host in first.ids


def fake_text(host: bytes) -> bytes:
    junk = [b"junk%d=" % number + b"x" * 240 for number in range(4)]
    return strings(b"txtvers=1", b"cl=default", b"id=" + host, b"role=peer", b"pv=1", *junk)
