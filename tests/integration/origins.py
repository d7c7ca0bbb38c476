"""A small HTTP origin in threads that counts what it serves and misbehaves on request.

Plain sockets and no HTTP library, so that every wrong answer can be written byte by byte::

    with Origin() as origin:
        url = origin.add("/file", content, gate=Gate(1 << 20))
        ...
        assert origin.count("/file").body == len(content)
"""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

from tests.integration.net import wait_until

KIB = 1024
MIB = 1024 * KIB
PIECE = 512 * KIB
"""Length of a piece of every content that is not longer than 128 MiB and whose length is known."""

_CHUNK = 64 * KIB
_PATIENCE = 120.0

Framing = Literal["length", "chunked", "close"]
Ranges = Literal["honour", "ignore", "shifted", "wrong total", "no header", "too long"]


def random_content(length: int, seed: int = 1) -> bytes:
    """Bytes that do not compress and repeat nothing, the same for the same seed."""
    return random.Random(seed).randbytes(length)


class Gate:
    """Lets bytes below ``offset`` of a content pass and holds all others back until it is moved or opened."""

    def __init__(self, offset: int = 0) -> None:
        self._offset: float = offset
        self._waiting = 0
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many responses are held back now."""
        with self._changed:
            return self._waiting

    def open(self) -> None:
        """Let everything pass from now on."""
        self.move(float("inf"))

    def move(self, offset: float) -> None:
        """Let bytes below ``offset`` pass."""
        with self._changed:
            self._offset = offset
            self._changed.notify_all()

    def wait_reached(self, timeout: float = 30.0) -> None:
        """Wait until some response is held back."""
        wait_until(lambda: self.waiting > 0, "the origin's gate was reached", timeout)

    def allowance(self, offset: int, wanted: int, given_up: Callable[[], bool]) -> int:
        """How many bytes from ``offset`` on may pass, at least 1; waits for it. 0: given up."""
        deadline = time.monotonic() + _PATIENCE
        with self._changed:
            if self._offset <= offset:
                self._waiting += 1
                try:
                    while self._offset <= offset:
                        if given_up() or time.monotonic() > deadline:
                            return 0
                        self._changed.wait(0.05)
                finally:
                    self._waiting -= 1
            return int(min(wanted, self._offset - offset))


@dataclass
class Resource:
    """One path of the origin, and how it behaves. May be changed at any time with ``Origin.change``.

    ``status`` other than 200: answered with ``body_of_error``. ``cut_after``: body bytes of each response
    after which the connection breaks, for the first ``cuts`` responses that are longer (-1: always).
    ``gate``: bytes held back by their offset in the content. ``rate``: bytes per second of each response.
    ``encoding`` "gzip": the body is sent compressed whether asked or not. ``answer_delay``: a gate that the
    head of the answer waits for (offset 0 is held back until it opens).
    """

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body_of_error: bytes = b"the origin says no\n"
    etag: str | None = '"v1"'
    last_modified: str | None = None
    framing: Framing = "length"
    ranges: Ranges = "honour"
    cut_after: int | None = None
    cuts: int = 0
    gate: Gate | None = None
    answer_gate: Gate | None = None
    rate: int = 0
    encoding: Literal["", "gzip"] = ""
    redirect: str = ""
    redirect_status: int = 302
    authorization: str = ""
    if_range: bool = True
    conditional: bool = True


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Count:
    """What was served of a path: requests, and bytes of their bodies (errors' bodies not counted)."""

    requests: int
    body: int
    asked: tuple[Asked, ...]

    @property
    def checks(self) -> int:
        """Requests that asked whether the content had changed."""
        return sum("if-none-match" in one.headers or "if-modified-since" in one.headers for one in self.asked)


_had: set[int] = set()


def _new_listener(host: str) -> socket.socket:
    """On a port that no origin had before: a cluster may still hold what was at a URL there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        listener = socket.create_server((host, 0), family=family, backlog=256)
        port = listener.getsockname()[1]
        if port not in _had:
            _had.add(port)
            return listener
        listener.close()


class Origin:
    """The origin's listener. ``host`` may be any address of 127.0.0.0/8, to play several hosts, or an IPv6 one."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listener = _new_listener(host)
        self._listener.settimeout(0.2)
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.url = f"http://{self.address}"
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._asked: list[Asked] = []
        self._body: dict[str, int] = {}
        self._cut: dict[str, int] = {}
        self._ended = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="origin", daemon=True)
        self._accepting.start()

    def __enter__(self) -> Origin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Break all connections and end all threads."""
        self._ended.set()
        self._accepting.join(10)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    # --- what a test says -------------------------------------------------------------------------

    def add(self, path: str, content: bytes = b"", **behaviour: object) -> str:
        """Serve ``content`` at ``path`` (as it stands in the request line); the URL."""
        with self._lock:
            self._resources[path] = Resource(content, **behaviour)  # type: ignore[arg-type]
        return self.url + path

    def change(self, path: str, **behaviour: object) -> None:
        """Change how ``path`` behaves (``content=`` and ``etag=`` among them), for responses from now on."""
        with self._lock:
            self._resources[path] = replace(self._resources[path], **behaviour)  # type: ignore[arg-type]

    def count(self, path: str) -> Count:
        """What was asked and served of ``path`` so far."""
        with self._lock:
            asked = tuple(one for one in self._asked if one.path == path)
            return Count(len(asked), self._body.get(path, 0), asked)

    @property
    def requests(self) -> int:
        """Requests of all paths."""
        with self._lock:
            return len(self._asked)

    # --- connections ------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            sock.settimeout(_PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="origin connection", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, _Broken):
                buffer = b""
                while True:
                    head, buffer = _read_head(sock, buffer)
                    if head is None or not self._answer(sock, head):
                        return
        finally:
            with self._lock:
                self._sockets.discard(sock)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _answer(self, sock: socket.socket, asked: Asked) -> bool:
        with self._lock:
            self._asked.append(asked)
            resource = self._resources.get(asked.path)
        if resource is None:
            return self._say(sock, 404, {}, b"no such file\n", asked)
        gate = resource.answer_gate
        if gate is not None and gate.allowance(0, 1, self._given_up(sock)) == 0:
            return False
        with self._lock:
            resource = self._resources[asked.path]
        if resource.authorization and asked.headers.get("authorization") != resource.authorization:
            return self._say(sock, 401, {"WWW-Authenticate": "Basic"}, b"who are you?\n", asked)
        if resource.redirect:
            return self._say(sock, resource.redirect_status, {"Location": resource.redirect}, b"", asked)
        if resource.status != 200:
            return self._say(sock, resource.status, resource.headers, resource.body_of_error, asked)
        return self._content(sock, asked, resource)

    def _say(
        self, sock: socket.socket, status: int, headers: Mapping[str, str], body: bytes, asked: Asked
    ) -> bool:
        head = _head(status, {**headers, "Content-Length": str(len(body))})
        sock.sendall(head if asked.method == "HEAD" else head + body)
        return True

    def _content(self, sock: socket.socket, asked: Asked, resource: Resource) -> bool:
        """Answer with the content or a part of it; whether the connection lives on."""
        headers = dict(resource.headers)
        body = resource.content
        if resource.encoding == "gzip":
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if resource.etag is not None:
            headers["ETag"] = resource.etag
        if resource.last_modified is not None:
            headers["Last-Modified"] = resource.last_modified
        if resource.ranges != "ignore" and resource.framing == "length":
            headers["Accept-Ranges"] = "bytes"
        if resource.conditional and _unchanged(asked.headers, resource):
            return self._say(sock, 304, headers, b"", asked)
        status, first, last = 200, 0, len(body) - 1
        wanted = _range(asked.headers.get("range", ""), len(body))
        validator = asked.headers.get("if-range")
        fresh = not validator or not resource.if_range or validator in (resource.etag, resource.last_modified)
        if wanted is not None and resource.ranges != "ignore" and fresh:
            if wanted[0] >= len(body):
                return self._say(sock, 416, {"Content-Range": f"bytes */{len(body)}"}, b"", asked)
            status, (first, last) = 206, wanted
            headers.update(_content_range(resource.ranges, first, last, len(body)))
            if resource.ranges == "too long":
                last = min(last + 1000, len(body) - 1)
        length = last - first + 1
        keep = True
        if resource.framing == "length":
            headers["Content-Length"] = str(length)
        elif resource.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Connection"], keep = "close", False
        sock.sendall(_head(status, headers))
        if asked.method == "HEAD":
            return True
        self._body_of(sock, asked.path, resource, memoryview(body)[first : last + 1], first)
        return keep

    def _body_of(
        self, sock: socket.socket, path: str, resource: Resource, body: memoryview, offset: int
    ) -> None:
        stop = self._cut_point(path, resource, len(body))
        sent = 0
        began = time.monotonic()
        while sent < stop:
            step = min(_CHUNK, stop - sent)
            if resource.rate:
                step = min(step, max(1, resource.rate // 20))
                ahead = sent / resource.rate - (time.monotonic() - began)
                if ahead > 0 and self._ended.wait(ahead):
                    raise _Broken
            if resource.gate is not None:
                step = resource.gate.allowance(offset + sent, step, self._given_up(sock))
                if step == 0:
                    raise _Broken
            data = body[sent : sent + step]
            sent += step
            with self._lock:  # counted before it is sent: who has received it finds it counted
                self._body[path] = self._body.get(path, 0) + step
            if resource.framing == "chunked":
                sock.sendall(b"%x\r\n%b\r\n" % (step, bytes(data)))
            else:
                sock.sendall(data)
        if stop < len(body):
            raise _Broken
        if resource.framing == "chunked":
            sock.sendall(b"0\r\n\r\n")

    def _cut_point(self, path: str, resource: Resource, length: int) -> int:
        if resource.cut_after is None or length <= resource.cut_after:
            return length
        with self._lock:
            done = self._cut.get(path, 0)
            if resource.cuts >= 0 and done >= resource.cuts:
                return length
            self._cut[path] = done + 1
        return resource.cut_after

    def _given_up(self, sock: socket.socket) -> Callable[[], bool]:
        """Whether the origin ends or the client has hung up (bytes that it sent stay unread)."""

        def given_up() -> bool:
            if self._ended.is_set():
                return True
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            try:
                return bool(poll.poll(0)) and sock.recv(1, socket.MSG_PEEK) == b""
            except OSError:
                return True

        return given_up


class _Broken(Exception):
    """The connection is to be broken here."""


def _read_head(sock: socket.socket, buffer: bytes) -> tuple[Asked | None, bytes]:
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        if not data or len(buffer) > 256 * KIB:
            return None, b""
        buffer += data
    head, _, rest = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    fields = (line.partition(":") for line in lines)
    return Asked(method, target, {name.strip().lower(): value.strip() for name, _, value in fields}), rest


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", "Date: Thu, 01 Jan 2026 00:00:00 GMT"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _unchanged(headers: Mapping[str, str], resource: Resource) -> bool:
    """Whether a conditional request is to be answered with 304."""
    if resource.etag is not None and "if-none-match" in headers:
        return headers["if-none-match"] == resource.etag
    return resource.last_modified is not None and headers.get("if-modified-since") == resource.last_modified


def _range(text: str, length: int) -> tuple[int, int] | None:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    if match is None:
        return None
    return int(match[1]), min(int(match[2]) if match[2] else length - 1, length - 1)


def _content_range(ranges: Ranges, first: int, last: int, total: int) -> dict[str, str]:
    if ranges == "no header":
        return {}
    if ranges == "shifted":
        return {"Content-Range": f"bytes {first + 1}-{last + 1}/{total}"}
    if ranges == "wrong total":
        return {"Content-Range": f"bytes {first}-{last}/{total + 7}"}
    return {"Content-Range": f"bytes {first}-{last}/{total}"}
