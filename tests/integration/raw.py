"""A child as plain sockets: fetches single pieces and watches availability, at its own pace."""

from __future__ import annotations

import http.client
import socket
from types import TracebackType

from shared.http.frames import FrameDecoder
from shared.protocol import VERSION_HEADER, Availability, decode_availability
from tests.integration.net import connect


def first_availability(address: str, task_id: str, timeout: float = 10.0) -> Availability:
    """What the host at ``address`` says that it holds of a task. Raises AssertionError when it says no."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", f"/v1/tasks/{task_id}/availability")
        answer = connection.getresponse()
        assert answer.status == 200, f"availability: {answer.status} {answer.read()[:200]!r}"
        decoder = FrameDecoder()
        while True:
            data = answer.read1(65536)
            assert data, "the availability stream ended without a bitmap"
            for payload in decoder.feed(data):
                event = decode_availability(payload)
                if isinstance(event, Availability):
                    return event
    finally:
        connection.close()


class SlowChild:
    """A piece request whose answer is read only when the test says so."""

    def __init__(self, address: str, task_id: str, number: int, version: str = "") -> None:
        self.sock: socket.socket = connect(address, 60)
        headers = f"{VERSION_HEADER}: {version}\r\n" if version else ""
        self.sock.sendall(
            f"GET /v1/tasks/{task_id}/pieces/{number} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n".encode()
        )
        self.answer = http.client.HTTPResponse(self.sock)
        self.answer.begin()

    def __enter__(self) -> SlowChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answer.close()
        self.sock.close()

    @property
    def status(self) -> int:
        """The answer's status."""
        return self.answer.status

    def read(self, count: int | None = None) -> bytes:
        """That many bytes of the body, or the rest."""
        return self.answer.read() if count is None else self.answer.read(count)
