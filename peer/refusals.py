"""What the daemon says when it does not do what it was asked, as the error that it is."""

from __future__ import annotations

import msgspec

from peer.orders import DownloadFailed
from shared.errors import DragonetError, SourceError, TaskNotFound


class _Words(msgspec.Struct):
    message: str
    status: int


class _Refusal(msgspec.Struct):
    error: _Words


def refused(status: int, body: bytes) -> DragonetError:
    """The error that an answer with this status and body stands for."""
    try:
        message = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        message = f"the daemon answered {status}"
    return _error(message, status)


def as_error(event: DownloadFailed) -> DragonetError:
    """The error that ended a download."""
    if event.origin_status is not None:
        return SourceError(event.message, origin_status=event.origin_status)
    return _error(event.message, event.status)


def _error(message: str, status: int) -> DragonetError:
    error = TaskNotFound(message) if status == 404 else DragonetError(message)
    error.status = status
    return error
