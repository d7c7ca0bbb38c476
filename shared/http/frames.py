"""Length-prefixed frames on a byte stream: 4 bytes big-endian length, then so many bytes. Pure."""

from __future__ import annotations

from shared.errors import InvalidRequest

MAX_FRAME = 4 * 1024 * 1024
"""Longer than any message of ours; a longer announced length is an error, not an allocation."""


def frame(payload: bytes) -> bytes:
    """One frame. Raises InvalidRequest when the payload is longer than ``MAX_FRAME``."""
    if len(payload) > MAX_FRAME:
        raise InvalidRequest(f"a message of {len(payload)} bytes is longer than a frame may be ({MAX_FRAME})")
    return len(payload).to_bytes(4, "big") + payload


class FrameDecoder:
    """Cuts a byte stream into frames: feed chunks of any size, get whole payloads back."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """The payloads completed by ``data``. Raises InvalidRequest when a frame is announced too long."""
        self._buffer += data
        payloads: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            length = int.from_bytes(self._buffer[start : start + 4], "big")
            if length > MAX_FRAME:
                raise InvalidRequest(
                    f"a frame of {length} bytes was announced; at most {MAX_FRAME} are allowed"
                )
            if len(self._buffer) - start - 4 < length:
                break
            payloads.append(bytes(self._buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        del self._buffer[:start]
        return payloads

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame; not 0 at the end of a stream means that it was cut."""
        return len(self._buffer)
