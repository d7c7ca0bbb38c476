"""Garbage on every port of every role: answered with 4xx or closed, no traceback, no growth."""

from __future__ import annotations

import contextlib
import itertools
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.integration.cluster import Cluster
from tests.integration.garbage import cases
from tests.integration.net import connect, wait_until
from tests.integration.origins import MIB, Origin, random_content
from tests.integration.processes import Daemon

CASES = 10_000
WARM_UP = 1_500
THREADS = 6
SEED = 20_261_120
GROWTH = 48 * MIB
CONTENT = random_content(2 * MIB, seed=51)


@dataclass
class Findings:
    """What came back, over all cases."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, port: str, case: bytes, answer: bytes) -> None:
        """Check one answer: nothing, or HTTP with a status that puts the blame on the request."""
        found = [int(status) for status in re.findall(rb"(?:^|\n)HTTP/1\.[01] (\d{3}) ", answer)]
        with self.lock:
            self.statuses.update(found)
            if answer and not answer.startswith(b"HTTP/1."):
                self.wrong.append(f"{port} answered {case[:200]!r} with {answer[:200]!r}")
            elif 500 in found or 502 in found or b"Traceback" in answer:
                self.wrong.append(f"{port} answered {case[:600]!r} with {answer[-600:]!r}")


def ports(cluster: Cluster) -> list[str]:
    """Every address on which the roles listen."""
    assert cluster.scheduler is not None
    peer, seeder = cluster.peers[0], cluster.seeders[0]
    addresses = [cluster.scheduler.address, seeder.address, peer.address, str(peer.socket)]
    with contextlib.suppress(OSError):
        connect(peer.gateway).close()
        addresses.append(peer.gateway)
    return addresses


def throw(address: str, case: bytes, number: int) -> bytes:
    """Send one case; what came back until the other side closed. Every seventh case is slammed shut."""
    with connect(address, 30) as sock:
        if number % 7 == 0 and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                sock.sendall(case)
            return b""
        answer = bytearray()
        with contextlib.suppress(ConnectionError):
            sock.sendall(case)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer += data
                if len(answer) > 4 * MIB:
                    break
        return bytes(answer)


def test_ten_thousand_cases_of_garbage(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    url = origin.add("/file", CONTENT)
    (peer,) = cluster.peers
    cluster.get(url, peer).check(CONTENT)
    addresses = ports(cluster)
    findings = Findings()

    def one(job: tuple[int, bytes]) -> None:
        number, case = job
        address = addresses[number % len(addresses)]
        try:
            answer = throw(address, case, number)
        except TimeoutError:
            with findings.lock:
                findings.wrong.append(f"{address} neither answered nor closed after {case[:300]!r}")
        else:
            findings.note(address, case, answer)

    stream = enumerate(cases(SEED))
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(one, itertools.islice(stream, WARM_UP)):
            pass
        wait_for_files(cluster.daemons)
        before = {daemon.name: (daemon.memory("VmRSS"), daemon.open_files()) for daemon in cluster.daemons}
        for _ in pool.map(one, itertools.islice(stream, CASES - WARM_UP)):
            pass
    some = "\n".join(findings.wrong[:5])
    assert not findings.wrong, f"{len(findings.wrong)} wrong answers, such as:\n{some}"
    assert sum(count for status, count in findings.statuses.items() if 400 <= status < 500) > CASES / 5
    wait_for_files(cluster.daemons)
    for daemon in cluster.daemons:
        memory, files = before[daemon.name]
        assert daemon.answers("/healthz"), daemon
        assert daemon.memory("VmRSS") - memory < GROWTH, f"{daemon.name} grew"
        wait_for_files([daemon], files + 10)
        assert "Traceback" not in daemon.log
    again = cluster.start_peer()
    cluster.get(url, again).check(CONTENT)


def wait_for_files(daemons: list[Daemon], most: int = 80) -> None:
    """Wait until no daemon has more than so many files and connections open."""
    for daemon in daemons:
        closed = partial(_has_few_files, daemon, most)
        wait_until(closed, f"{daemon.name} closes its connections", 60)


def _has_few_files(daemon: Daemon, most: int) -> bool:
    return daemon.open_files() <= most


def each_port(cluster: Cluster, work: Callable[[str], str]) -> None:
    """Run ``work`` for every port at the same time; it gives "" or what was wrong."""
    addresses = ports(cluster)
    with ThreadPoolExecutor(len(addresses)) as pool:
        wrong = [found for found in pool.map(work, addresses) if found]
    assert not wrong, "\n".join(wrong)
    assert all(daemon.answers("/healthz") for daemon in cluster.daemons)


@pytest.fixture(scope="module")
def quick_cluster() -> Iterator[Cluster]:
    """A cluster whose listeners lose patience soon; it stands for all tests of the module."""
    settings = {
        "DRAGONET_SERVER_HEADER_TIMEOUT": "2s",
        "DRAGONET_SERVER_BODY_TIMEOUT": "2s",
        "DRAGONET_SERVER_IDLE_TIMEOUT": "3s",
        "DRAGONET_SERVER_WRITE_TIMEOUT": "3s",
    }
    with Cluster(environ=settings) as cluster:
        yield cluster.start()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"PUT /v1/hosts/h HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "request line", "fields", "body", "idle after an answer"],
)
def test_slow_clients_are_let_go(quick_cluster: Cluster, beginning: bytes) -> None:
    """A client that sends a byte of its head now and then, or nothing more, is not waited for without end."""
    dripping = beginning != b"" and b"\r\n\r\n" not in beginning

    def work(address: str) -> str:
        with connect(address, 0.5) as sock:
            sock.sendall(beginning)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    if not sock.recv(65536):
                        return ""
                except TimeoutError:
                    if dripping:
                        with contextlib.suppress(OSError):
                            sock.send(b"a")
                except ConnectionError:
                    return ""
        return f"{address} kept a slow client for 20 s"

    each_port(quick_cluster, work)


ENDLESS = {
    "length": (b"PUT /v1/hosts/h HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", bytes(65536)),
    "chunked": (
        b"POST /v1/hosts/h/reports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + bytes(65536) + b"\r\n",
    ),
    "chunked to nobody": (
        b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + bytes(65536) + b"\r\n",
    ),
    "with a GET": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + bytes(65536) + b"\r\n",
    ),
    "fields": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X-Field: value\r\n" * 512),
    "one field": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"y" * 8192),
    "request line": (b"GET /", b"y" * 8192),
}


def test_endless_requests_are_cut(cluster: Cluster) -> None:
    """Whoever sends without end is disconnected soon, and nothing of it is kept."""
    cluster.start()
    before = [daemon.memory("VmRSS") for daemon in cluster.daemons]

    def work(job: tuple[str, str]) -> str:
        address, name = job
        head, more = ENDLESS[name]
        deadline = time.monotonic() + 40
        with connect(address, 40) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(head)
            while time.monotonic() < deadline:
                sock.sendall(more)
            return f"{address} went on reading an endless request ({name})"
        return ""

    with ThreadPoolExecutor(8) as pool:
        wrong = [found for found in pool.map(work, itertools.product(ports(cluster), ENDLESS)) if found]
    assert not wrong, "\n".join(wrong)
    for daemon, was in zip(cluster.daemons, before, strict=True):
        assert daemon.answers("/healthz"), daemon
        assert daemon.memory("VmRSS") - was < GROWTH, f"{daemon.name} grew"


def test_clients_that_never_read_are_let_go(quick_cluster: Cluster, origin: Origin) -> None:
    """Pipelined requests whose answers nobody takes: the server stops and closes, its memory stays."""
    content = random_content(64 * MIB, seed=52)
    url = origin.add("/file", content)
    task_id = quick_cluster.get(url, quick_cluster.peers[0]).check(content).task_id
    (seeder,) = quick_cluster.seeders
    before = seeder.memory("RssAnon")
    ask = b"".join(
        f"GET /v1/tasks/{task_id}/pieces/{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for n in range(128)
    )
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(seeder.address, 30)) for _ in range(8)]
        for sock in socks:
            sock.sendall(ask)
        for sock in socks:
            wait_until(partial(hung_up, sock), "the seeder let go of a client that does not read", 30)
    assert seeder.memory("RssAnon") < before + GROWTH
    late = quick_cluster.start_peer()
    quick_cluster.get(url, late).check(content)


def hung_up(sock: socket.socket) -> bool:
    """Whether the other side has closed the connection, without reading what came before that."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def test_half_closed_connection_gets_its_whole_answer(cluster: Cluster) -> None:
    cluster.start()

    def work(address: str) -> str:
        answer = throw(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 1)
        return "" if answer.startswith(b"HTTP/1.1 ") else f"{address}: {answer[:200]!r}"

    each_port(cluster, work)


def test_too_many_connections_do_no_harm(cluster: Cluster) -> None:
    cluster.start()
    (peer,) = cluster.peers
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connect(peer.address, 10))
        assert peer.answers("/healthz")
    wait_for_files(cluster.daemons)
