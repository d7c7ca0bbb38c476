from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.task.bitmap import MAX_PIECES, Bitmap

numbers = st.sets(st.integers(min_value=0, max_value=2000))


@given(numbers, numbers)
def test_behaves_like_a_set_of_numbers(a: set[int], b: set[int]) -> None:
    first, second = Bitmap(a), Bitmap(b)
    assert list(first) == sorted(a)
    assert len(first) == len(a)
    assert bool(first) == bool(a)
    assert set(first | second) == a | b
    assert set(first & second) == a & b
    assert set(first - second) == a - b
    assert all((n in first) == (n in a) for n in b)


@given(numbers)
def test_the_wire_form_comes_back(a: set[int]) -> None:
    assert Bitmap.from_bytes(Bitmap(a).to_bytes()) == Bitmap(a)


@given(numbers)
def test_spans_cover_exactly_the_set(a: set[int]) -> None:
    spans = list(Bitmap(a).spans())
    assert [n for first, count in spans for n in range(first, first + count)] == sorted(a)
    assert all(b_first > a_first + a_count for (a_first, a_count), (b_first, _) in pairwise(spans))


@given(numbers, st.integers(min_value=0, max_value=100))
def test_covers_means_all_of_the_first(a: set[int], count: int) -> None:
    assert Bitmap(a).covers(count) == (set(range(count)) <= a)


def test_a_copy_is_independent() -> None:
    first = Bitmap([1])
    second = first.copy()
    second.add(2)
    second.discard(1)
    assert list(first) == [1]
    assert list(second) == [2]


@pytest.mark.parametrize("number", [-1, MAX_PIECES])
def test_impossible_piece_numbers_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="not a piece number"):
        Bitmap([number])


def test_an_absurd_wire_form_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than any task needs"):
        Bitmap.from_bytes(b"\1" * (MAX_PIECES // 8 + 1))


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.integers(0, 300))
def test_a_stripe_is_every_so_many(stripe: tuple[int, int], stop: int) -> None:
    index, count = stripe
    assert list(Bitmap.stripe(index, count, stop)) == list(range(index, stop, count))


@given(st.integers(1, 70), st.integers(-1, 300), st.integers(0, 1 << 80))
def test_classes_are_numbers_by_their_rest(count: int, stop: int, which: int) -> None:
    expected = [number for number in range(stop) if which >> number % count & 1]
    assert list(Bitmap.classes(which, count, stop)) == expected


@given(numbers.filter(bool), st.randoms(use_true_random=False))
def test_a_random_member_is_a_member(a: set[int], rng: random.Random) -> None:
    assert Bitmap(a).random(rng) in a


def test_every_member_can_come_at_random_and_an_empty_one_has_none() -> None:
    assert {Bitmap([3, 5, 900]).random(random.Random(n)) for n in range(300)} == {3, 5, 900}
    assert (Bitmap([3, 900]).stop, Bitmap().stop) == (901, 0)
    with pytest.raises(IndexError):
        Bitmap().random(random.Random(1))
