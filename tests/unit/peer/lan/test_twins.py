"""Which of two with one id takes another."""

from __future__ import annotations

from itertools import pairwise

from peer.lan.twins import FIRST_PAUSE, LAST_PAUSE, MAX_MET, PATIENCE, Twins

ME = (100.0, "me")
OLDER, YOUNGER = (50.0, "older"), (150.0, "younger")


def test_a_newcomer_gives_way_to_who_was_there() -> None:
    assert Twins().gives_way(ME, OLDER, 0, established=False)


def test_the_later_one_of_two_newcomers_gives_way() -> None:
    assert not Twins().gives_way(ME, YOUNGER, 0, established=False)
    assert Twins().gives_way(YOUNGER, ME, 0, established=False)


def test_a_newcomer_gives_way_at_last_to_one_that_does_not() -> None:
    twins = Twins()
    assert not twins.gives_way(ME, YOUNGER, 0, established=False)
    assert not twins.gives_way(ME, YOUNGER, PATIENCE - 0.1, established=True)
    assert twins.gives_way(ME, YOUNGER, PATIENCE, established=True)


def test_who_is_established_gives_way_to_nobody() -> None:
    twins = Twins()
    for now in range(0, 10_000, 10):
        assert not twins.gives_way(ME, OLDER, now, established=True)
        assert not twins.gives_way(ME, OLDER, now, established=False)


def test_nobody_takes_another_id_often() -> None:
    twins = Twins()
    taken = [
        now
        for now in range(10_000)
        if twins.gives_way(ME, (float(-now), f"liar{now}"), now, established=False)
    ]
    assert taken[0] == 0
    assert all(
        later - one >= min(LAST_PAUSE, FIRST_PAUSE * 2**number)
        for number, (one, later) in enumerate(pairwise(taken))
    )
    assert len(taken) < 9


def test_what_is_remembered_is_bounded() -> None:
    twins = Twins()
    for number in range(1000):
        twins.gives_way(ME, (150.0, f"liar{number}"), 0, established=True)
    assert len(twins._met) == MAX_MET
