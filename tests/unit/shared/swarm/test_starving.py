"""Whose next piece is urgent."""

from __future__ import annotations

from shared.swarm.starving import STARVED, Cursor, Cursors
from shared.task.bitmap import Bitmap


def waiting(number: int, stop: int = 100, *, since: float = 0.0) -> tuple[Cursors, Cursor]:
    cursors, cursor = Cursors(), Cursor()
    cursors.add(cursor)
    cursor.waits(number, stop, since)
    return cursors, cursor


def test_only_who_has_waited_for_a_while_is_helped() -> None:
    cursors, _ = waiting(7)
    assert cursors.urgent(0.9 * STARVED) == Bitmap()
    assert cursors.urgent(STARVED) == Bitmap([7, 8])


def test_what_lies_behind_the_span_is_not_wanted() -> None:
    cursors, _ = waiting(7, stop=8)
    assert cursors.urgent(STARVED) == Bitmap([7])


def test_who_starved_is_helped_at_once_until_it_finds_its_piece_there() -> None:
    cursors, cursor = waiting(7)
    cursor.fed(STARVED)
    assert cursors.urgent(STARVED) == Bitmap(), "it waits for nothing"
    cursor.waits(8, 100, 5.0)
    assert cursors.urgent(5.0) == Bitmap([8, 9])
    cursor.fed(5.1)
    cursor.sated()
    cursor.waits(10, 100, 6.0)
    assert cursors.urgent(6.0) == Bitmap()


def test_who_was_fed_in_time_is_not_helped() -> None:
    cursors, cursor = waiting(7)
    cursor.fed(0.5 * STARVED)
    cursor.waits(8, 100, 5.0)
    assert cursors.urgent(5.0) == Bitmap()


def test_every_reader_counts_until_it_goes() -> None:
    cursors, first = waiting(7, stop=8)
    second = Cursor()
    cursors.add(second)
    second.waits(50, 51, 0.0)
    assert cursors.urgent(STARVED) == Bitmap([7, 50])
    cursors.remove(first)
    assert cursors.urgent(STARVED) == Bitmap([50])
