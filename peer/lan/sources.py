"""The ways to find others that the configuration asks for."""

from __future__ import annotations

from peer.lan.config import LanConfig
from peer.lan.dns import DnsSource
from peer.lan.interfaces import Interfaces
from peer.lan.mdns import LIMIT, Announcement, MdnsSource
from peer.lan.sightings import Source
from peer.lan.static import StaticSource


def sources(config: LanConfig, announcement: Announcement | None, interfaces: Interfaces) -> list[Source]:
    """One source for each way. ``announcement`` None: this process only looks."""
    found: list[Source] = []
    if config.mdns:
        limit = max(LIMIT, 2 * config.max_hosts)
        found.append(MdnsSource(announcement, config.cluster, interfaces, limit=limit))
    if config.peers:
        found.append(StaticSource(config.peers))
    if config.dns:
        found.append(DnsSource(config.dns))
    return found
