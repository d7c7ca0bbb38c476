"""Which pieces the readers of a task wait for. Pure.

Order costs a swarm dearly: hosts that all want the first piece first have nothing to give each other. So a
reader's next piece counts as urgent only when the reader has gone without for a while; from then on its
next ones too, until it finds one that is there already.
"""

from __future__ import annotations

from shared.task.bitmap import Bitmap

STARVED = 1.0
"""Seconds without its piece after which a reader is helped."""


class Cursor:
    """Where one reader is: it waits for piece ``number``, and wants the pieces below ``stop``."""

    __slots__ = ("number", "since", "starved", "stop")

    def __init__(self) -> None:
        self.number: int | None = None
        self.stop = 0
        self.since = 0.0
        self.starved = False

    def waits(self, number: int, stop: int, now: float) -> None:
        """The reader has to wait for the piece, from ``now`` on."""
        self.number, self.stop, self.since = number, stop, now

    def fed(self, now: float) -> None:
        """The piece came that the reader waited for."""
        self.starved = self.starved or now - self.since >= STARVED
        self.number = None

    def sated(self) -> None:
        """The next piece was there already."""
        self.starved = False


class Cursors:
    """The readers of one task."""

    def __init__(self) -> None:
        self._cursors: list[Cursor] = []

    def __len__(self) -> int:
        return len(self._cursors)

    def add(self, cursor: Cursor) -> None:
        """One more reader."""
        self._cursors.append(cursor)

    def remove(self, cursor: Cursor) -> None:
        """A reader has gone."""
        self._cursors.remove(cursor)

    def urgent(self, now: float) -> Bitmap:
        """The pieces that starving readers wait for, and those that they want next."""
        urgent = Bitmap()
        for cursor in self._cursors:
            number = cursor.number
            if number is None or not (cursor.starved or now - cursor.since >= STARVED):
                continue
            for wanted in range(number, min(number + 2, cursor.stop)):
                urgent.add(wanted)
        return urgent
