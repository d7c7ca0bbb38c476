"""A TCP proxy on loopback that keeps every byte that goes through it, both ways."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from tests.integration.net import connect


class Recorder:
    """Listens at ``address``, hands everything to ``target`` (which may be set later), and keeps it."""

    def __init__(self, target: str = "") -> None:
        self.target = target
        self._recorded: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.settimeout(0.2)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._threads[0].join(10)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        for sock in sockets:
            sock.close()

    @property
    def streams(self) -> list[bytes]:
        """What went through so far: one item for each direction of each connection."""
        with self._lock:
            return [bytes(stream) for stream in self._recorded]

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                far = connect(self.target)
            except OSError:
                near.close()
                continue
            for one, other in ((near, far), (far, near)):
                one.settimeout(None)
                record = bytearray()
                with self._lock:
                    self._recorded.append(record)
                    self._sockets.append(one)
                thread = threading.Thread(target=self._copy, args=(one, other, record), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    record += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
