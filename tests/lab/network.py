"""Machines of a LAN as network namespaces on a bridge: own addresses, own loopback, cables that can be pulled.

Needs root. The test process stands on the bridge, too, at ``gateway``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.integration.processes import bound_to_us

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

MBIT = 1_000_000 // 8
"""Bytes per second."""


def ip(*arguments: str) -> None:
    """Run ip(8). Raises CalledProcessError."""
    _run("ip", *arguments)


def tc(*arguments: str) -> None:
    """Run tc(8). Raises CalledProcessError."""
    _run("tc", *arguments)


def _run(name: str, *arguments: str) -> None:
    program = shutil.which(name, path=_PATH)
    assert program is not None, f"{name} is not installed: run `make lab`"
    subprocess.run([program, *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Traffic:
    """What has passed a cable, in bytes, with all headers of the packets."""

    to_machine: int
    from_machine: int


class Machine:
    """One namespace with one cable."""

    def __init__(self, network: Network, number: int) -> None:
        self.namespace = f"{network.name}-{number}"
        self.address = f"{network.prefix}.{number + 1}"
        self._cable = f"{network.name}c{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self._cable, "master", network.name, "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        # What BBR (the default of some systems) makes of a way back through a full queue differs from run to
        # run by a third. A namespace may not choose CUBIC everywhere.
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        choice = f"echo cubic > {setting} 2>/dev/null || echo reno > {setting}"
        ip("netns", "exec", self.namespace, "sh", "-c", choice)

    def limit(self, rate: int) -> None:
        """Let at most ``rate`` bytes per second pass the cable in each direction, or all with 0."""
        verb = "replace" if rate else "del"
        shape = ("tbf", "rate", f"{rate * 8}bit", "burst", "256kb", "latency", "50ms") if rate else ()
        tc("qdisc", verb, "dev", self._cable, "root", *shape)
        tc("-n", self.namespace, "qdisc", verb, "dev", "eth0", "root", *shape)

    @property
    def traffic(self) -> Traffic:
        """What has passed the cable so far."""
        counted = Path("/sys/class/net") / self._cable / "statistics"
        sent, received = ((counted / name).read_text() for name in ("tx_bytes", "rx_bytes"))
        return Traffic(to_machine=int(sent), from_machine=int(received))

    def unplug(self) -> None:
        """Pull the cable: packets are lost, nobody is told."""
        ip("link", "set", self._cable, "nomaster")

    def plug(self, network: Network) -> None:
        """Put the cable back."""
        ip("link", "set", self._cable, "master", network.name)

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to run here; ip(8) becomes the command, so signals reach it.

        The command sees the file system of everybody, but what it mounts is seen by nobody else, and is gone
        when it has ended.
        """
        return [*bound_to_us(), "ip", "netns", "exec", self.namespace]

    def start(
        self, command: Sequence[str], environ: Mapping[str, str], output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start a program on this machine."""
        return subprocess.Popen(
            [*self.prefix, *command],
            env={**environ, "PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Remove the namespace; its end of the cable goes with it."""
        ip("netns", "del", self.namespace)


class Network:
    """The LAN; a context manager that removes everything at its end."""

    def __init__(self) -> None:
        number = next(
            number
            for number in (1 + (os.getpid() + step) % 250 for step in range(250))
            if not (Path("/sys/class/net") / f"dnlab{number}").exists()
        )
        self.name = f"dnlab{number}"
        self.prefix = f"10.213.{number}"
        self.gateway = f"{self.prefix}.1"
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.gateway}/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        return self

    def machine(self) -> Machine:
        """One more machine."""
        made = Machine(self, len(self.machines) + 1)
        self.machines.append(made)
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.close()
        ip("link", "del", self.name)


class Node:
    """A dragonet process on a machine, with its folder and its log."""

    def __init__(
        self, machine: Machine, folder: Path, command: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        folder.mkdir()
        self.machine = machine
        self.folder = folder
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = machine.start([*command, "--data-dir", str(folder / "data")], environ, output)

    def close(self) -> int:
        """SIGTERM, then the exit code. Raises TimeoutExpired."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
