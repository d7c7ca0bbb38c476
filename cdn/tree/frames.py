"""The stream that a tree is: its files one after the other, each announced by a frame. Pure.

A frame is a 4-byte big-endian length and so many bytes of MessagePack, as everywhere in dragonet
(``shared.http.frames``); the contents of small files follow their frame as they are::

    Begun  (File [content] | Refused)*  Ended

Names are what follows the folder's URL, percent-encoded; ``paths.relative_path`` makes them paths.
"""

from __future__ import annotations

import msgspec

from shared.errors import InvalidRequest

MAX_HEAD = 64 * 1024
"""Longest frame; a longer announced length is an error, not an allocation."""

SMALL_FILE = 1024 * 1024
"""Longest file whose content is in the stream; longer ones are tasks of their own."""


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The listing is done: ``files`` will follow, with ``size`` bytes where that is known of all, else -1."""

    files: int
    size: int = -1


class File(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A file. ``length`` bytes of content follow; -1: none, it is to be read by its URL.

    ``size`` is what its source told beforehand (-1: nothing), ``hint`` what its size may be, ``version`` tells
    one version of the file from another, "" where nothing does.
    """

    name: str
    length: int = -1
    size: int = -1
    version: str = ""
    hint: int = -1


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """Something that cannot be had, and why. ``again``: it is a file that may be asked for once more."""

    name: str
    words: str
    again: bool = False


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """Everything was told: a stream without this is cut."""

    files: int


Head = Begun | File | Refused | Ended

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def head_frame(head: Head) -> bytes:
    """One frame. The content of a File follows it."""
    payload = _encode(head)
    return len(payload).to_bytes(4, "big") + payload


class TreeDecoder:
    """Cuts the stream: feed it chunks of any size, and it calls ``head`` and ``content``.

    After a File with a length, ``content`` gets its bytes in order, as slices of what was fed (not kept
    beyond the call); then comes the next head. Raises InvalidRequest when the stream is not one.
    """

    def __init__(self, taker: TreeTaker) -> None:
        self._taker = taker
        self._pending = b""
        self._left = 0
        self._begun = False
        self.ended = False

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the stream."""
        position, size = 0, len(data)
        while position < size:
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                self._taker.content(part)
                continue
            wanted = self._wanted()
            if self._pending:
                step = bytes(data[position : position + wanted - len(self._pending)])
                self._pending += step
                position += len(step)
                if len(self._pending) == self._wanted() and len(self._pending) > 4:
                    payload, self._pending = self._pending[4:], b""
                    self._head(payload)
            elif size - position < 4:
                self._pending, position = bytes(data[position:]), size
            else:
                length = _length(data[position : position + 4])
                if size - position - 4 < length:
                    self._pending, position = bytes(data[position:]), size
                else:
                    self._head(data[position + 4 : position + 4 + length])
                    position += 4 + length

    def _wanted(self) -> int:
        return 4 if len(self._pending) < 4 else 4 + _length(self._pending[:4])

    def _head(self, payload: bytes | memoryview) -> None:
        try:
            head = _decode(payload)
        except msgspec.MsgspecError as error:
            raise _broken(str(error)) from None
        if self.ended or isinstance(head, Begun) == self._begun:
            raise _broken("its frames are out of order")
        self._begun = True
        if isinstance(head, File):
            if head.length > SMALL_FILE:
                raise _broken("a file in it is too long")
            self._left = max(head.length, 0)
        self.ended = isinstance(head, Ended)
        self._taker.head(head)


class TreeTaker:
    """What a decoder calls."""

    def head(self, head: Head) -> None:
        """The next frame."""

    def content(self, data: memoryview) -> None:
        """The next bytes of the File that was announced last."""


def _length(data: bytes | memoryview) -> int:
    length = int.from_bytes(data, "big")
    if not 0 < length <= MAX_HEAD:
        raise _broken(f"a frame of {length} bytes is announced")
    return length


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"the stream of the folder cannot be read ({why}): try again, or remove the task")
