"""dragonet between machines with addresses of their own: ``make lab``, as root."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.net import get_json, request, wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.integration.processes import clean_environment, dragonet_command
from tests.lab.network import Machine, Network, Node

pytestmark = pytest.mark.root


class Lan:
    """A scheduler and a seeder on one machine, peers on others, an origin beside them."""

    def __init__(self, network: Network, origin: Origin, folder: Path, peers: int) -> None:
        self.network = network
        self.origin = origin
        self.folder = folder
        self.environ = clean_environment(folder, {"DRAGONET_CONFIG": ""})
        self.nodes: list[Node] = []
        self.peers: list[Node] = []
        self.scheduler = ""
        self._count = peers

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        centre = self.network.machine()
        self.scheduler = f"{centre.address}:8002"
        self._start("scheduler", centre, "--listen", "0.0.0.0:8002")
        self._start("seeder", centre, "--listen", "0.0.0.0:65002", "--scheduler", f"http://{self.scheduler}")
        self.peers += [self._start_peer(self.network.machine()) for _ in range(self._count)]
        for node in self.nodes[1:]:
            wait_until(lambda node=node: self._ready(node), f"{node.folder.name} is ready")

    def _start(self, role: str, machine: Machine, *flags: str) -> Node:
        folder = self.folder / f"{role}-{machine.address}"
        node = Node(machine, folder, [*dragonet_command(), role, *flags], self.environ)
        self.nodes.append(node)
        return node

    def _start_peer(self, machine: Machine) -> Node:
        socket = self.folder / f"{machine.address}.sock"
        flags = (
            "--listen",
            "0.0.0.0:65002",
            "--scheduler",
            f"http://{self.scheduler}",
            "--socket",
            str(socket),
        )
        return self._start("peer", machine, *flags)

    def _ready(self, node: Node) -> bool:
        assert node.process.poll() is None, node.log.read_text()
        try:
            return request(f"{node.machine.address}:65002", "/readyz", timeout=2).status == 200
        except OSError:
            return False

    def start_get(self, url: str, peer: Node) -> subprocess.Popen[bytes]:
        """``dragonet get --json`` at a peer; the content goes to ``out`` in its folder."""
        socket = self.folder / f"{peer.machine.address}.sock"
        command = [
            *dragonet_command(),
            "get",
            url,
            "-o",
            str(peer.folder / "out"),
            "--socket",
            str(socket),
            "--json",
        ]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def close(self) -> list[int]:
        """End every process; their exit codes."""
        return [node.close() for node in reversed(self.nodes)]


@pytest.fixture
def network() -> Iterator[Network]:
    assert os.geteuid() == 0, "the lab builds network namespaces: run it as root"
    with Network() as made:
        yield made


@pytest.fixture
def origin(network: Network) -> Iterator[Origin]:
    with Origin(network.gateway) as made:
        yield made


@pytest.fixture
def make_lan(network: Network, origin: Origin, tmp_path: Path) -> Iterator[Callable[[int], Lan]]:
    """Makes LANs with so many peers; every process must end in good order."""
    lans: list[Lan] = []

    def make(peers: int) -> Lan:
        lans.append(Lan(network, origin, tmp_path, peers))
        lans[-1].start()
        return lans[-1]

    yield make
    codes = [code for lan in lans for code in lan.close()]
    assert codes == [0] * len(codes)


def finished(get: subprocess.Popen[bytes]) -> dict[str, object]:
    out, error = get.communicate(timeout=90)
    assert get.returncode == 0, error.decode()
    told = json.loads(out)
    assert isinstance(told, dict)
    return told


def test_machines_find_each_other_and_the_origin_is_read_once(
    network: Network, origin: Origin, make_lan: Callable[[int], Lan]
) -> None:
    content = random_content(48 * MIB)
    url = origin.add("/file", content)
    lan = make_lan(3)
    addresses = {host["address"] for host in get_json(lan.scheduler, "/v1/hosts")["hosts"]}
    assert addresses == {f"{machine.address}:65002" for machine in network.machines}
    for told in [finished(get) for get in [lan.start_get(url, peer) for peer in lan.peers]]:
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert origin.count("/file").body == len(content)


def test_a_machine_that_was_cut_off_goes_on(
    network: Network, origin: Origin, make_lan: Callable[[int], Lan]
) -> None:
    content = random_content(32 * MIB)
    gate = Gate(8 * MIB)
    url = origin.add("/file", content, gate=gate)
    lan = make_lan(2)
    staying, cut = lan.peers
    gets = [lan.start_get(url, peer) for peer in (staying, cut)]
    wait_until(lambda: gate.waiting, "the origin is being read")
    cut.machine.unplug()
    gate.open()
    finished(gets[0])
    assert gets[1].poll() is None
    cut.machine.plug(network)
    assert finished(gets[1])["sha256"] == hashlib.sha256(content).hexdigest()
    assert origin.count("/file").body == len(content)
