"""The one way out: every HTTP request that dragonet makes, except the piece path, goes through here.

This package alone knows the HTTP library (``httpcore``); its exceptions become those of ``errors`` here and
nowhere else.

No cookies, no redirects, no decoding of bodies, no proxy or credentials from the environment: what is sent
is what the caller said. Certificates are verified against the system's trust.
"""

from __future__ import annotations

from shared.http.client.client import ClientResponse, HttpClient, wire_target
from shared.http.client.dialing import ConnectCheck
from shared.http.client.errors import (
    HttpConnectError,
    HttpConnectionLost,
    HttpError,
    HttpProtocolError,
    HttpTimeout,
)
from shared.http.client.feed import Feeds
from shared.http.client.pipeline import Pipeline
from shared.http.client.stream import DIRECT_THRESHOLD, ClientStream

__all__ = [
    "DIRECT_THRESHOLD",
    "ClientResponse",
    "ClientStream",
    "ConnectCheck",
    "Feeds",
    "HttpClient",
    "HttpConnectError",
    "HttpConnectionLost",
    "HttpError",
    "HttpProtocolError",
    "HttpTimeout",
    "Pipeline",
    "wire_target",
]
