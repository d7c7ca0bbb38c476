"""Settings of the swarm engine. Sizes are bytes, rates bytes per second, durations seconds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.config import Rate, Seconds, Size


class SwarmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds and patience of transfers."""

    upload_slots: Annotated[int, Meta(ge=1, description="Pieces sent to other hosts at the same time.")] = 8
    upload_rate: Annotated[Rate, Meta(description="Bytes per second sent at most; 0 means no limit.")] = 0
    download_rate: Annotated[
        Rate, Meta(description="Bytes per second received at most; 0 means no limit.")
    ] = 0
    buffer_memory: Annotated[
        Size, Meta(ge=1 << 20, description="Bytes of memory for pieces that are being received.")
    ] = 64 * 1024 * 1024
    scheduler_patience: Annotated[
        Seconds,
        Meta(description="Seconds without a scheduler after which a download reads its origin itself."),
    ] = 8.0
    stripe_patience: Annotated[
        Seconds,
        Meta(description="Seconds for which a piece is left to the child that a seeder has it for."),
    ] = 0.5
    far_patience: Annotated[
        Seconds,
        Meta(
            description="Seconds without progress after which a piece of another zone is fetched there even though "
            "another host of this zone was to bring it."
        ),
    ] = 10.0
    linger: Annotated[
        Seconds, Meta(description="Seconds for which an idle task is kept open for further requests.")
    ] = 5.0
