"""``dragonet scheduler``, ``seeder``, ``peer`` and ``up``: run a role until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peer.cli.execution import run_role
from peer.cli.options import Daemon, load, start_logging

DataDir = Annotated[Path | None, Parameter(help="Folder for everything that is kept.")]
SchedulerUrl = Annotated[
    str | None,
    Parameter(
        name="--scheduler", help="URL of the scheduler [default: found on the LAN, or none is needed]."
    ),
]
Pieces = Annotated[
    str | None,
    Parameter(
        help="HOST:PORT for pieces [default: port 65002, on all interfaces for callers near by; on loopback with a "
        "scheduler]."
    ),
]
Advertise = Annotated[str | None, Parameter(help="HOST or HOST:PORT under which other hosts reach this one.")]
Socket = Annotated[Path | None, Parameter(help="Unix socket of the local API.")]


def scheduler(
    *,
    listen: Annotated[str | None, Parameter(help="HOST:PORT to answer on [default: 127.0.0.1:8002].")] = None,
    data_dir: DataDir = None,
    options: Daemon | None = None,
) -> None:
    """Run the scheduler: it decides who is whose parent and who may read an origin."""
    config = load(
        options, {"scheduler.listen": listen, "host.data_dir": data_dir, **_log_flags(options)}
    ).config
    start_logging(config, options)
    from peer.control import run_scheduler

    run_role(run_scheduler, config)


def seeder(
    *,
    listen: Pieces = None,
    scheduler: SchedulerUrl = None,
    data_dir: DataDir = None,
    advertise: Advertise = None,
    options: Daemon | None = None,
) -> None:
    """Run a seeder: it reads origins when the scheduler says so, and serves what it read."""
    config = load(
        options,
        {
            "seeder.listen": listen,
            "host.scheduler": scheduler,
            "host.data_dir": data_dir,
            "host.advertise": advertise,
            **_log_flags(options),
        },
    ).config
    start_logging(config, options)
    from peer.roles import run_seeder

    run_role(run_seeder, config)


def peer(
    *,
    listen: Pieces = None,
    gateway: Annotated[
        str | None, Parameter(help="HOST:PORT for the gateways [default: 127.0.0.1:65001].")
    ] = None,
    scheduler: SchedulerUrl = None,
    data_dir: DataDir = None,
    socket: Socket = None,
    advertise: Advertise = None,
    options: Daemon | None = None,
) -> None:
    """Run the daemon that every machine has: it fetches content for local programs and passes it on."""
    config = load(
        options,
        {
            "peer.listen": listen,
            "peer.gateway": gateway,
            "host.scheduler": scheduler,
            "host.data_dir": data_dir,
            "peer.socket": socket,
            "host.advertise": advertise,
            **_log_flags(options),
        },
    ).config
    start_logging(config, options)
    from peer.roles import run_peer

    run_role(run_peer, config)


def up(
    *,
    listen: Annotated[
        str | None,
        Parameter(help="HOST:PORT for pieces [default: port 65002, on all interfaces for callers near by]."),
    ] = None,
    data_dir: DataDir = None,
    socket: Socket = None,
    options: Daemon | None = None,
) -> None:
    """Run all roles in one process, with nothing else to install or configure: hosts of one LAN find each other."""
    config = load(
        options,
        {
            "peer.listen": listen,
            "host.data_dir": data_dir,
            "peer.socket": socket,
            **_log_flags(options),
        },
    ).config
    start_logging(config, options)
    from peer.roles import run_up

    run_role(run_up, config)


def _log_flags(options: Daemon | None) -> dict[str, object]:
    return {"log.level": options.log_level, "log.format": options.log_format} if options else {}
