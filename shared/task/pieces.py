"""Piece maths: how a length is cut into pieces, and which bytes a piece is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

MIN_PIECE_LENGTH = 512 * KIB
MAX_PIECE_LENGTH = 16 * MIB
TARGET_PIECES = 256
UNKNOWN_PIECE_LENGTH = 4 * MIB
"""Piece length for sources that do not tell their length: 4 MiB, the middle of the range."""


def piece_length_for(length: int | None) -> int:
    """The piece length in bytes for content of ``length`` bytes (None: unknown).

    The smallest power of two that cuts the content into at most 256 pieces, within 512 KiB..16 MiB;
    larger contents have more pieces of 16 MiB.
    """
    if length is None:
        return UNKNOWN_PIECE_LENGTH
    piece = MIN_PIECE_LENGTH
    while piece < MAX_PIECE_LENGTH and piece * TARGET_PIECES < length:
        piece *= 2
    return piece


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """How content of a known length is cut: ``count`` pieces of ``piece_length``, the last one shorter."""

    length: int
    piece_length: int

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"length must not be negative, got {self.length}")
        if self.piece_length <= 0:
            raise ValueError(f"piece length must be positive, got {self.piece_length}")

    @property
    def count(self) -> int:
        """Number of pieces; 0 for empty content."""
        return -(-self.length // self.piece_length)

    def offset(self, number: int) -> int:
        """First byte of piece ``number``."""
        self._check(number)
        return number * self.piece_length

    def size(self, number: int) -> int:
        """Length in bytes of piece ``number``."""
        self._check(number)
        return min(self.piece_length, self.length - number * self.piece_length)

    def _check(self, number: int) -> None:
        if not 0 <= number < self.count:
            raise IndexError(f"piece {number} is not one of {self.count}")
