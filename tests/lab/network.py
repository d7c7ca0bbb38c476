"""Machines of a LAN as network namespaces on a bridge: own addresses, own loopback, cables that can be pulled.

Needs root. The test process stands on each bridge, too, at ``gateway``, and on an address beyond all of them
(``outside``), to which every machine has a way that passes no other machine: the place for origins.

Multicast reaches all ports of a bridge. Whatever is made here is gone when the context of its network ends; what a
killed run has left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.integration.processes import bound_to_us

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_DEVICES = Path("/sys/class/net")
_NAMES = "dnlab"
_SETTINGS = (
    # What BBR (the default of some systems) makes of a way back through a full queue differs from run to
    # run by a third. A namespace may not choose CUBIC everywhere.
    "cd /proc/sys/net; echo cubic > ipv4/tcp_congestion_control 2>/dev/null || echo reno > ipv4/tcp_congestion_control;"
    # machines were switched on long ago: their IPv6 addresses have been looked for twice and are good
    "for place in all default; do echo 0 > ipv6/conf/$place/accept_dad; done"
)

MBIT = 1_000_000 // 8
"""Bytes per second."""


def ip(*arguments: str) -> str:
    """Run ip(8); what it printed. Raises CalledProcessError."""
    return _run("ip", *arguments)


def tc(*arguments: str) -> str:
    """Run tc(8); what it printed. Raises CalledProcessError."""
    return _run("tc", *arguments)


def _run(name: str, *arguments: str) -> str:
    program = shutil.which(name, path=_PATH)
    assert program is not None, f"{name} is not installed: run `make lab`"
    try:
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def _try_ip(*arguments: str) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):
        ip(*arguments)


@dataclass(frozen=True)
class Traffic:
    """What has passed a cable, in bytes, with all headers of the packets."""

    to_machine: int
    from_machine: int


class Cable:
    """A network card of a machine, and the cable from it to a switch.

    ``address`` is its IPv4 address, ``address6`` its IPv6 one; "" where the network has none of the kind.
    """

    def __init__(self, machine: Machine, network: Network, device: str) -> None:
        number = network.take_number()
        self.machine = machine
        self.network = network
        self.device = device
        self.address = f"{network.prefix}.{number}" if network.prefix else ""
        self.address6 = f"{network.prefix6}::{number}" if network.prefix6 else ""
        self._end = f"{network.name}c{number}"
        """The end at the switch."""
        self._limited = False
        network.on_exit(_try_ip, "link", "del", self._end)
        peer = ("peer", "name", device, "netns", machine.namespace)
        ip("link", "add", self._end, "type", "veth", *peer)
        ip("link", "set", self._end, "master", network.name, "up")
        if self.address:
            self._ip("addr", "add", f"{self.address}/24", "dev", device)
        self.up()

    def __repr__(self) -> str:
        return f"<Cable {self.device} of {self.machine.namespace}: {self.address} {self.address6}>"

    def _ip(self, *arguments: str) -> str:
        return ip("-n", self.machine.namespace, *arguments)

    def limit(self, rate: int) -> None:
        """Let at most ``rate`` bytes per second pass in each direction, or all with 0."""
        if not rate and not self._limited:
            return
        self._limited = bool(rate)
        verb = "replace" if rate else "del"
        shape = ("tbf", "rate", f"{rate * 8}bit", "burst", "256kb", "latency", "50ms") if rate else ()
        tc("qdisc", verb, "dev", self._end, "root", *shape)
        tc("-n", self.machine.namespace, "qdisc", verb, "dev", self.device, "root", *shape)

    @property
    def traffic(self) -> Traffic:
        """What has passed so far."""
        counted = _DEVICES / self._end / "statistics"
        sent, received = ((counted / name).read_text() for name in ("tx_bytes", "rx_bytes"))
        return Traffic(to_machine=int(sent), from_machine=int(received))

    def unplug(self) -> None:
        """Pull the cable out of the switch: packets are lost, nobody is told."""
        ip("link", "set", self._end, "nomaster")

    def plug(self, network: Network | None = None) -> None:
        """Put the cable back (or into another network's switch; its addresses stay)."""
        ip("link", "set", self._end, "master", (network or self.network).name)

    def down(self) -> None:
        """Switch the card off: the machine knows, and has no way out here any more."""
        self._ip("link", "set", self.device, "down")

    def up(self) -> None:
        """Switch the card on, with its addresses (IPv6 ones go when it is switched off) and routes."""
        self._ip("link", "set", self.device, "up")
        if self.address6:
            self._ip("addr", "replace", f"{self.address6}/64", "dev", self.device, "nodad")
        for destination, via in self.network.routes:
            self.add_route(destination, via)

    def readdress(self) -> None:
        """Switch the card off, and on again with another IPv4 address, as another network would give one."""
        self.down()
        before, self.address = self.address, f"{self.network.prefix}.{self.network.take_number()}"
        self._ip("addr", "del", f"{before}/24", "dev", self.device)
        self._ip("addr", "add", f"{self.address}/24", "dev", self.device)
        self.up()

    def add_route(self, destination: str, via: str) -> None:
        """A way to ``destination`` (a prefix) through the machine ``via`` of this network (unless it is this one)."""
        if via == self.address:
            return
        self._ip("route", "replace", destination, "via", via, "dev", self.device)


class Machine:
    """One namespace, with one cable or several; what is said of "the cable" concerns the first one."""

    def __init__(self, network: Network, *, hostname: str = "") -> None:
        """``hostname`` is its own name, where it is not to be that of the machine that the tests run on."""
        self.namespace = f"{network.name}-{network.next_number()}"
        self.hostname = hostname
        self.cables: list[Cable] = []
        network.on_exit(_remove_namespace, self.namespace)
        ip("netns", "add", self.namespace)
        ip("netns", "exec", self.namespace, "sh", "-c", _SETTINGS)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        self.attach(network)

    def __repr__(self) -> str:
        return f"<Machine {self.namespace}>"

    def attach(self, network: Network) -> Cable:
        """One more cable, to the switch of ``network``: eth0, eth1, …"""
        cable = Cable(self, network, f"eth{len(self.cables)}")
        self.cables.append(cable)
        network.cables.append(cable)
        return cable

    @property
    def address(self) -> str:
        """Its (first) IPv4 address."""
        return self.cables[0].address

    def limit(self, rate: int) -> None:
        """See Cable."""
        self.cables[0].limit(rate)

    @property
    def traffic(self) -> Traffic:
        """See Cable."""
        return self.cables[0].traffic

    def unplug(self) -> None:
        """See Cable."""
        self.cables[0].unplug()

    def plug(self, network: Network | None = None) -> None:
        """See Cable."""
        self.cables[0].plug(network)

    def add_bridge(self, name: str, address: str) -> None:
        """A bridge that leads nowhere, as container runtimes make them, with ``address`` (with its prefix), and a
        port so that it counts as up."""
        port = f"veth{name[:9]}"
        ip("-n", self.namespace, "link", "add", name, "type", "bridge")
        ip("-n", self.namespace, "link", "add", port, "type", "veth", "peer", "name", f"{port}p")
        ip("-n", self.namespace, "link", "set", f"{port}p", "up")
        ip("-n", self.namespace, "link", "set", port, "master", name, "up")
        ip("-n", self.namespace, "addr", "add", address, "dev", name)
        ip("-n", self.namespace, "link", "set", name, "up")

    def forward(self) -> None:
        """Pass packets on between the cables: be a router. Multicast does not pass."""
        ip("netns", "exec", self.namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to run here; ip(8) becomes the command, so signals reach it.

        The command sees the file system of everybody, but what it mounts is seen by nobody else, and is gone
        when it has ended.
        """
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.hostname]
        return [*bound_to_us(), "ip", "netns", "exec", self.namespace, *(named if self.hostname else [])]

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


def _remove_namespace(name: str) -> None:
    """Remove a namespace and kill what still runs in it: only its own processes can."""
    with contextlib.suppress(subprocess.CalledProcessError):
        for pid in ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
    _try_ip("netns", "del", name)


class Network:
    """The LAN: a switch and what is plugged in; a context manager that removes everything at its end.

    ``outside`` is an address of the test process that belongs to no network. With ``ipv4=False`` the machines have
    IPv6 addresses only. ``beside`` another network, this one is a second switch of the same subnet, joined with the
    other's by a patch cable that can be pulled (``part``, ``join``); ``outside`` stays within reach from both.
    """

    def __init__(self, *, ipv4: bool = True, ipv6: bool = False, beside: Network | None = None) -> None:
        self.machines: list[Machine] = []
        self.cables: list[Cable] = []
        self.routes: list[tuple[str, str]] = []
        self.name = self.prefix = self.prefix6 = self.gateway = self.gateway6 = self.outside = ""
        self._ipv4, self._ipv6, self._beside = ipv4, ipv6, beside
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        sweep()
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _make(self) -> None:
        number = self._make_bridge()
        beside = self._beside
        self.prefix = beside.prefix if beside else f"10.213.{number}" if self._ipv4 else ""
        self.prefix6 = f"fd00:d213:{number}" if self._ipv6 else ""
        self._numbers = itertools.count(102 if beside else 2)
        self._next = next(self._numbers)
        gateway = 254 if beside else 1
        self.gateway = f"{self.prefix}.{gateway}" if self.prefix else ""
        self.gateway6 = f"{self.prefix6}::1" if self.prefix6 else ""
        if self.prefix6:
            ip("addr", "add", f"{self.gateway6}/64", "dev", self.name, "nodad")
        if not self.prefix:
            return
        ip("addr", "add", f"{self.gateway}/{32 if beside else 24}", "dev", self.name)
        self.outside = beside.outside if beside else f"10.214.{number}.1"
        self.route(f"{self.outside}/32", self.gateway)
        if beside:
            self._patch(beside)
        else:
            ip("addr", "add", f"{self.outside}/32", "dev", self.name)

    def _make_bridge(self) -> int:
        for number in (1 + (os.getpid() + step) % 250 for step in range(250)):
            self.name = f"{_NAMES}{number}"
            if (_DEVICES / self.name).exists():
                continue
            # an own address, or else it is that of one of the ports and changes when cables are pulled
            own = f"02:d2:13:00:00:{number:02x}"
            try:
                ip("link", "add", self.name, "address", own, "type", "bridge", "mcast_snooping", "0")
            except subprocess.CalledProcessError:
                continue  # somebody else was quicker
            self._stack.callback(_try_ip, "link", "del", self.name)
            ip("link", "set", self.name, "alias", f"{os.getpid()}")
            ip("link", "set", self.name, "up")
            return number
        raise AssertionError("there are too many networks")

    def _patch(self, beside: Network) -> None:
        self._ends = f"{self.name}a", f"{self.name}b"
        self.on_exit(_try_ip, "link", "del", self._ends[0])
        ip("link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
        for end, network in zip(self._ends, (self, beside), strict=True):
            ip("link", "set", end, "master", network.name, "up")
            # each gateway answers for itself alone: the other one may be gone in a moment
            (Path("/proc/sys/net/ipv4/conf") / network.name / "arp_ignore").write_text("1")

    def part(self) -> None:
        """Pull the patch cable between this switch and the one that it stands beside."""
        ip("link", "set", self._ends[0], "nomaster")

    def join(self) -> None:
        """Put the patch cable back."""
        ip("link", "set", self._ends[0], "master", self.name)

    def machine(self, *, hostname: str = "") -> Machine:
        """One more machine."""
        made = Machine(self, hostname=hostname)
        self.machines.append(made)
        if self._beside:
            ip("route", "add", f"{made.address}/32", "dev", self.name)
        return made

    def route(self, destination: str, via: str) -> None:
        """All machines here, also those to come, reach ``destination`` through ``via``."""
        self.routes.append((destination, via))
        for cable in self.cables:
            cable.add_route(destination, via)

    def next_number(self) -> int:
        """The number of the next address."""
        return self._next

    def take_number(self) -> int:
        """The number of the next address, which is taken then."""
        taken, self._next = self._next, next(self._numbers)
        return taken

    def on_exit(self, what: object, *arguments: str) -> None:
        """Call ``what`` when everything is removed, the last one said first."""
        assert callable(what)
        self._stack.callback(what, *arguments)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def connect(router: Machine, *networks: Network) -> None:
    """Make a machine with a cable in each of ``networks`` the router between their subnets."""
    router.forward()
    own = {cable.network: cable.address for cable in router.cables}
    for network, other in itertools.permutations(networks, 2):
        network.route(f"{other.prefix}.0/24", own[network])


def sweep() -> None:
    """Remove the networks of test processes that are gone."""
    for name in _abandoned():
        for namespace in ip("netns", "list").split():
            if namespace.startswith(f"{name}-"):
                _remove_namespace(namespace)
        for device in os.listdir(_DEVICES):
            if device.startswith((f"{name}c", f"{name}a")):
                _try_ip("link", "del", device)
        _try_ip("link", "del", name)


def _abandoned() -> Iterator[str]:
    for device in _DEVICES.glob(f"{_NAMES}*"):
        with contextlib.suppress(OSError):
            owner = (device / "ifalias").read_text().strip()
            if owner.isdecimal() and not Path("/proc", owner).exists():
                yield device.name
