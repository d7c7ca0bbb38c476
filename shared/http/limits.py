"""The limits of an HTTP server: every wait ends, every buffer is bounded."""

from __future__ import annotations

from typing import Annotated

import msgspec

from shared.config import Seconds, Size


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes in bytes, times in seconds."""

    max_header_bytes: Annotated[
        Size, msgspec.Meta(description="Longest request line and headers together (431 beyond it).")
    ] = 64 * 1024
    max_target_bytes: Annotated[Size, msgspec.Meta(description="Longest request target (414 beyond it).")] = (
        56 * 1024
    )
    max_headers: Annotated[int, msgspec.Meta(description="Most header fields of a request.")] = 256
    max_body_bytes: Annotated[
        Size,
        msgspec.Meta(description="Longest request body that is read at once, unless a route allows more."),
    ] = 1024 * 1024
    max_connections: Annotated[
        int,
        msgspec.Meta(description="Most open connections; beyond it an idle one is closed, or 503 answered."),
    ] = 4096
    header_timeout: Annotated[
        Seconds, msgspec.Meta(description="From a request's first byte to the end of its headers.")
    ] = 10.0
    idle_timeout: Annotated[
        Seconds, msgspec.Meta(description="How long a connection may wait for a request.")
    ] = 75.0
    write_timeout: Annotated[
        Seconds, msgspec.Meta(description="How long a client may take nothing of its response.")
    ] = 30.0
    body_timeout: Annotated[
        Seconds, msgspec.Meta(description="How long a client may send nothing of its request body.")
    ] = 30.0
    linger: Annotated[
        Seconds, msgspec.Meta(description="How long unread input is discarded before a connection is closed.")
    ] = 2.0
