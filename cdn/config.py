"""Settings of source reading. Sizes are bytes, durations seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from cdn.policy import DENIED_NETWORKS
from shared.config import Seconds, Size


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How origins are read, and which."""

    schemes: Annotated[
        tuple[str, ...], Meta(description="URL schemes that may be read; file also needs file_roots.")
    ] = ("http", "https", "file")
    file_roots: Annotated[
        tuple[Path, ...], Meta(description="Folders below which file:// URLs may be read; none by default.")
    ] = ()
    denied_addresses: Annotated[
        tuple[str, ...],
        Meta(description="Networks that are never read from, as addresses or CIDR, whatever a name says."),
    ] = DENIED_NETWORKS
    proxy: Annotated[
        str, Meta(description="http:// proxy through which origins are read; it then resolves their names.")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="PEM file of certificates to trust besides those of the system.")
    ] = ""
    connections: Annotated[int, Meta(ge=1, le=64, description="Ranges of one content read at a time.")] = 4
    parallel_from: Annotated[
        Size, Meta(description="Shortest content that is read over several connections at a time.")
    ] = 16 * 1024 * 1024
    span: Annotated[
        Size, Meta(ge=1, description="Bytes asked of an origin in one range, rounded up to whole 16MiB.")
    ] = 32 * 1024 * 1024
    buffer_memory: Annotated[
        Size, Meta(description="Memory of one read for pieces between origin and store; at least two pieces.")
    ] = 64 * 1024 * 1024
    connect_timeout: Annotated[Seconds, Meta(description="Patience for a connection to an origin.")] = 10.0
    header_timeout: Annotated[Seconds, Meta(description="Patience for the head of an origin's answer.")] = (
        60.0
    )
    idle_timeout: Annotated[
        Seconds, Meta(description="Patience for the next byte of an origin's answer.")
    ] = 30.0
    retries: Annotated[
        int, Meta(ge=0, description="Times a cut answer is resumed without a byte gained in between.")
    ] = 5
    retry_delay: Annotated[
        Seconds,
        Meta(description="Wait before the first resumption; it doubles with each one that gains nothing."),
    ] = 0.2
    restarts: Annotated[
        int, Meta(ge=0, description="Times a read begins again because the content changed meanwhile.")
    ] = 3
    redirects: Annotated[int, Meta(ge=0, description="Redirections followed for one request.")] = 10
    decode_ratio: Annotated[
        int,
        Meta(
            ge=1,
            description="Most bytes that one byte of gzip or deflate may become, beyond the first 64MiB.",
        ),
    ] = 200
