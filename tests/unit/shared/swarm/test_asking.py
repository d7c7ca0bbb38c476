from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from shared.swarm.asking import Ages, Asking, Wish
from shared.swarm.config import SwarmConfig
from shared.swarm.picker import Holder
from shared.task.bitmap import Bitmap

ALL = Bitmap.full(8)
NOTHING = Bitmap()
FAR_PATIENCE = 10.0


@dataclass
class Worker:
    offer: Holder
    asked: Collection[int] = ()


def new_asking() -> Asking:
    return Asking(SwarmConfig(far_patience=FAR_PATIENCE), random.Random(1))


def wish(held: Bitmap = NOTHING, urgent: Bitmap = NOTHING, known: Bitmap = ALL) -> Wish:
    return Wish(known - held, urgent, known, held)


def far(*classes: int) -> Worker:
    return Worker(Holder(ALL, None, True, sum(1 << number for number in classes)))


def test_what_is_asked_for_is_not_asked_for_again_until_it_is_settled() -> None:
    asking, parent = new_asking(), Worker(Holder(Bitmap([1])))
    assert asking.pick(parent, [], wish(), 0.0, 1.0) == 1
    assert asking.pick(parent, [], wish(), 0.0, 1.0) is None
    asking.settled(1)
    assert not asking.requested
    assert asking.pick(parent, [], wish(), 0.0, 1.0) == 1


def test_a_second_parent_is_asked_in_the_endgame_only() -> None:
    asking, one, other = new_asking(), Worker(Holder(Bitmap([1])), [1]), Worker(Holder(Bitmap([1])))
    known = Bitmap([1])
    asking.pick(one, [other], wish(known=known), 0.0, 1.0)
    assert asking.pick(other, [one], wish(known=known), 0.9, 1.0) is None
    assert asking.pick(other, [one], wish(known=known), 1.1, 1.0) == 1
    assert asking.pick(Worker(Holder(known)), [one, other], wish(known=known), 9.0, 1.0) is None, "two are"


def test_pieces_of_others_wait_for_far_patience_without_progress() -> None:
    asking, parent, near = new_asking(), far(0), Worker(Holder(Bitmap()))
    assert asking.pick(parent, [near], wish(), 0.0, 1.0) == 0
    asking.settled(0)
    held = Bitmap([0])
    assert asking.pick(parent, [near], wish(held), 5.0, 1.0) is None
    near.offer = Holder(Bitmap([3]))
    assert asking.pick(parent, [near], wish(held), 14.0, 1.0) is None, "a host near by has got one"
    assert asking.pick(parent, [near], wish(held), 23.9, 1.0) is None
    assert asking.pick(parent, [near], wish(held), 24.1, 1.0) in ALL - Bitmap([0, 3])


def test_pieces_that_have_just_become_known_are_not_overdue() -> None:
    asking, parent = new_asking(), far()
    assert asking.pick(parent, [], wish(known=Bitmap([1])), 0.0, 1.0) is None
    assert asking.pick(parent, [], wish(known=Bitmap([1, 2])), 30.0, 1.0) == 1
    assert asking.pick(parent, [], wish(known=Bitmap([1, 2])), 31.0, 1.0) is None


def test_who_reads_in_order_gets_its_piece_however_well_the_others_come() -> None:
    asking, parent, held = new_asking(), far(), Bitmap()
    known = Bitmap.full(60)
    parent.offer = Holder(known, None, True, 0)
    for second in range(10):
        held.add(second + 1)
        assert asking.pick(parent, [], wish(held, Bitmap([0]), known), float(second), 1.0) is None
    held.add(20)
    assert asking.pick(parent, [], wish(held, Bitmap([0]), known), 10.0, 1.0) == 0


def test_what_somebody_near_by_is_slow_with_is_not_brought_over_the_border() -> None:
    known = Bitmap([1])
    asking, near, parent = new_asking(), Worker(Holder(known), [1]), far(1)
    assert asking.pick(near, [parent], wish(known=known), 0.0, 1.0) == 1
    for when in (5.0, 15.0, 30.0):
        assert asking.pick(parent, [near], wish(known=known), when, 1.0) is None


def test_what_is_slow_to_cross_is_asked_for_again_when_nothing_comes_at_all() -> None:
    known = Bitmap([1])
    asking, parent, second = new_asking(), far(1), far(1)
    assert asking.pick(parent, [second], wish(known=known), 0.0, 1.0) == 1
    parent.asked = [1]
    assert asking.pick(second, [parent], wish(known=known), 9.0, 1.0) is None
    assert asking.pick(second, [parent], wish(known=known), 10.1, 1.0) == 1


def test_a_near_parent_is_asked_at_once_for_what_is_slow_to_cross() -> None:
    known = Bitmap([1, 2])
    asking, parent, near = new_asking(), far(1), Worker(Holder(Bitmap([1])))
    assert asking.pick(parent, [], wish(known=known), 0.0, 1.0) == 1
    parent.asked = [1]
    assert asking.pick(near, [parent], wish(known=known), 2.0, 1.0) == 1, "2 is for others to bring"


def test_ages() -> None:
    ages = Ages(2.0)
    ages.learn(Bitmap([1]), 0.0)
    ages.learn(Bitmap([1, 2]), 1.0)
    assert list(ages.ripe(1.9)) == []
    assert list(ages.ripe(2.0)) == [1]
    assert list(ages.ripe(3.0)) == [1, 2]
    ages.forget()
    assert not ages.ripe(9.0)
