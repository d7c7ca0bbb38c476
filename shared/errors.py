"""Errors that cross package borders, each with what a caller needs to act on it.

::

    DragonetError
    ├── ConfigError            a setting is wrong: which, where, what to write instead
    ├── InvalidRequest         a caller's input is wrong (400)
    ├── TaskNotFound           no such content here (404)
    ├── SourceError            the origin could not be read: status, words, whose fault
    ├── DigestMismatch         content is not what its digest promises
    ├── DeadlineExceeded       the caller's own time limit ran out
    ├── Unavailable            a needed service does not answer (503)
    ├── StoreError
    │   ├── StoreFull          quota, disk or map full, eviction did not help
    │   ├── StoreLocked        another process owns the data folder
    │   └── StoreDamaged       the data folder cannot be read
    └── TransferError          one piece from one parent did not arrive
        ├── PieceCorrupt       the bytes do not have the digest read at the origin
        ├── PieceMissing       the parent does not hold it (404), or holds another version (409)
        ├── ParentBusy         all upload slots taken (503): ask again after ``retry_after``
        ├── ParentStalled      no progress within the adaptive deadline
        └── ParentGone         connection refused, reset, or an answer that is not our protocol

``str(error)`` is one sentence for a person, saying what happened and what to do. ``status`` is what
an HTTP API answers.
"""

from __future__ import annotations

from typing import Literal

Fault = Literal["origin", "reader", "request"]
"""Who is to blame for a failed source read: the origin itself, the host that read it, or the request."""


class DragonetError(Exception):
    """Base of every error that dragonet raises on purpose."""

    status: int = 500
    retry_after: float | None = None
    """Seconds after which asking again makes sense, where known."""


class ConfigError(DragonetError):
    """A setting is wrong. The message names the setting, where it came from, and what is allowed.

    ``origin`` is the file, the variable or the flag that the value came from, where it is known.
    """

    def __init__(self, message: str, *, origin: str = "") -> None:
        super().__init__(message)
        self.origin = origin


class InvalidRequest(DragonetError):
    """A caller's input is wrong."""

    status = 400


class TaskNotFound(DragonetError):
    """No such content here."""

    status = 404


class SourceError(DragonetError):
    """The origin could not be read.

    ``origin_status`` is the origin's HTTP status where there was one; ``fault`` tells whether another
    reader could do better (``reader``) or would only hear the same (``origin``, ``request``). ``offline``: the machine
    that read has no network now (see ``shared.offline``, which finds it out where the cause is told, too).
    """

    status = 502

    def __init__(
        self,
        message: str,
        *,
        origin_status: int | None = None,
        retry_after: float | None = None,
        fault: Fault = "origin",
        offline: bool = False,
    ) -> None:
        super().__init__(message)
        self.offline = offline
        self.origin_status = origin_status
        self.retry_after = retry_after
        self.fault: Fault = fault


class DigestMismatch(DragonetError):
    """Content does not have the digest that the caller asked for."""

    status = 502


class DeadlineExceeded(DragonetError):
    """The caller's own time limit ran out."""

    status = 504


class Unavailable(DragonetError):
    """A needed service does not answer now."""

    status = 503


class StoreError(DragonetError):
    """The store could not do what was asked; earlier content is intact."""

    status = 507


class StoreFull(StoreError):
    """Quota, disk or map is full and evicting unpinned content did not make room."""


class StoreLocked(StoreError):
    """Another process owns the data folder."""


class StoreDamaged(StoreError):
    """The data folder cannot be read."""


class TransferError(DragonetError):
    """One piece from one parent did not arrive; ``reason`` is a short label for metrics and reports."""

    status = 502
    reason: str = "failed"


class PieceCorrupt(TransferError):
    """The received bytes do not have the digest that was read at the origin."""

    reason = "corrupt"


class PieceMissing(TransferError):
    """The parent does not hold the piece, or holds another version of the task."""

    reason = "missing"


class ParentBusy(TransferError):
    """All of the parent's upload slots are taken."""

    status = 503
    reason = "busy"

    def __init__(self, message: str, *, retry_after: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ParentStalled(TransferError):
    """No progress within the adaptive deadline."""

    reason = "stalled"


class ParentGone(TransferError):
    """The connection failed, or the answer is not our protocol."""

    reason = "gone"
