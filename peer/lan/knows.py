"""Addresses of others that hosts tell each other of: so one that all reach is enough to find everybody. Pure.

Only addresses of private networks are told, and believed: nobody can send the hosts of a LAN somewhere else. What
is on loopback is a matter between processes of one machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from peer.lan.addresses import host_port, is_address, is_private, parse
from shared.protocol import MAX_KNOWS


def told(text: str, *, loopback: bool) -> str:
    """HOST:PORT as it is told; "" for what is not: a name, a link-local address, one out in the world. ``loopback``:
    addresses on loopback are."""
    if "%" in text or not is_address(text):
        return ""
    host, _, port = text.rpartition(":")
    ip = parse(host.strip("[]"))
    if ip is None or not (is_private(ip) or (loopback and ip.is_loopback)):
        return ""
    return host_port(str(ip), int(port))


def some(places: Sequence[Iterable[str]], rng: Random, *, loopback: bool) -> tuple[str, ...]:
    """What to tell now: for some of those whose addresses these are, the first one that is told."""
    found: list[str] = []
    for addresses in rng.sample(places, len(places)):
        address = next((one for text in addresses if (one := told(text, loopback=loopback))), "")
        if address:
            found.append(address)
        if len(found) == MAX_KNOWS:
            break
    return tuple(found)


def on_loopback(text: str) -> bool:
    """Whether HOST:PORT, or an address alone, is on loopback."""
    ip = parse(text) or parse(text.rpartition(":")[0].strip("[]"))
    return ip is not None and ip.is_loopback
