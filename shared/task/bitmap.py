"""A growing set of piece numbers, kept as one Python integer. Pure.

On the wire: little-endian bytes, piece 0 is the lowest bit of the first byte.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

MAX_PIECES = 1 << 22
"""More pieces than any task has (64 TiB at 16 MiB each); what comes from outside is checked against it."""

FEW = 64


class Bitmap:
    """A mutable set of piece numbers."""

    __slots__ = ("_bits",)

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._bits = 0
        for number in numbers:
            self.add(number)

    @classmethod
    def full(cls, count: int) -> Bitmap:
        """The set 0..count-1."""
        bitmap = cls()
        bitmap._bits = (1 << count) - 1
        return bitmap

    @classmethod
    def from_bytes(cls, data: bytes) -> Bitmap:
        """Read the wire form. Raises ValueError when it holds more than ``MAX_PIECES`` bits."""
        if len(data) > MAX_PIECES // 8:
            raise ValueError(f"a bitmap of {len(data)} bytes is longer than any task needs")
        bitmap = cls()
        bitmap._bits = int.from_bytes(data, "little")
        return bitmap

    def to_bytes(self) -> bytes:
        """The wire form, without trailing zero bytes."""
        return self._bits.to_bytes((self._bits.bit_length() + 7) // 8, "little")

    @classmethod
    def stripe(cls, index: int, count: int, stop: int) -> Bitmap:
        """The numbers below ``stop`` with ``number % count == index``."""
        rows = -(-max(stop - index, 0) // count)
        return cls._of((((1 << count * rows) - 1) // ((1 << count) - 1)) << index)

    @classmethod
    def classes(cls, which: int, count: int, stop: int) -> Bitmap:
        """The numbers below ``stop`` for which bit ``number % count`` of ``which`` is set."""
        stop = max(stop, 0)
        rows = -(-stop // count)
        every = ((1 << count * rows) - 1) // ((1 << count) - 1)
        return cls._of(every * (which & ((1 << count) - 1)) & ((1 << stop) - 1))

    def random(self, rng: random.Random) -> int:
        """A random member. Raises IndexError when there is none.

        Of many members it is the next one after a random place, which is fair enough where they lie densely.
        """
        if len(self) <= FEW:
            return rng.choice(list(self))
        start = rng.randrange(self._bits.bit_length())
        above = self._bits >> start
        return start + (above & -above).bit_length() - 1

    @property
    def stop(self) -> int:
        """One more than the largest member; 0 when empty."""
        return self._bits.bit_length()

    def add(self, number: int) -> None:
        """Put a piece number in. Raises ValueError when it is negative or absurdly large."""
        if not 0 <= number < MAX_PIECES:
            raise ValueError(f"{number} is not a piece number")
        self._bits |= 1 << number

    def discard(self, number: int) -> None:
        """Take a piece number out, if it is in."""
        if number >= 0:
            self._bits &= ~(1 << number)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= 0 and bool(self._bits >> number & 1)

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __bool__(self) -> bool:
        return self._bits != 0

    def __iter__(self) -> Iterator[int]:
        bits = self._bits
        while bits:
            low = bits & -bits
            yield low.bit_length() - 1
            bits ^= low

    def __eq__(self, other: object) -> bool:
        return self._bits == other._bits if isinstance(other, Bitmap) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable: identity by value would lie

    def __or__(self, other: Bitmap) -> Bitmap:
        return self._of(self._bits | other._bits)

    def __and__(self, other: Bitmap) -> Bitmap:
        return self._of(self._bits & other._bits)

    def __sub__(self, other: Bitmap) -> Bitmap:
        return self._of(self._bits & ~other._bits)

    def copy(self) -> Bitmap:
        """An independent copy."""
        return self._of(self._bits)

    def covers(self, count: int) -> bool:
        """Whether all of 0..count-1 are in."""
        full = (1 << count) - 1
        return self._bits & full == full

    def spans(self) -> Iterator[tuple[int, int]]:
        """The runs of consecutive numbers as (first, count), ascending."""
        first = previous = None
        for number in self:
            if first is None or previous is None:
                first = number
            elif number != previous + 1:
                yield first, previous - first + 1
                first = number
            previous = number
        if first is not None and previous is not None:
            yield first, previous - first + 1

    @classmethod
    def _of(cls, bits: int) -> Bitmap:
        bitmap = cls()
        bitmap._bits = bits
        return bitmap

    def __repr__(self) -> str:
        return f"<Bitmap of {len(self)} pieces>"
