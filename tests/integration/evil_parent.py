"""A fake host that speaks dragonet's protocols correctly and serves pieces wrongly, in plain threads.

It takes a lease, listens to its assignments, claims to hold the whole of a task with the right digests,
and answers piece requests with one :data:`Misdeed`::

    with EvilParent(scheduler.address, spec, meta, content, "flips") as evil:
        ...
        assert evil.asked >= 1
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from shared.http.frames import FrameDecoder, frame
from shared.protocol import (
    MSGPACK,
    VERSION_HEADER,
    Assignment,
    Availability,
    Beat,
    HostLease,
    LeaseGranted,
    PeerHolding,
    Report,
    Reports,
    ReportsTaken,
    Role,
    TaskMeta,
    decode_assignment,
    decode_lease_granted,
    decode_reports_taken,
    encode,
)
from shared.task.bitmap import Bitmap
from shared.task.digest import piece_digest
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout
from tests.integration.net import free_port, wait_until

Misdeed = Literal[
    "none", "flips", "truncates", "stalls", "wrong length", "500", "drips", "other version", "babbles"
]
"""What an evil parent does with a piece request:

* none – an honest parent
* flips – one byte of the body is another
* truncates – the whole length is announced, the connection closed after half
* stalls – half of the body, then silence
* wrong length – a body that is well-formed but too short
* 500 – an error for every request
* drips – one byte a second
* other version – right bytes under the name of another version
* babbles – no HTTP at all
"""


class EvilParent:
    """One fake host. Leaves the scheduler politely at the end."""

    def __init__(
        self,
        scheduler: str,
        spec: TaskSpec,
        meta: TaskMeta,
        content: bytes,
        misdeed: Misdeed,
        *,
        role: Role = "peer",
        digests: dict[int, bytes] | None = None,
    ) -> None:
        assert meta.length == len(content)
        self.scheduler, self.spec, self.meta, self.misdeed, self.role = scheduler, spec, meta, misdeed, role
        self.layout = PieceLayout(len(content), meta.piece_length)
        self.content = memoryview(content)
        self.host, self.instance = f"evil-{secrets.token_hex(4)}", secrets.token_hex(8)
        self.digests = digests if digests is not None else digests_of(content, meta.piece_length)
        self.assignments: list[Assignment] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._asked: list[int] = []
        self._watched = 0
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        handler = type("Handler", (_Handler,), {"evil": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
            threading.Thread(target=self._keep_lease, daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        self._stream: http.client.HTTPConnection | None = None

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> EvilParent:
        self._lease()
        for thread in self._threads:
            thread.start()
        self.report(self.claim())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._call("DELETE", f"/v1/hosts/{self.host}")
        if self._stream is not None and self._stream.sock is not None:
            with contextlib.suppress(OSError):
                self._stream.sock.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(10)

    # --- what it did ------------------------------------------------------------------------------

    @property
    def asked(self) -> int:
        """How many pieces were asked of it so far."""
        with self._lock:
            return len(self._asked)

    def wait_asked(self, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until ``count`` pieces were asked of it."""
        wait_until(lambda: self.asked >= count, f"the evil parent ({self.misdeed}) was asked", timeout)

    def note_asked(self, number: int) -> None:
        """A piece request came."""
        with self._lock:
            self._asked.append(number)

    # --- control protocol -------------------------------------------------------------------------

    def claim(self) -> PeerHolding:
        """That everything is here, with the right digests."""
        return PeerHolding(
            task=self.spec.task_id,
            spec=self.spec,
            meta=self.meta,
            held=Bitmap.full(self.layout.count).to_bytes(),
            digests=self.digests,
            complete=True,
        )

    def report(self, *items: Report) -> ReportsTaken:
        """Send reports now."""
        body = encode(Reports(instance=self.instance, items=list(items)))
        return decode_reports_taken(self._call("POST", f"/v1/hosts/{self.host}/reports", body))

    def _lease(self) -> LeaseGranted:
        lease = HostLease(
            host=self.host, instance=self.instance, role=self.role, address=self.address, upload_slots=64
        )
        return decode_lease_granted(self._call("PUT", f"/v1/hosts/{self.host}", encode(lease)))

    def _keep_lease(self) -> None:
        wait = 1.0
        while not self.ended.wait(wait):
            with contextlib.suppress(OSError, http.client.HTTPException):
                granted = self._lease()
                wait = max(0.2, granted.ttl / 3)
                if not granted.known:
                    self.report(self.claim())

    def _listen(self) -> None:
        self._stream = http.client.HTTPConnection(self.scheduler, timeout=60)
        with (
            contextlib.suppress(OSError, http.client.HTTPException, ValueError),
            contextlib.closing(self._stream),
        ):
            self._stream.request("GET", f"/v1/hosts/{self.host}/assignments", headers={"Accept": MSGPACK})
            response = self._stream.getresponse()
            decoder = FrameDecoder()
            while not self.ended.is_set():
                data = response.read1(65536)
                if not data:
                    return
                for payload in decoder.feed(data):
                    self.assignments.append(decode_assignment(payload))

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.scheduler, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": MSGPACK, "Accept": MSGPACK})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path} was answered with {answer.status}: {data[:300]!r}"
        return data


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Children that hang up are what is tested; nothing to say about them."""


class _Handler(BaseHTTPRequestHandler):
    evil: EvilParent
    protocol_version = "HTTP/1.1"
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to stderr."""

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts[:3] != ["v1", "tasks", self.evil.spec.task_id]:
            self.send_error(404)
        elif parts[3:] == ["availability"]:
            self._availability()
        elif len(parts) == 5 and parts[3] == "pieces" and parts[4].isdigit():
            self._piece(int(parts[4]))
        else:
            self.send_error(404)

    def _availability(self) -> None:
        evil = self.evil
        self.send_response(200)
        self.send_header("Content-Type", MSGPACK)
        self.send_header(VERSION_HEADER, evil.meta.version)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            held = Bitmap.full(evil.layout.count).to_bytes()
            self._chunk(frame(encode(Availability(version=evil.meta.version, held=held))))
            while not evil.ended.wait(0.5):
                self._chunk(frame(encode(Beat())))
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _piece(self, number: int) -> None:
        evil = self.evil
        evil.note_asked(number)
        if number >= evil.layout.count:
            self.send_error(404)
            return
        first = evil.layout.offset(number)
        body = evil.content[first : first + evil.layout.size(number)]
        misdeed = evil.misdeed
        if misdeed == "500":
            self._head(500, 4)
            self.wfile.write(b"evil")
            return
        if misdeed == "babbles":
            self.wfile.write(secrets.token_bytes(4096))
            self.close_connection = True
            return
        if misdeed == "flips":
            wrong = bytearray(body)
            wrong[len(wrong) // 2] ^= 0x01
            body = memoryview(wrong)
        if misdeed == "wrong length":
            body = body[: len(body) - 1]
        self._head(200, len(body), "evil" if misdeed == "other version" else evil.meta.version)
        with contextlib.suppress(OSError):
            if misdeed == "drips":
                self._drip(body)
            elif misdeed in ("stalls", "truncates"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if misdeed == "stalls":
                    evil.ended.wait(120)
                self.close_connection = True
            else:
                self.wfile.write(body)

    def _drip(self, body: memoryview) -> None:
        for at in range(len(body)):
            if at and self.evil.ended.wait(1):
                break
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
        self.close_connection = True

    def _head(self, status: int, length: int, version: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.send_header(VERSION_HEADER, version or self.evil.meta.version)
        self.end_headers()


def digests_of(content: bytes, piece_length: int) -> dict[int, bytes]:
    """The digest of every piece."""
    layout = PieceLayout(len(content), piece_length)
    view = memoryview(content)
    return {
        number: piece_digest(view[layout.offset(number) : layout.offset(number) + layout.size(number)])
        for number in range(layout.count)
    }
