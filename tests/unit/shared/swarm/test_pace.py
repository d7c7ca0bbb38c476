from __future__ import annotations

from shared.swarm.pace import FLOOR, MAX_DEPTH, MIN_DEPTH, Pace, backoff

MIB = 1024 * 1024


def test_an_unmeasured_parent_gets_time_in_proportion_to_the_piece() -> None:
    pace = Pace()
    assert pace.allowance(16 * MIB) > pace.allowance(MIB) > FLOOR


def test_a_fast_parent_gets_the_floor() -> None:
    pace = Pace()
    pace.delivered(MIB, 0.001, 0.001)
    assert pace.allowance(MIB) == FLOOR


def test_a_steadily_slow_parent_gets_the_time_it_needs() -> None:
    pace = Pace()
    for _ in range(5):
        pace.delivered(MIB, 10.0, 0.1)
    assert pace.allowance(MIB) > 40


def test_each_miss_doubles_the_allowance_and_a_piece_ends_that() -> None:
    pace = Pace()
    once = pace.allowance(MIB)
    pace.missed()
    assert pace.allowance(MIB) == 2 * once
    pace.delivered(MIB, 0.01, 0.01)
    assert pace.allowance(MIB) == FLOOR


def test_depth_follows_latency_over_transfer_time() -> None:
    pace = Pace()
    assert pace.depth(MIB) == MIN_DEPTH
    pace.delivered(MIB, 0.01, 0.03)
    assert MIN_DEPTH < pace.depth(MIB) <= MAX_DEPTH
    pace.delivered(MIB, 0.0, 9.0)
    assert pace.depth(MIB) == MAX_DEPTH


def test_backoff_doubles_up_to_a_bound() -> None:
    assert [backoff(n) for n in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert backoff(50) == 30.0
