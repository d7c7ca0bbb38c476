"""The whole configuration: one file, one set of names, for every role; each role reads what it needs.

Sections stand beside the components that they configure (``[store]`` in ``shared.store.config``, …); this
page puts them together, and adds what belongs to the machine and the daemon.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cdn.config import SourceConfig
from peer.gateway.config import RegistryConfig
from peer.lan.config import LanConfig
from scheduler.config import SchedulerConfig
from shared.config import Address, Loaded, Seconds, Url, load
from shared.config.loading import FILE_VARIABLE
from shared.config.places import default_data_dir
from shared.http.limits import ServerLimits
from shared.store.config import StoreConfig
from shared.swarm.config import SwarmConfig

SYSTEM_FILE = Path("/etc/dragonet/dragonet.toml")
SYSTEM_SOCKET = Path("/run/dragonet/dragonet.sock")


ADDRESS_OR_NOTHING = r"^((\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]]*):[0-9]{1,5})?$"
PIECES_PORT = 65002


def default_socket(environ: Mapping[str, str] = os.environ) -> Path:
    """``/run/dragonet/dragonet.sock`` for root, ``$XDG_RUNTIME_DIR/dragonet.sock`` otherwise; where there is
    no runtime folder, ``dragonet.sock`` in the default data folder."""
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return (Path(runtime) if runtime.startswith("/") else default_data_dir(environ)) / "dragonet.sock"


def default_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file that is read when none is named: the user's own, else the system's; None when
    neither is there."""
    candidates = [SYSTEM_FILE]
    if os.geteuid() != 0:
        base = environ.get("XDG_CONFIG_HOME", "")
        home = Path(base) if base.startswith("/") else Path.home() / ".config"
        candidates.insert(0, home / "dragonet" / "dragonet.toml")
    return next((path for path in candidates if path.is_file()), None)


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """This machine, whatever roles it runs."""

    data_dir: Annotated[
        Path, Meta(description="Folder for everything that is kept; each role has its own folder in it.")
    ] = msgspec.field(default_factory=default_data_dir)
    scheduler: Annotated[
        Url,
        Meta(
            pattern=r"^(https?://[^\s]+)?$",
            description="URL of the scheduler that this host reports to; `up` has its own. Empty: those found on the "
            "LAN, else the hosts found there schedule for each other; where hosts do not look for each other "
            "(lan.discovery), the one on this machine at scheduler.listen.",
        ),
    ] = ""
    advertise: Annotated[
        str,
        Meta(
            description="HOST or HOST:PORT under which other hosts reach the pieces of this one; empty: the "
            "listen address, or, when that is a wildcard, the address from which the scheduler is reached (each "
            "one, where there are several)."
        ),
    ] = ""
    location: Annotated[
        str,
        Meta(
            description="Where the machine stands, as zone/rack. Hosts of one zone give to each other first, and what "
            "comes from another one crosses once. Empty: the machine's subnet is its zone."
        ),
    ] = ""


class SeederConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The seeder: reads origins when told to and serves what it read."""

    listen: Annotated[
        Address,
        Meta(
            pattern=ADDRESS_OR_NOTHING,
            description="HOST:PORT on which the seeder serves pieces and metrics. Empty: *:65002, for callers on "
            "private networks and on this machine's IPv6 subnets alone, where hosts look for each other "
            "(lan.discovery); else 127.0.0.1:65002.",
        ),
    ] = ""


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon on each machine."""

    listen: Annotated[
        Address,
        Meta(
            pattern=ADDRESS_OR_NOTHING,
            description="HOST:PORT on which the peer serves pieces and metrics. Empty: as for seeder.listen.",
        ),
    ] = ""
    gateway: Annotated[
        Address, Meta(description="HOST:PORT of the gateways for programs on this machine.")
    ] = "127.0.0.1:65001"
    socket: Annotated[
        Path, Meta(description="Unix socket of the local API, which `dragonet get` and others use.")
    ] = msgspec.field(default_factory=default_socket)


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged, and how it looks."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important level shown.")
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"],
        Meta(description="console for people, json for collectors, auto: console on a terminal, else json."),
    ] = "auto"


class ServerConfig(ServerLimits, frozen=True, kw_only=True):
    """Limits of every HTTP listener, and how long a shutdown may take."""

    grace: Annotated[
        Seconds, Meta(description="How long running transfers may go on after SIGTERM before they are cut.")
    ] = 10.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All sections."""

    host: HostConfig = msgspec.field(default_factory=HostConfig)
    scheduler: SchedulerConfig = SchedulerConfig()
    seeder: SeederConfig = SeederConfig()
    peer: PeerConfig = msgspec.field(default_factory=PeerConfig)
    lan: LanConfig = LanConfig()
    registry: RegistryConfig = RegistryConfig()
    swarm: SwarmConfig = SwarmConfig()
    store: StoreConfig = StoreConfig()
    source: SourceConfig = msgspec.field(default_factory=SourceConfig)
    server: ServerConfig = ServerConfig()
    log: LogConfig = LogConfig()


def load_config(
    *,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    flag_names: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded[Config]:
    """The effective configuration: flags over environment over file over defaults.

    ``file`` is the one named on the command line; else ``DRAGONET_CONFIG`` (empty: none at all), else
    :func:`default_file`. Raises ConfigError.
    """
    if file is None:
        named = environ.get(FILE_VARIABLE)
        file = default_file(environ) if named is None else Path(named).expanduser() if named else None
    return load(Config, file=file, environ=environ, flags=flags, flag_names=flag_names)


def scheduler_url(config: Config) -> str:
    """The scheduler that a command asks: the configured one, else the one on this machine."""
    return config.host.scheduler or local_url(config.scheduler.listen)


def local_url(listen: str) -> str:
    """The URL by which this machine reaches its listener ``HOST:PORT``; a wildcard becomes loopback."""
    host, _, port = listen.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return f"http://{host}:{port}"
