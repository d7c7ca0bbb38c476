"""Under which address other hosts reach this one."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

WILDCARDS = {"0.0.0.0", "[::]", "::", "*", ""}


def advertised_address(bound: str, advertise: str, scheduler_url: str) -> str:
    """``host:port`` for the lease.

    ``bound`` is what the pieces' listener is bound to; ``advertise`` (HOST or HOST:PORT) wins. A wildcard becomes
    the address from which this machine reaches the scheduler; where that is "", it stays: each scheduler knows
    where the lease came from.
    """
    host, _, port = bound.rpartition(":")
    if advertise:
        name, colon, own_port = advertise.rpartition(":")
        if colon and own_port.isdecimal() and not name.endswith(":"):
            return advertise
        return f"{advertise}:{port}"
    if host in WILDCARDS and scheduler_url:
        host = _local_address_towards(scheduler_url)
    return f"{host}:{port}"


def own_address(address: str, primary: str) -> str:
    """``host:port`` for the lease at a scheduler in the same process, which cannot see where others reach this host.

    ``address`` is that for other schedulers; ``primary`` the machine's own IP address, "" for none.
    """
    host, _, port = address.rpartition(":")
    if host not in WILDCARDS:
        return address
    return f"{in_url(primary or '127.0.0.1')}:{port}"


def host_of(address: str) -> str:
    """The host of HOST:PORT, without brackets; "" for a wildcard."""
    host = address.rpartition(":")[0]
    return "" if host in WILDCARDS else host.removeprefix("[").removesuffix("]")


def port_of(address: str) -> int:
    """The port of HOST:PORT."""
    return int(address.rpartition(":")[2])


def in_url(ip: str) -> str:
    """An IP address as it stands before a port."""
    return f"[{ip}]" if ":" in ip and not ip.startswith("[") else ip


def _local_address_towards(url: str) -> str:
    parts = urlsplit(url)
    target = parts.hostname or "127.0.0.1"
    try:
        family, _, _, _, address = socket.getaddrinfo(target, parts.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing: only asks the routing table
            host = str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
    return in_url(host)
