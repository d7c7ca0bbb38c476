"""Which pieces are urgent, for whom, and when."""

from __future__ import annotations

from shared.swarm.starving import FEW, PARCHED, STARVED, Cursor, Cursors
from shared.task.bitmap import Bitmap


def waiting(number: int, stop: int, *, since: float = 0.0) -> Cursor:
    cursor = Cursor()
    cursor.waits(number, stop, since)
    return cursor


def test_who_wants_little_has_all_of_it_urgent_after_a_moment() -> None:
    cursor = waiting(7, 7 + FEW)
    assert list(cursor.urgent(0.9 * STARVED)) == []
    assert list(cursor.urgent(STARVED)) == list(range(7, 7 + FEW))


def test_who_wants_much_is_helped_late_and_a_little() -> None:
    cursor = waiting(7, 8 + FEW)
    assert list(cursor.urgent(0.9 * PARCHED)) == []
    assert list(cursor.urgent(PARCHED)) == [7]


def test_who_starved_is_helped_at_once() -> None:
    cursor = waiting(7, 9)
    cursor.fed(STARVED)
    assert list(cursor.urgent(STARVED)) == [], "it waits for nothing"
    cursor.waits(8, 9, 5.0)
    assert list(cursor.urgent(5.0)) == [8]


def test_who_was_fed_in_time_is_not() -> None:
    cursor = waiting(7, 9)
    cursor.fed(0.5 * STARVED)
    cursor.waits(8, 9, 5.0)
    assert list(cursor.urgent(5.0)) == []


def test_every_reader_counts_until_it_goes() -> None:
    cursors, first, second = Cursors(), waiting(7, 8), waiting(50, 51)
    cursors.add(first)
    cursors.add(second)
    assert cursors.urgent(STARVED) == Bitmap([7, 50])
    cursors.remove(first)
    assert cursors.urgent(STARVED) == Bitmap([50])
    assert len(cursors) == 1
