"""Settings of the store. Sizes are bytes, durations seconds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.config import Fraction, Seconds, Size


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be kept, and for how long."""

    quota: Annotated[Size, Meta(description="Bytes of content kept at most; 0 means no quota.")] = 0
    disk_share: Annotated[
        Fraction,
        Meta(
            gt=0,
            le=1,
            description="Share of the file system that may be in use, by whomever, before content "
            "is evicted.",
        ),
    ] = 0.95
    ttl: Annotated[
        Seconds, Meta(description="Seconds after its last use for which content is kept; 0 means for ever.")
    ] = 0.0
    max_map: Annotated[
        Size,
        Meta(ge=1 << 20, description="Largest content whose length the origin does not tell."),
    ] = 256 * 1024 * 1024 * 1024
    max_tasks: Annotated[
        int,
        Meta(
            ge=1, description="Number of contents kept at most; beyond it the least recently used one goes."
        ),
    ] = 100_000
