"""Who has which key: everybody agrees, and only what must move does."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.swarm.ring import owner

members = st.lists(st.text(max_size=20), min_size=1, max_size=8, unique=True)
keys = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)


@given(members, keys, st.randoms())
def test_all_who_see_the_same_members_name_the_same_one(members: list[str], key: str, rng: object) -> None:
    shuffled = sorted(members, key=lambda _: rng.random())  # type: ignore[attr-defined]
    assert owner(members, key) == owner(set(shuffled), key) == owner(tuple(shuffled), key)
    assert owner(members, key) in members


@given(members, keys, st.text(max_size=20))
def test_only_what_the_newcomer_has_moves(members: list[str], key: str, newcomer: str) -> None:
    assert owner({*members, newcomer}, key) in (owner(members, key), newcomer)


@given(members, keys)
def test_who_goes_moves_nothing_of_others(members: list[str], key: str) -> None:
    has = owner(members, key)
    for gone in members:
        left = [member for member in members if member != gone]
        if gone != has:
            assert owner(left, key) == has


def test_keys_are_spread() -> None:
    names = [f"host-{number}" for number in range(10)]
    count = Counter(owner(names, f"{number:064x}") for number in range(5000))
    assert all(350 < count[name] < 650 for name in names)


def test_nobody_has_a_key_where_nobody_is() -> None:
    with pytest.raises(LookupError):
        owner((), "00")
