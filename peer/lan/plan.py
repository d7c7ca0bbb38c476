"""What the configuration makes of a host's part on the LAN: whether it looks for others, where it listens, whom it
lets in, and which scheduler is its own. Pure; decided once, at the start.

==============  =========================================  =============================================
lan.discovery   looks for others                           pieces' listener, where none is configured
==============  =========================================  =============================================
auto            without a configured scheduler, and not    ``*``, for callers near by, where the host
                with a listener on loopback alone          looks for others; else loopback
on              always                                     ``*``, for callers near by
off             never                                      loopback
==============  =========================================  =============================================

Where the listener is on loopback alone, nobody hears of it by mDNS: other machines could not reach it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from peer.lan.config import LanConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """A host's part.

    ``discovers``: looks for others, and embeds a scheduler. ``multicast``: by mDNS, too. ``listen`` is HOST:PORT
    for the pieces; ``near_only``: only callers from networks near by are admitted there. ``scheduler`` is the URL
    of the one to use: the configured one; "" where schedulers are found.
    """

    discovers: bool
    multicast: bool
    listen: str
    near_only: bool
    scheduler: str


def plan_host(lan: LanConfig, *, listen: str, port: int, scheduler: str, local: str) -> Plan:
    """The part of a host that serves pieces.

    ``listen`` is the configured HOST:PORT, "" for none; ``port`` is then used. ``scheduler`` is the URL of the
    configured scheduler, "" for none; ``local`` that of this machine's, used where nothing else is.
    """
    alone = listen != "" and loopback(listen)
    discovers = lan.discovery == "on" or (lan.discovery == "auto" and not scheduler and not alone)
    return Plan(
        discovers=discovers,
        multicast=discovers and lan.mdns and not alone,
        listen=listen or (f"*:{port}" if discovers else f"127.0.0.1:{port}"),
        near_only=discovers and not listen,
        scheduler=scheduler or ("" if discovers else local),
    )


def plan_scheduler(lan: LanConfig, *, listen: str) -> Plan:
    """The part of a scheduler that listens on ``listen``: whether it announces itself, and how."""
    alone = loopback(listen)
    discovers = lan.discovery == "on" or (lan.discovery == "auto" and not alone)
    return Plan(
        discovers=discovers,
        multicast=discovers and lan.mdns and not alone,
        listen=listen,
        near_only=False,
        scheduler="",
    )


def loopback(listen: str) -> bool:
    """Whether only this machine reaches a listener on HOST:PORT. Names other than localhost are not looked up."""
    host = listen.rpartition(":")[0].strip("[]").partition("%")[0]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
