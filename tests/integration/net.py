"""Small network and waiting tools of the integration tests: free ports, deadlines, plain HTTP requests."""

from __future__ import annotations

import fcntl
import functools
import http.client
import json
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")
_POLL = 0.02
_WORKER = int("0" + os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")) % 4
_PORTS = range(20000 + 3000 * _WORKER, 23000 + 3000 * _WORKER)
"""Below the kernel's ephemeral range, so that no outgoing connection takes a port handed out here; every
worker of pytest-xdist has its own, and runs beside each other see from locks what is taken."""

_taken: set[int] = set()
_ports_lock = threading.Lock()
_chooser = random.Random(os.getpid())


class GaveUp(AssertionError):
    """A condition did not come true before its deadline."""


def wait_until(condition: Callable[[], _T], what: str, timeout: float = 30.0, poll: float = _POLL) -> _T:
    """Poll until ``condition()`` is true, give its value back; GaveUp naming ``what`` after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise GaveUp(f"gave up after {timeout:g} s waiting until {what}")
        time.sleep(poll)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, handed out to nobody else while this test process lives."""
    with _ports_lock:
        for _ in range(2000):
            port = _chooser.choice(_PORTS)
            if port in _taken or not _locked(port):
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    continue
            _taken.add(port)
            return port
    raise GaveUp("no free TCP port found")


def _locked(port: int) -> bool:
    """Take a port for this process: byte ``port`` of a file is locked until it ends. Whether it was free."""
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _locks() -> int:
    """The descriptor of the file of locks. It stays open: closing it would give all of them back."""
    path = f"{tempfile.gettempdir()}/dragonet-test-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


def request(
    address: str,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
) -> Answer:
    """One HTTP request to ``address`` ("host:port", or the path of a unix socket). Raises OSError."""
    connection = _Connection(address, timeout)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{address}{path}: {error!r}") from error
    finally:
        connection.close()


def get_json(address: str, path: str, timeout: float = 10.0) -> Any:
    """``GET path`` as JSON. Raises AssertionError when the status is not 200."""
    answer = request(address, path, headers={"Accept": "application/json"}, timeout=timeout)
    assert answer.status == 200, f"{address}{path}: {answer.status} {answer.text[:300]}"
    return answer.json()


def connect(address: str, timeout: float = 10.0) -> socket.socket:
    """A connected socket to ``address`` ("host:port" or the path of a unix socket)."""
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: str, timeout: float) -> None:
        super().__init__("localhost" if address.startswith("/") else address, timeout=timeout)
        self._address = address
        self._wait = timeout

    def connect(self) -> None:
        self.sock = connect(self._address, self._wait)
