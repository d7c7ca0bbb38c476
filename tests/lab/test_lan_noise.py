"""A LAN on which somebody says what is not true: hosts stay up, stay small, and go on."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from peer.lan.twins import NEWCOMER
from shared.protocol import Hello
from tests.integration.net import wait_until
from tests.integration.origins import MIB, random_content
from tests.lab.lan import LanLab
from tests.lab.mdns_noise import Noise, announcement, garbage, ghosts, hostile, txt_of
from tests.lab.network import Network

pytestmark = pytest.mark.root

CONTENT = random_content(16 * MIB + 1, seed=55)
GHOSTS = 500


@contextmanager
def unhelpful(address: str, says: bytes) -> Iterator[str]:
    """A listener that answers everybody with ``says`` and then with nothing, or (where it says something) with
    zeros for ever; "HOST:PORT"."""
    listener = socket.create_server((address, 0))
    listener.settimeout(0.2)
    ended = threading.Event()
    open_sockets: list[socket.socket] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if says:
                sock.sendall(says)
                while not ended.is_set():
                    sock.sendall(bytes(65536))

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.settimeout(5)
                open_sockets.append(sock)
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield "{}:{}".format(*listener.getsockname())
    finally:
        ended.set()
        accepting.join(5)
        for sock in [listener, *open_sockets]:
            sock.close()


@contextmanager
def liar(address: str, hello: Hello) -> Iterator[int]:
    """Somebody who says who he is, as ``hello``, and gives no answer to anything else; the port."""
    ended = threading.Event()

    class Lying(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/v1/hello":
                ended.wait(30)
                return
            body = msgspec.json.encode(hello)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            ended.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A host that has hung up is no trouble."""

    with Server((address, 0), Lying) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            ended.set()
            server.shutdown()
            thread.join(10)


@contextmanager
def going_on(work: Callable[[int], None]) -> Iterator[None]:
    """Do ``work`` (told how often it was done) again and again, four times a second."""
    ended = threading.Event()

    def repeat() -> None:
        number = 0
        while not ended.wait(0.25):
            work(number)
            number += 1

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


def nobody(network: Network) -> list[str]:
    """Addresses at which there is nobody: in the network, beyond any way, and where connections are refused."""
    here = [f"{network.prefix}.{number}" for number in range(120, 250)]
    return [*here, *(f"10.98.{number}.1" for number in range(20)), network.gateway]


def test_noise_does_no_harm(lab: LanLab, figure: Callable[[str], None]) -> None:
    network = lab.network()
    origin = lab.origin(network)
    hosts = [lab.host(network, role) for role in ("up", "peer", "peer")]
    lab.wait_found(hosts)
    lab.get_all(origin.add("/before", CONTENT), hosts, CONTENT)
    before = {host.name: host.memory() for host in hosts}

    silent = unhelpful(network.gateway, b"")
    endless = unhelpful(network.gateway, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    with Noise(network.gateway) as noise, silent as one, endless as two:
        traps = [
            announcement(
                f"trap{port}".encode(), [network.gateway], txt_of(f"{int(port):016x}"), port=int(port)
            )
            for port in (place.rpartition(":")[2] for place in (one, two))
        ]
        false = list(ghosts(GHOSTS, nobody(network)))

        def shout(number: int) -> None:
            noise.send(garbage(60, seed=number))
            noise.send(hostile(hosts[0].id, f"{network.prefix}.251"))
            noise.send(traps)
            noise.send(false[number % 4 :: 4])

        with going_on(shout):
            wait_until(
                lambda: all(
                    len(host.others()) >= GHOSTS // 2 or host.view()["ignored"].get("full") for host in hosts
                ),
                "the ghosts are known",
                60,
            )
            newcomer = lab.host(network, "peer")
            hosts.append(newcomer)
            figure(f"a newcomer was found in the noise after {lab.wait_found(hosts):.1f} s")
            for number in range(3):
                path = f"/during-{number}"
                lab.get_all(origin.add(path, CONTENT), hosts, CONTENT)
                assert origin.count(path).body == len(CONTENT)
        for host in hosts:
            view = host.view()
            assert view["mode"] == "ring"
            assert view["ignored"].get("malformed", 0) > 0
            assert len(view["hosts"]) <= 512 + len(hosts)
        lab.wait_found(hosts)

    for host in hosts[:3]:
        grown = host.memory() - before[host.name]
        figure(f"{host.name} has grown by {grown / MIB:.1f} MiB, to {host.memory() / MIB:.0f} MiB")
        assert grown < 64 * MIB
    shown = lab.run(hosts[0], "lan", "--socket", str(hosts[0].socket)).stdout
    assert "\x1b]" not in shown
    assert "\x07" not in shown


def test_a_scheduler_that_is_none_and_those_who_have_ids_that_are_taken(
    lab: LanLab, figure: Callable[[str], None]
) -> None:
    network = lab.network()
    origin = lab.origin(network)
    hosts = [lab.host(network, role) for role in ("up", "peer", "peer")]
    lab.wait_found(hosts)
    lab.wait_mode("ring", hosts)
    before = [host.id for host in hosts]
    wait_until(
        lambda: all(
            time.time() - other["since"] > NEWCOMER for host in hosts for other in host.others().values()
        ),
        "all have been there for a while",
    )
    lies = [
        Hello(id="e" * 16, instance="a" * 16, role="scheduler", schedules=True),
        # who works here keeps its id, whoever claims it, and since when
        Hello(id=before[0], instance="b" * 16, role="peer", schedules=True, started=time.time()),
        Hello(id=before[1], instance="c" * 16, role="peer", schedules=True, started=1.0),
    ]
    with ExitStack() as stack:
        noise = stack.enter_context(Noise(network.gateway))
        packets = [
            announcement(
                hello.instance.encode(),
                [network.gateway],
                txt_of(hello.id, role=hello.role.encode()),
                port=stack.enter_context(liar(network.gateway, hello)),
            )
            for hello in lies
        ]
        stack.enter_context(going_on(lambda _: noise.send(packets)))
        wait_until(lambda: all("e" * 16 in host.others() for host in hosts), "the false scheduler is known")
        for host in hosts[:2]:
            wait_until(
                lambda host=host: host.view()["ignored"].get("conflict", 0) > 0, f"{host.name} meets its twin"
            )
        for number in range(2):
            path = f"/lied-{number}"
            lab.get_all(origin.add(path, CONTENT), hosts, CONTENT)
            assert origin.count(path).body <= 2 * len(CONTENT)
            figure(f"the origin was read {origin.count(path).body / len(CONTENT):.2f} times")
        lab.wait_mode("ring", hosts)
    figure(f"the hosts were by themselves again after {lab.wait_found(hosts):.1f} s")
    assert [host.id for host in hosts] == before
    for host in hosts:
        there = host.present()
        addresses = {other["address"] for name, other in host.others().items() if name in there}
        assert addresses == {f"{other.machine.address}:65002" for other in hosts if other is not host}
    path = "/after"
    lab.get_all(origin.add(path, CONTENT), hosts, CONTENT)
    assert origin.count(path).body == len(CONTENT)
