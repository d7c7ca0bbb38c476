"""What may go wrong with a request on the server's side; all are the client's doing.

::

    InvalidRequest (400)
    ├── RequestTooLarge   the body is longer than allowed (413)
    ├── RequestTimeout    the body made no progress in time (408)
    └── ClientGone        the client hung up; an answer would reach nobody
"""

from __future__ import annotations

from shared.errors import DragonetError, InvalidRequest


class RequestTooLarge(InvalidRequest):
    """The request body is longer than the limit of whoever reads it."""

    status = 413


class RequestTimeout(InvalidRequest):
    """The request body made no progress for ``ServerLimits.body_timeout`` seconds."""

    status = 408


class ClientGone(InvalidRequest):
    """The client hung up, reset the connection, or cut its request body short."""


def told_error(error: Exception) -> DragonetError | None:
    """The DragonetError to tell a client when a handler ended with ``error``; None when it was a bug.

    Handlers with nurseries raise exception groups: a group that holds nothing but our own errors is
    told by its first one.
    """
    if isinstance(error, DragonetError):
        return error
    if not isinstance(error, ExceptionGroup):
        return None
    told: DragonetError | None = None
    for inner in error.exceptions:
        found = told_error(inner)
        if found is None:
            return None
        told = told or found
    return told
