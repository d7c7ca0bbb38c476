"""What an mDNS listener may hear besides the truth: hosts that do not exist, hostile values, and garbage.

Packets are made by hand (RFC 1035, RFC 6762), since no library agrees to write most of them. ``Noise`` sends them
to all machines of a lab network, from the test process.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice

from shared.protocol import PROTOCOL_VERSION

SERVICE = "_dragonet._tcp.local"
GROUP = ("224.0.0.251", 5353)
MAX_PACKET = 8900

_PTR, _TXT, _SRV, _A = 12, 16, 33, 1
_IN, _FLUSH = 1, 0x8001
_TTL = 4500


class Noise:
    """A socket on that interface of the test process that has ``address`` (IPv4); a context manager."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        # answers from another port are no mDNS (RFC 6762, section 6): these are to be heard
        self._socket.bind((address, GROUP[1]))

    def __enter__(self) -> Noise:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, packets: Iterable[bytes]) -> None:
        """Send each of them to everybody."""
        for packet in packets:
            self._socket.sendto(packet, GROUP)


def announcement(
    label: bytes,
    addresses: Sequence[str],
    txt: Sequence[bytes],
    *,
    port: int,
    ttl: int = _TTL,
    target: str = "",
) -> bytes:
    """A response that announces one instance; ``txt`` are its strings."""
    instance = _label(label) + _name(SERVICE)
    machine = _name(target or f"ghost-{random.getrandbits(40):x}.local")
    strings = b"".join(_label(one) for one in txt) or b"\0"
    records = [
        _record(_name(SERVICE), _PTR, _IN, ttl, instance),
        _record(instance, _SRV, _FLUSH, ttl, struct.pack("!HHH", 0, 0, port) + machine),
        _record(instance, _TXT, _FLUSH, ttl, strings),
        *(_record(machine, _A, _FLUSH, ttl, socket.inet_aton(address)) for address in addresses),
    ]
    return _response(records)


def txt_of(host: str, **changed: bytes | None) -> list[bytes]:
    """The strings of a good announcement, but for what is ``changed`` (None: left out)."""
    fields: dict[str, bytes | None] = {
        "txtvers": b"1",
        "cl": b"default",
        "id": host.encode(),
        "role": b"peer",
        "pv": str(PROTOCOL_VERSION).encode(),
        "loc": b"",
        "rel": b"0.1.0",
        **changed,
    }
    return [name.encode() + b"=" + value for name, value in fields.items() if value is not None]


def ghosts(
    count: int, addresses: Sequence[str], *, cluster: str = "default", port: int = 65002, seed: int = 1
) -> Iterator[bytes]:
    """Good announcements of ``count`` hosts that do not exist, at ``addresses`` in turn."""
    chooser = random.Random(seed)
    for number, address in enumerate(islice(cycle(addresses), count)):
        host = f"{chooser.getrandbits(64):016x}"
        txt = txt_of(host, cl=cluster.encode())
        label = f"ghost{number}-{host[:8]}"
        yield announcement(label.encode(), [address], txt, port=port, target=f"ghost-{host}.local")


def hostile(real_id: str, address: str) -> list[bytes]:
    """Announcements whose values are meant to do harm; ``real_id`` is that of a host which is really there,
    ``address`` one at which nobody answers."""
    ids: list[bytes] = [
        b"",
        b"../../etc/passwd",
        b"a b",
        b"\x1b[2J\x1b]0;owned\x07",
        b"\xff\xfe\x00",
        b"x" * 250,
        b"%s%n{0}",
        b"\r\nX-Injected: 1",
        "ｉｄ".encode(),
    ]
    values: list[Mapping[str, bytes | None]] = [
        {"id": None},
        {"role": b"root"},
        {"role": None},
        {"role": b"scheduler"},
        {"pv": b"999999999999999999999"},
        {"pv": b"-1"},
        {"pv": b"one"},
        {"pv": "\N{SUPERSCRIPT TWO}".encode()},
        {"pv": None},
        {"cl": b"\x1b[31mred"},
        {"cl": b"y" * 240},
        {"loc": b"z" * 250},
        {"loc": b"\x00\x1b]52;c;aGk=\x07/../../\xff"},
        {"rel": b"\xc3\x28" * 100},
        {"txtvers": b"2"},
        {"txtvers": None},
    ]
    places = [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "169.254.169.254",
        "8.8.8.8",
        "172.17.0.1",
    ]
    made = [
        announcement(b"id%d" % n, [address], txt_of("", id=value), port=65002) for n, value in enumerate(ids)
    ]
    made += [
        announcement(b"value%d" % n, [address], txt_of(f"{n:016x}", **changed), port=65002)
        for n, changed in enumerate(values)
    ]
    made += [
        announcement(b"place%d" % n, [place], txt_of(f"{n:015x}a"), port=65002)
        for n, place in enumerate(places)
    ]
    made += [
        announcement(b"port%d" % port, [address], txt_of(f"{port:015x}b"), port=port)
        for port in (0, 22, 65535)
    ]
    made += [
        announcement(b"impostor", [address], txt_of(real_id), port=65002),
        announcement(b"many", [f"10.9.{n}.1" for n in range(200)], txt_of("c" * 16), port=65002),
        announcement(b"nowhere", [], txt_of("d" * 16), port=65002),
        announcement(
            b"keys", [address], [b"=", b"==", b"id", b"id=", b"ID=%b" % (b"e" * 16), b"\0=\0"], port=65002
        ),
        announcement(b"twice", [address], txt_of("f" * 16) + txt_of("0" * 16), port=65002),
        announcement(b"long", [address], [b"k%d=" % n + b"v" * 240 for n in range(30)], port=65002),
        announcement(b"\xff\x00.\x1b[2J" * 7, [address], txt_of("1" * 16), port=65002),
        announcement(b"x" * 63, [address], txt_of("2" * 16), port=65002, ttl=2**31),
        announcement(b"soon", [address], txt_of("3" * 16), port=65002, ttl=1),
    ]
    return made


def garbage(count: int, seed: int = 1) -> Iterator[bytes]:
    """Packets that are no good answers: random, cut, with loops, with counts that are not true."""
    chooser = random.Random(seed)
    good = announcement(b"good", ["10.9.9.9"], txt_of("4" * 16), port=65002)
    looping = b"\xc0\x0c" + struct.pack("!HHIH", _PTR, _IN, 120, 2) + b"\xc0\x0c"
    loop = struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + looping
    makers = [
        lambda: chooser.randbytes(chooser.randrange(0, 1400)),
        lambda: good[: chooser.randrange(len(good))],
        lambda: _flipped(good, chooser),
        lambda: good[:6] + struct.pack("!3H", 0xFFFF, 0xFFFF, 0xFFFF) + good[12:],
        lambda: loop,
        lambda: (
            struct.pack("!6H", 0, 0x8400, 0, 60, 0, 0)
            + b"\xc0\x0c\x00\x0c\x00\x01\x00\x00\x00\x78\xff\xff" * 60
        ),
        lambda: (
            struct.pack("!6H", 0, 0, 200, 0, 0, 0) + (_name(SERVICE) + struct.pack("!HH", 255, _IN)) * 200
        ),
        lambda: b"\0" * chooser.randrange(MAX_PACKET),
        lambda: struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + b"\x3f" * chooser.randrange(1200),
    ]
    for number in range(count):
        yield makers[number % len(makers)]()


def _flipped(packet: bytes, chooser: random.Random) -> bytes:
    changed = bytearray(packet)
    for _ in range(chooser.randrange(1, 20)):
        changed[chooser.randrange(len(changed))] = chooser.randrange(256)
    return bytes(changed)


def _label(text: bytes) -> bytes:
    """A counted string: a label of a name (at most 63 bytes), or a string of a TXT record (255)."""
    cut = text[:255]
    return bytes([len(cut)]) + cut


def _name(text: str) -> bytes:
    return b"".join(_label(part.encode()) for part in text.split(".")) + b"\0"


def _record(name: bytes, kind: int, cls: int, ttl: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, cls, ttl & 0xFFFFFFFF, len(data)) + data


def _response(records: Sequence[bytes]) -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)
