"""Addresses of a LAN: which are near, which of several is best, as text with its zone. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Ip: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
OwnAddress: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_ADDRESS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251})):([0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up, with its addresses (and their prefixes).

    ``real``: a device stands behind it, it is not made by software (a bridge, a veth pair). ``index`` is the
    kernel's number, by which zones of link-local addresses are told.
    """

    name: str
    index: int
    addresses: tuple[OwnAddress, ...]
    real: bool = True


def is_address(text: str) -> bool:
    """Whether this is HOST:PORT as it can be asked: a name, an IPv4 address, or an IPv6 one in brackets."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[1]) < 1 << 16


def parse(text: str) -> Ip | None:
    """An address from text, without its zone and not as IPv4 in IPv6; None for what is none."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def is_private(ip: Ip) -> bool:
    """RFC 1918, or unique local (RFC 4193)."""
    return any(ip in network for network in _PRIVATE if network.version == ip.version)


def admits(interfaces: Iterable[Interface], text: str) -> bool:
    """Whether a caller is near: loopback, link-local, private, or in an IPv6 subnet of this machine."""
    ip = parse(text)
    if ip is None:
        return False
    if ip.is_loopback or ip.is_link_local or is_private(ip):
        return True
    return ip.version == 6 and bool(_subnet(interfaces, ip))


def network_of(interfaces: Iterable[Interface], text: str) -> str:
    """The subnet of this machine in which an address lies, "" for none.

    Link-local addresses have none: their subnet is the same on all wires.
    """
    ip = parse(text)
    if ip is None or ip.is_link_local or ip.is_loopback:
        return ""
    return _subnet(interfaces, ip)


def _subnet(interfaces: Iterable[Interface], ip: Ip) -> str:
    for interface in interfaces:
        for own in interface.addresses:
            # A subnet of one address says nothing; one of half the world is a tunnel's, and no neighbourhood.
            if (
                own.version == ip.version
                and 8 <= own.network.prefixlen < ip.max_prefixlen
                and ip in own.network
            ):
                return str(own.network)
    return ""


def own_addresses(interfaces: Iterable[Interface]) -> list[str]:
    """All addresses of this machine as text, the best to tell others first.

    Private IPv4 of a real interface, then other IPv4, then IPv6; link-local ones last, with their zone.
    """
    ranked = [
        (_rank(own.ip), not interface.real, interface.index, place, text_of(own.ip, interface.name))
        for interface in interfaces
        for place, own in enumerate(interface.addresses)
    ]
    return list(dict.fromkeys(text for *_, text in sorted(ranked)))


def _rank(ip: Ip) -> int:
    if ip.is_link_local:
        return 3 if ip.version == 4 else 4
    if ip.version == 6:
        return 2
    return 0 if is_private(ip) else 1


def text_of(ip: Ip, zone: str) -> str:
    """As others write it: link-local IPv6 with its zone."""
    return f"{ip}%{zone}" if ip.version == 6 and ip.is_link_local else str(ip)


def host_port(text: str, port: int) -> str:
    """ "HOST:PORT", IPv6 in brackets."""
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def reachable(found: Sequence[str], interfaces: Sequence[Interface]) -> list[str]:
    """Which of a neighbour's addresses (link-local IPv6 perhaps with a zone: a name, or an interface's number) to
    try, in which order: those of our own subnets first, IPv4 before IPv6.

    Left out is what no neighbour can have: loopback, multicast, addresses that are neither private nor of a subnet
    of ours. So nobody can send all hosts of a LAN to a machine somewhere else.
    """
    own = [(interface, address) for interface in interfaces for address in interface.addresses]
    wires = [
        interface.name
        for text in found
        if (ip := parse(text)) is not None and not ip.is_link_local
        for interface, address in own
        if address.version == ip.version and ip in address.network
    ]
    ranked: list[tuple[int, int, str]] = []
    for place, text in enumerate(found):
        ip = parse(text)
        if ip is None or ip.is_loopback or ip.is_multicast or ip.is_unspecified:
            continue
        here = any(address.version == ip.version and ip in address.network for _, address in own)
        if ip.is_link_local:
            if ip.version == 4:
                if here:
                    ranked.append((2, place, str(ip)))
            elif zone := _zone(text.partition("%")[2], interfaces, wires):
                ranked.append((3, place, text_of(ip, zone)))
        elif here:
            ranked.append((0 if ip.version == 4 else 1, place, str(ip)))
        elif is_private(ip):
            ranked.append((4 if ip.version == 4 else 5, place, str(ip)))
    return list(dict.fromkeys(text for *_, text in sorted(ranked)))


def _zone(told: str, interfaces: Sequence[Interface], wires: Sequence[str]) -> str:
    """On which of our interfaces a link-local address is.

    It is told where the answer came by IPv6; else the neighbour's other addresses show it, or there is only one.
    """
    for interface in interfaces:
        if told and told in (interface.name, str(interface.index)):
            return interface.name
    with_link = [
        interface.name
        for interface in interfaces
        if any(own.version == 6 and own.ip.is_link_local for own in interface.addresses)
    ]
    if told or not with_link:
        return ""
    shown = [name for name in wires if name in with_link]
    if shown:
        return shown[0]
    return with_link[0] if len(with_link) == 1 else ""
