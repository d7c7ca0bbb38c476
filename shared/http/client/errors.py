"""What may go wrong with a request of ours.

::

    HttpError
    ├── HttpConnectError    no connection: name not found, refused, unreachable, no answer, TLS not accepted
    ├── HttpTimeout         no head or no further byte in time; or the caller's whole limit ran out
    ├── HttpConnectionLost  the connection ended before the answer did
    └── HttpProtocolError   the answer is not HTTP/1.1 or longer than allowed, or the request is not valid
"""

from __future__ import annotations

from shared.errors import DragonetError


class HttpError(DragonetError):
    """A request that got no (whole) answer. The message names the URL without its secrets."""

    status = 502


class HttpConnectError(HttpError):
    """No connection to the server."""


class HttpTimeout(HttpError):
    """The server, or the whole exchange, took too long."""

    status = 504


class HttpConnectionLost(HttpError):
    """The connection ended before the answer did."""


class HttpProtocolError(HttpError):
    """The exchange does not follow HTTP/1.1, or goes over a limit."""
