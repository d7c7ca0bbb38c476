"""Settings of the LAN. Durations are seconds."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from peer.lan.addresses import is_address
from shared.config import WrongSetting

_SERVICE = re.compile(r"_[A-Za-z0-9-]{1,63}\._(tcp|udp)\.[A-Za-z0-9._-]{1,200}")


class LanConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How machines of one network find each other."""

    discovery: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Whether hosts look for each other. auto: where no scheduler is configured and pieces are "
            "not served on loopback alone. on: beside a configured scheduler, too; hosts fall back to each other "
            "while it does not answer."
        ),
    ] = "auto"
    cluster: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{1,64}$",
            description="Name of the cluster; hosts of another one are ignored.",
        ),
    ] = "default"
    mdns: Annotated[
        bool, Meta(description="Whether to announce this host, and to look for others, by mDNS.")
    ] = True
    interfaces: Annotated[
        tuple[str, ...],
        Meta(
            description="Names of the network interfaces to use, with * for any characters. Empty: all but loopback "
            "and those of containers, virtual machines and tunnels."
        ),
    ] = ()
    peers: Annotated[
        tuple[str, ...],
        Meta(description="HOST:PORT of hosts or schedulers to ask, where mDNS does not reach them."),
    ] = ()
    dns: Annotated[
        str,
        Meta(
            description="A DNS name under which hosts or schedulers are found: _SERVICE._tcp.DOMAIN (SRV records), or "
            "HOST:PORT (A and AAAA records, as of a headless service of Kubernetes). Empty: none."
        ),
    ] = ""
    max_hosts: Annotated[
        int, Meta(ge=1, le=10_000, description="Hosts that are remembered at most; others are ignored.")
    ] = 512
    max_ring: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Hosts that schedule for each other at most, where there is no scheduler.",
        ),
    ] = 64

    def __post_init__(self) -> None:
        """Raises WrongSetting for what can be no host's address, and no name in DNS."""
        for address in self.peers:
            if not is_address(address):
                raise WrongSetting(
                    "peers", f"cannot be {address!r}: write HOST:PORT, as in 192.168.1.20:65002"
                )
        if self.dns and not is_address(self.dns) and not _SERVICE.fullmatch(self.dns):
            raise WrongSetting(
                "dns",
                f"cannot be {self.dns!r}: write _SERVICE._tcp.DOMAIN, or HOST:PORT as in hosts.example.org:65002",
            )
