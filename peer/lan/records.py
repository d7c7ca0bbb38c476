"""What stands in an announcement by mDNS: the TXT record and the label (RFC 6763). Pure.

Whatever comes from the network may be made to do harm: it is refused with a reason, and never raises.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from shared.protocol import PROTOCOL_VERSION

SERVICE: Final = "_dragonet._tcp.local."
TXT_VERSION: Final = "1"
MAX_LABEL: Final = 63
"""Bytes of a DNS label."""
MAX_TEXT: Final = 1300
"""Bytes of a TXT record that are still read (RFC 6763, 6.2)."""
MAX_LOCATION: Final = 200
MAX_RELEASE: Final = 40
MAX_ID: Final = 64

Reason = Literal["cluster", "protocol", "malformed"]
ROLES: Final = frozenset({"peer", "seeder", "scheduler"})


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a host tells the LAN about itself. ``name`` is that of its machine."""

    id: str
    role: str
    cluster: str
    port: int
    location: str = ""
    release: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Announced:
    """What another host's TXT record says."""

    id: str
    role: str
    location: str
    release: str


def encode(announcement: Announcement) -> bytes:
    """The TXT record."""
    pairs = {
        "txtvers": TXT_VERSION,
        "cl": announcement.cluster,
        "id": announcement.id,
        "role": announcement.role,
        "pv": str(PROTOCOL_VERSION),
        "loc": cut(announcement.location, MAX_LOCATION),
        "rel": cut(announcement.release, MAX_RELEASE),
    }
    strings = [f"{key}={value}".encode() for key, value in pairs.items() if value]
    return b"".join(bytes([len(string)]) + string for string in strings)


def decode(text: bytes, cluster: str) -> Announced | Reason:
    """What a TXT record says, or why its host is left out."""
    if len(text) > MAX_TEXT:
        return "malformed"
    pairs = _pairs(text)
    if pairs is None or "txtvers" not in pairs:
        return "malformed"
    if pairs["txtvers"] != TXT_VERSION:
        return "protocol"
    if not all(pairs.get(key) for key in ("cl", "id", "role", "pv")):
        return "malformed"
    if pairs["cl"] != cluster:
        return "cluster"
    if pairs["pv"] != str(PROTOCOL_VERSION):
        return "protocol" if pairs["pv"].isdecimal() else "malformed"
    host = pairs["id"]
    if len(host) > MAX_ID or not (host.isascii() and host.isalnum()) or pairs["role"] not in ROLES:
        return "malformed"
    return Announced(
        id=host,
        role=pairs["role"],
        location=cut(printable(pairs.get("loc", "")), MAX_LOCATION),
        release=cut(printable(pairs.get("rel", "")), MAX_RELEASE),
    )


def _pairs(text: bytes) -> dict[str, str] | None:
    """The strings of a TXT record; of a key that is there twice, the first (RFC 6763, 6.4). None if malformed."""
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        end = place + 1 + text[place]
        if end > len(text):
            return None
        key, _, value = text[place + 1 : end].partition(b"=")
        place = end
        try:
            name = key.decode("ascii").lower()
            told = value.decode()
        except UnicodeDecodeError:
            if key.lower() in _OURS:
                return None
            continue  # a key that others may have put there
        if name:
            found.setdefault(name, told)
    return found


_OURS = frozenset({b"txtvers", b"cl", b"id", b"role", b"pv", b"loc", b"rel"})


def label(announcement: Announcement, number: int = 1) -> str:
    """The label of an instance: the machine's name and the beginning of the host's id.

    ``number`` above 1 is for one whose label somebody else has.
    """
    end = f"-{announcement.id[:8]}" + (f"-{number}" if number > 1 else "")
    name = printable(announcement.name).replace(".", "-").strip() or "host"
    return cut(name, MAX_LABEL - len(end.encode())) + end


def instance(label: str) -> str:
    """The full name of an instance."""
    return f"{label}.{SERVICE}"


def server(label: str) -> str:
    """The host name under which an instance's addresses are told: its own, as nobody else may change them, also not
    somebody with the same id on another machine."""
    return f"dragonet-{hashlib.blake2b(label.encode(), digest_size=8).hexdigest()}.local."


def is_instance(name: str) -> bool:
    """Whether a name is that of an instance of ours."""
    lower = name.lower()
    return lower.endswith("." + SERVICE) and len(lower) > len(SERVICE) + 1


def key_of(name: str) -> str:
    """The key of a sighting: the label in small letters, where that is short and printable; else a digest of it."""
    found = name[: -len(SERVICE) - 1].lower()
    if found.isprintable() and len(found.encode(errors="replace")) <= MAX_LABEL:
        return found
    return "#" + hashlib.blake2b(found.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def machine_of(name: str, host: str) -> str:
    """The machine's name in that of an instance of the host with this id."""
    found = cut(printable(name[: -len(SERVICE) - 1]), MAX_LABEL)
    before, mark, _ = found.rpartition(f"-{host[:8]}")
    return before if mark else found


def printable(text: str) -> str:
    """Without characters that do something to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def cut(text: str, size: int) -> str:
    """At most ``size`` bytes of it in UTF-8, whole characters."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")
