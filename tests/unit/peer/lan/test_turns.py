"""Who may ask now."""

from __future__ import annotations

from math import inf

import pytest

from peer.lan.turns import AT_ONCE, BURST, LANE_AT_ONCE, RATE, Lane, Turns


def taken(turns: Turns, now: float, *, known: bool = True, new: bool = True) -> list[Lane]:
    lanes = []
    while (lane := turns.take(now, known=known, new=new)) is not None:
        lanes.append(lane)
    return lanes


def test_those_known_and_newcomers_take_turns() -> None:
    lanes = taken(Turns(), 0.0)
    assert lanes == ["known", "new"] * (AT_ONCE // 2)


@pytest.mark.parametrize("lane", ["known", "new"])
def test_one_kind_leaves_room_for_the_other(lane: Lane) -> None:
    turns = Turns()
    assert len(taken(turns, 0.0, known=lane == "known", new=lane == "new")) == LANE_AT_ONCE
    assert len(taken(turns, 0.0)) == AT_ONCE - LANE_AT_ONCE


def test_the_rate_is_bounded() -> None:
    turns, count = Turns(), 0
    for step in range(1000):
        for lane in taken(turns, step / 100):
            turns.done(lane)
            count += 1
    assert count == pytest.approx(BURST + 10 * RATE, abs=2)


def test_an_answer_makes_room() -> None:
    turns = Turns()
    lanes = taken(turns, 0.0)
    assert turns.earliest(0.0, known=0.0, new=0.0) == inf
    turns.done(lanes[0])
    assert turns.earliest(0.0, known=0.0, new=0.0) == 0.0
    assert taken(turns, 0.0) == ["known"]


def test_when_to_try_again() -> None:
    turns = Turns()
    for lane in taken(turns, 0.0):
        turns.done(lane)
    for lane in taken(turns, 0.0):
        turns.done(lane)
    assert turns.earliest(0.0, known=inf, new=0.0) == pytest.approx(1 / RATE)
    assert turns.earliest(0.0, known=5.0, new=inf) == 5.0
    assert turns.earliest(0.0, known=inf, new=inf) == inf


def test_a_turn_that_is_not_used_is_given_back() -> None:
    turns = Turns()
    assert turns.take(0.0, known=False, new=True) == "new"
    turns.undo("new")
    assert len(taken(turns, 0.0)) == AT_ONCE
