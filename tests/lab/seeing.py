"""One MdnsSource as a program, for machines of the lab: tells what it sees as lines of JSON on stdout.

``python -m tests.lab.seeing ID [--port N] [--cluster C] [--role R] [--interfaces A,B] [--silent]``. At SIGUSR1 it
announces the id turned round, and the next port.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import trio

from peer.lan.interfaces import Interfaces
from peer.lan.mdns import Announcement, MdnsSource
from peer.lan.sightings import Sighting
from shared import logging


class Teller:
    """A watcher that prints."""

    def seen(self, sighting: Sighting) -> None:
        """Somebody was seen."""
        _say("seen", **asdict(sighting))

    def gone(self, source: str, key: str) -> None:
        """Somebody is gone."""
        _say("gone", key=key)

    def ignored(self, reason: str) -> None:
        """Somebody was left out."""
        _say("ignored", reason=reason)


def _say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, "time": time.time(), **values}), flush=True)


async def _main(options: argparse.Namespace) -> None:
    interfaces = Interfaces(tuple(filter(None, options.interfaces.split(","))))
    announcement = Announcement(
        id=options.id,
        role=options.role,
        cluster=options.cluster,
        port=options.port,
        location="here",
        release="1.0",
        name=options.name or socket.gethostname(),
    )
    source = MdnsSource(None if options.silent else announcement, options.cluster, interfaces)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interfaces.run)
        nursery.start_soon(source.run, Teller())
        nursery.start_soon(_use)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
            _say("started", primary=interfaces.primary())
            async for number in signals:
                if number == signal.SIGUSR1:
                    source.announce(replace(announcement, id=options.id[::-1], port=options.port + 1))
                else:
                    nursery.cancel_scope.cancel()


async def _use() -> None:
    """Tell the CPU time (seconds) and the memory (KiB) that this process has used, once a second."""
    while True:
        used = resource.getrusage(resource.RUSAGE_SELF)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4  # noqa: ASYNC240 - no disk
        _say("use", cpu=used.ru_utime + used.ru_stime, resident=resident)
        await trio.sleep(1)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("id")
    parser.add_argument("--port", type=int, default=65002)
    parser.add_argument("--cluster", default="default")
    parser.add_argument("--role", default="peer")
    parser.add_argument("--interfaces", default="")
    parser.add_argument("--name", default="")
    parser.add_argument("--silent", action="store_true")
    options = parser.parse_args()
    logging.configure("info", "console", sys.stderr)
    trio.run(_main, options)


if __name__ == "__main__":
    main()
