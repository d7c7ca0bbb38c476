"""What the index keeps of a task, and how callers see it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shared.protocol import TaskMeta
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec

INLINE_LIMIT = 64 * 1024
"""Contents of a known length up to this many bytes lie in the index itself."""


class TaskRecord(msgspec.Struct):
    """One task in the index (MessagePack). ``inline`` tells where its content lies.

    ``validated`` (Unix seconds) is when the content was last known to be what its source has, ``verified``
    the digest ("sha256:HEX") that it was found to have here; ``superseded``: the source has other content now.
    ``stale``: when it was last time to ask the source, that could not be done; ``validated`` tells of then.
    """

    spec: TaskSpec
    meta: TaskMeta
    inline: bool
    created: float
    accessed: float
    complete: bool = False
    durable: bool = False
    pinned: bool = False
    held: bytes = b""
    size: int = 0
    validated: float = 0.0
    verified: str = ""
    superseded: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A stored task at one moment. ``size`` is the bytes held, ``durable``: survives a machine crash."""

    task_id: str
    spec: TaskSpec
    meta: TaskMeta
    held: Bitmap
    size: int
    complete: bool
    durable: bool
    pinned: bool
    created: float
    accessed: float
    validated: float = 0.0
    verified: str = ""
    superseded: bool = False
    stale: bool = False

    @property
    def vouched(self) -> bool:
        """Whether it was found to have the digest that it must have, if any."""
        return (self.spec.digest or self.meta.digest) in ("", self.verified)


encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(TaskRecord).decode
