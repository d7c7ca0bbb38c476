"""The registry gateway of a host, put together from its parts."""

from __future__ import annotations

import socket

from cdn.reader import SourceReader
from peer.config import Config
from peer.gateway.access import Access
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.passthrough import Passthrough
from peer.gateway.registry import RegistryGateway
from peer.gateway.serving import Serving
from shared.swarm.host import Host


def registry_gateway(
    config: Config, host: Host, reader: SourceReader, metrics: RegistryMetrics
) -> RegistryGateway:
    """The gateway with the settings of ``[registry]``."""
    names = (config.peer.gateway, config.host.advertise, socket.gethostname())
    access = Access(host, reader, config.registry)
    passthrough = Passthrough(reader, access)
    serving = Serving(host, reader)
    return RegistryGateway(config.registry, metrics, access, passthrough, serving, names=names)
