from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import CLASSES
from shared.swarm.picker import Demand, Holder, pick, rarest, slow_pieces
from shared.task.bitmap import Bitmap

RNG = random.Random(1)
pieces = st.sets(st.integers(min_value=0, max_value=60)).map(Bitmap)
stripes = st.none() | st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))
holders = st.builds(Holder, pieces, stripes, st.booleans(), st.integers(0, (1 << CLASSES) - 1))


@given(holders, st.lists(holders, max_size=4), pieces, pieces, pieces, pieces)
def test_only_pieces_that_are_held_and_asked_for_are_picked(
    parent: Holder, others: list[Holder], wanted: Bitmap, patient: Bitmap, slow: Bitmap, urgent: Bitmap
) -> None:
    number = pick(parent, others, Demand(wanted, patient, slow, urgent), RNG)
    if number is not None:
        assert number in parent.held
        assert number in wanted or number in slow


@given(st.lists(holders, max_size=4), pieces, pieces)
def test_a_parent_without_stripe_is_never_left_idle_while_it_holds_something_wanted(
    others: list[Holder], held: Bitmap, wanted: Bitmap
) -> None:
    assert (pick(Holder(held), others, Demand(wanted), RNG) is not None) == bool(held & wanted)


def test_rarest_first() -> None:
    parent = Holder(Bitmap([1, 2, 3]))
    others = [Holder(Bitmap([1, 2])), Holder(Bitmap([1]))]
    assert pick(parent, others, Demand(Bitmap([1, 2, 3])), RNG) == 3
    assert pick(parent, others, Demand(Bitmap([1, 2])), RNG) == 2


def test_own_stripe_first_and_the_stripe_of_others_only_after_patience() -> None:
    parent = Holder(Bitmap.full(8), stripe=(1, 4))
    assert pick(parent, [], Demand(Bitmap.full(8)), RNG) in (1, 5)
    rest = Bitmap([0, 2])
    assert pick(parent, [], Demand(rest), RNG) is None
    assert pick(parent, [], Demand(rest, patient=rest), RNG) in (0, 2)


def test_what_a_peer_holds_is_not_taken_from_the_seeder_out_of_turn() -> None:
    seeder = Holder(Bitmap.full(4), stripe=(1, 2))
    peer = Holder(Bitmap([0]))
    rest = Bitmap([0, 2])
    assert pick(seeder, [peer], Demand(rest, patient=rest), RNG) == 2
    assert pick(seeder, [peer], Demand(Bitmap([0]), patient=Bitmap([0])), RNG) is None


def test_children_of_one_seeder_start_with_disjoint_pieces() -> None:
    wanted = Bitmap.full(40)
    first = [
        {n for n in wanted if pick(Holder(Bitmap([n]), (i, 4)), [], Demand(wanted), RNG) == n}
        for i in range(4)
    ]
    assert set.union(*first) == set(range(40))
    assert sum(map(len, first)) == 40


def test_urgent_pieces_go_before_rare_ones_and_in_order() -> None:
    parent = Holder(Bitmap.full(9))
    demand = Demand(Bitmap.full(9), urgent=Bitmap([4, 5]))
    assert pick(parent, [Holder(Bitmap([4, 5]))], demand, RNG) == 4


def test_urgent_pieces_of_another_stripe_are_left_to_its_child() -> None:
    seeder = Holder(Bitmap.full(8), stripe=(0, 2))
    urgent = Bitmap([3])
    assert pick(seeder, [], Demand(Bitmap.full(8), urgent=urgent), RNG) in range(0, 8, 2)
    assert pick(seeder, [], Demand(Bitmap.full(8), urgent=Bitmap([3, 4])), RNG) == 4
    patient = Demand(Bitmap.full(8), patient=Bitmap.full(8), urgent=urgent)
    assert pick(seeder, [], patient, RNG) == 3, "that child had its time"
    assert pick(seeder, [Holder(Bitmap([3]))], patient, RNG) != 3, "it can be had from a peer"
    assert pick(Holder(Bitmap([3, 5])), [seeder], patient, RNG) == 3


def test_first_copies_leave_the_seeder_in_order() -> None:
    seeder, held = Holder(Bitmap.full(12), stripe=(1, 3)), Bitmap()
    for number in (1, 4, 7, 10):
        assert pick(seeder, [], Demand(Bitmap.full(12) - held), RNG) == number
        held.add(number)
    others = [Holder(Bitmap([1, 4]))]
    assert pick(seeder, others, Demand(Bitmap.full(12)), RNG) == 7, "the first that nobody has"


def test_readers_in_order_do_not_have_the_seeder_send_the_same() -> None:
    """Eight hosts wait for piece 0 and then 1: only those whose stripe it is in ask the seeder for it."""
    for index in range(8):
        seeder = Holder(Bitmap.full(80), stripe=(index, 8))
        demand = Demand(Bitmap.full(80), urgent=Bitmap([0, 1]))
        picked = pick(seeder, [], demand, RNG)
        assert picked is not None
        assert picked % 8 == index


def test_endgame_only_when_nothing_else_is_left() -> None:
    parent = Holder(Bitmap.full(4))
    assert pick(parent, [], Demand(Bitmap([3]), slow=Bitmap([0])), RNG) == 3
    assert pick(parent, [], Demand(Bitmap(), slow=Bitmap([0, 1])), RNG) == 0


def far(held: Bitmap, *classes: int) -> Holder:
    return Holder(held, far=True, carries=sum(1 << number for number in classes))


@given(pieces, st.integers(0, (1 << CLASSES) - 1), st.lists(holders, max_size=4), pieces, pieces)
def test_over_the_border_comes_only_ones_own_and_what_nobody_near_by_holds(
    held: Bitmap, carries: int, others: list[Holder], wanted: Bitmap, urgent: Bitmap
) -> None:
    number = pick(Holder(held, None, True, carries), others, Demand(wanted, urgent=urgent), RNG)
    own = {n for n in held & wanted if carries >> n % CLASSES & 1}
    own -= {n for other in others if not other.far for n in other.held}
    assert number in own or (number is None and not own)


def test_what_one_carries_crosses_in_order_and_what_is_urgent_first() -> None:
    parent, all_ = far(Bitmap.full(130), 1, 3, 64), Bitmap.full(130)
    assert pick(parent, [], Demand(all_), RNG) == 1
    assert pick(parent, [], Demand(all_ - Bitmap([1])), RNG) == 3
    assert pick(parent, [], Demand(all_ - Bitmap([1, 3])), RNG) == 65
    assert pick(parent, [], Demand(all_, urgent=Bitmap([2, 67])), RNG) == 67


def test_pieces_for_others_to_bring_over_are_taken_when_they_are_overdue() -> None:
    parent = far(Bitmap.full(8), 0)
    assert pick(parent, [], Demand(Bitmap([1, 2])), RNG) is None
    assert pick(parent, [], Demand(Bitmap([1, 2]), overdue=Bitmap([2])), RNG) == 2
    assert pick(parent, [], Demand(Bitmap.full(8), overdue=Bitmap.full(8)), RNG) == 0
    urgent = Demand(Bitmap.full(8), urgent=Bitmap([5]), overdue=Bitmap.full(8))
    assert pick(parent, [], urgent, RNG) == 5, "a reader waits"
    near_by = Holder(Bitmap([2]))
    assert pick(parent, [near_by], Demand(Bitmap([2]), overdue=Bitmap([2])), RNG) is None


def test_parents_in_other_zones_do_not_make_a_piece_common() -> None:
    parent, elsewhere = Holder(Bitmap([0, 1])), far(Bitmap([0]))
    demand = Demand(Bitmap([0, 1]))
    assert pick(parent, [elsewhere, elsewhere, Holder(Bitmap([1]))], demand, RNG) == 0
    seeder = Holder(Bitmap([0, 1]), (0, 2))
    assert pick(seeder, [far(Bitmap([1]), 1)], Demand(Bitmap([1]), patient=Bitmap([1])), RNG) == 1


def test_slow_is_what_was_asked_long_ago() -> None:
    assert list(slow_pieces({1: 0.0, 2: 9.5, 3: 4.0}, now=10.0, patience=1.0)) == [1, 3]


@given(pieces.filter(bool), st.lists(pieces, max_size=6))
def test_rarest_is_what_the_fewest_hold(candidates: Bitmap, held: list[Bitmap]) -> None:
    number = rarest(candidates, [Holder(bitmap) for bitmap in held], RNG)
    counts = {n: sum(n in bitmap for bitmap in held) for n in candidates}
    assert counts[number] == min(counts.values())
