"""Parents that lie: each is detected, dropped and reported; the download completes and is right.

The origin's gate keeps the honest seeder at one half, so that the child must turn to the evil parents
for the other half, every time.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from shared.protocol import TaskMeta
from shared.task.identity import TaskSpec, make_spec
from shared.task.pieces import piece_length_for
from tests.integration.cluster import Cluster, file_sha256, sha256
from tests.integration.evil_parent import EvilParent, Misdeed, digests_of
from tests.integration.net import request, wait_until
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.integration.raw import first_availability

CONTENT = random_content(16 * MIB, seed=5)
HALF = 8 * MIB

REASONS: dict[Misdeed, str] = {
    "flips": "corrupt",
    "truncates": "gone",
    "stalls": "stalled",
    "wrong length": "corrupt",
    "500": "gone",
    "drips": "stalled",
    "other version": "gone",
    "babbles": "gone",
}


def known_content(swarm: Cluster, origin: Origin, gate: Gate) -> tuple[str, TaskSpec, TaskMeta]:
    """The seeder reads the first half for a first peer; what it calls the content."""
    url = origin.add("/file.bin", CONTENT, gate=gate)
    swarm.start_get(url, swarm.peers[0])
    gate.wait_reached()
    swarm.wait_held(swarm.peers[0], url, HALF)
    spec, _ = make_spec(url)
    version = first_availability(swarm.seeders[0].address, spec.task_id).version
    return url, spec, TaskMeta(version, piece_length_for(len(CONTENT)), len(CONTENT), etag='"v1"')


@pytest.mark.parametrize("misdeed", list(REASONS))
def test_evil_parents_are_dropped_and_reported(swarm: Cluster, origin: Origin, misdeed: Misdeed) -> None:
    scheduler = swarm.scheduler
    assert scheduler is not None
    gate = Gate(HALF)
    url, spec, meta = known_content(swarm, origin, gate)
    before = found_out(swarm, REASONS[misdeed])
    with ExitStack() as stack:
        evil = [
            stack.enter_context(EvilParent(scheduler.address, spec, meta, CONTENT, misdeed)) for _ in range(2)
        ]
        running = swarm.start_get(url, swarm.peers[1])
        wait_until(lambda: any(one.asked for one in evil), f"a parent that {misdeed} was asked")
        for number, what in enumerate(("found out", "reported")):
            wait_until(
                lambda n=number: found_out(swarm, REASONS[misdeed])[n] > before[n],  # type: ignore[misc]
                f"a parent that {misdeed} was {what}",
                poll=0.1,
            )
        gate.open()
        running.wait().check(CONTENT)
        assert sum(one.asked for one in evil) < 40, "evil parents are asked again and again"
    if misdeed == "flips":
        assert found_out(swarm, REASONS[misdeed])[2] > before[2]
    served_right(swarm, spec)


def found_out(swarm: Cluster, reason: str) -> tuple[float, float, float]:
    """Pieces that failed for this reason at any peer, parents reported, and digests that did not match."""
    assert swarm.scheduler is not None
    peers = [peer.metrics() for peer in swarm.peers]
    return (
        sum(one.value("dragonet_pieces_failed_total", reason=reason) for one in peers),
        swarm.scheduler.metrics().value("dragonet_scheduler_reports_total", type="parent_failed"),
        sum(one.value("dragonet_verify_failures_total") for one in peers),
    )


def served_right(swarm: Cluster, spec: TaskSpec) -> None:
    """That nothing wrong was stored: every piece that the child serves is right."""
    child = swarm.peers[1]
    digests = digests_of(CONTENT, piece_length_for(len(CONTENT)))
    for number in digests:
        answer = request(child.address, f"/v1/tasks/{spec.task_id}/pieces/{number}")
        if answer.status == 200:
            assert digests_of(answer.body, len(answer.body))[0] == digests[number]
        else:
            assert answer.status == 503, "a complete peer serves every piece, or is busy"


def test_an_honest_stranger_is_believed_through_its_digests(swarm: Cluster, origin: Origin) -> None:
    assert swarm.scheduler is not None
    gate = Gate(HALF)
    url, spec, meta = known_content(swarm, origin, gate)
    with EvilParent(swarm.scheduler.address, spec, meta, CONTENT, "none") as stranger:
        result = swarm.get(url, swarm.peers[1]).check(CONTENT)
        assert stranger.asked >= 1
    assert result.sources["peer"] >= HALF
    gate.open()


def test_wrong_digests_with_matching_bytes_do_not_pass_a_content_digest(
    swarm: Cluster, origin: Origin
) -> None:
    assert swarm.scheduler is not None
    gate = Gate(HALF)
    url, spec, meta = known_content(swarm, origin, gate)
    forged = CONTENT[:HALF] + bytes(len(CONTENT) - HALF)
    with EvilParent(swarm.scheduler.address, spec, meta, forged, "none"):
        running = swarm.start_get(url, swarm.peers[1], "--digest", f"sha256:{sha256(CONTENT)}")
        gate.open()
        result = running.wait()
    if result.code == 0:
        assert file_sha256(result.output) == sha256(CONTENT)
    else:
        result.check_failed("sha256")
