"""Under which address other hosts reach this one."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

WILDCARDS = {"0.0.0.0", "[::]", "::", "*", ""}


def advertised_address(bound: str, advertise: str, scheduler_url: str) -> str:
    """``host:port`` for the lease.

    ``bound`` is what the pieces' listener is bound to; ``advertise`` (HOST or HOST:PORT) wins. A
    wildcard becomes the address from which this machine reaches the scheduler.
    """
    host, _, port = bound.rpartition(":")
    if advertise:
        name, colon, own_port = advertise.rpartition(":")
        if colon and own_port.isdecimal() and not name.endswith(":"):
            return advertise
        return f"{advertise}:{port}"
    if host in WILDCARDS:
        host = _local_address_towards(scheduler_url)
    return f"{host}:{port}"


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
    return f"[{host}]" if ":" in host else host
