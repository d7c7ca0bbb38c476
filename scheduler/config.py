"""Settings of the scheduler. Durations are seconds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from shared.config import Address, Seconds
from shared.config.fields import Secret


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long the scheduler believes hosts, how it protects origins, and what it remembers at most."""

    listen: Annotated[
        Address, Meta(description="HOST:PORT on which the scheduler answers hosts and people.")
    ] = "127.0.0.1:8002"
    lease: Annotated[
        Seconds, Meta(gt=0, description="How long a host counts as present after its last renewal.")
    ] = 10.0
    stream_grace: Annotated[
        Seconds, Meta(description="How long a host may be without its assignment stream before it is lost.")
    ] = 2.0
    beat: Annotated[
        Seconds, Meta(gt=0, description="Silence on an assignment stream after which a sign of life is sent.")
    ] = 5.0
    settle: Annotated[
        Seconds,
        Meta(
            description="How long hosts may report what they hold before an origin is read: after a restart, and of "
            "what they were doing before this scheduler heard of it."
        ),
    ] = 3.0
    origin_readers: Annotated[
        int, Meta(ge=1, description="Hosts that may read the same content at its origin at the same time.")
    ] = 1
    grant_timeout: Annotated[
        Seconds,
        Meta(gt=0, description="How long an origin read may make no progress before another host gets it."),
    ] = 15.0
    check_timeout: Annotated[
        Seconds,
        Meta(
            gt=0, description="How long one host may take to ask an origin whether its content has changed."
        ),
    ] = 10.0
    reader_patience: Annotated[
        Seconds, Meta(description="How long a download waits for a host that may read its origin to appear.")
    ] = 3.0
    failure_ttl: Annotated[
        Seconds, Meta(description="How long a failed origin read is remembered and not tried again.")
    ] = 5.0
    failure_ttl_max: Annotated[
        Seconds, Meta(description="The longest that an origin's Retry-After keeps its failure remembered.")
    ] = 60.0
    parents: Annotated[
        int, Meta(ge=1, le=64, description="Parents that a downloading host gets for one task.")
    ] = 6
    reassign: Annotated[
        Seconds, Meta(description="The shortest time between two parent lists for the same host and task.")
    ] = 0.25
    corrupt_ban: Annotated[
        Seconds, Meta(description="How long a parent that gave wrong bytes is not assigned again.")
    ] = 60.0
    idle_task: Annotated[
        Seconds, Meta(description="How long a task that nobody holds or wants is remembered.")
    ] = 60.0
    idle_read: Annotated[
        Seconds, Meta(description="How long an origin read goes on when nobody waits for it any more.")
    ] = 30.0
    max_hosts: Annotated[int, Meta(ge=1, description="Hosts that may be present at once.")] = 20_000
    max_tasks: Annotated[
        int, Meta(ge=1, description="Tasks remembered; beyond it, those idle for longest are forgotten.")
    ] = 200_000
    preheat_token: Annotated[
        Secret,
        Meta(
            description="The token that preheats must show. Empty: `dragonet preheat` needs none, and the API "
            "for Harbor (/oapi/v1/jobs, /preheats) is closed."
        ),
    ] = ""
    preheat_timeout: Annotated[Seconds, Meta(gt=0, description="How long a preheat may take, at most.")] = (
        3600.0
    )
    preheat_jobs: Annotated[
        int, Meta(ge=1, description="Preheats that are carried out at the same time; the others wait.")
    ] = 8
    preheat_history: Annotated[int, Meta(ge=0, description="Preheats that are over and still shown.")] = 200
    stream_queue: Annotated[
        int, Meta(ge=16, description="Decisions waiting for one host before its stream is closed.")
    ] = 4096


RING_LEASE = 600.0
RING_BEAT = 1.0


def ring_config(config: SchedulerConfig) -> SchedulerConfig:
    """The settings of a scheduler that a host embeds, where the hosts of a LAN are each other's schedulers.

    Every host has a lease at every other one, so leases are long; who is there is told by the streams, which give
    a sign of life more often.
    """
    return msgspec.structs.replace(config, lease=RING_LEASE, beat=RING_BEAT)
