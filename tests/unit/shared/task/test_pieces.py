from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.task.pieces import (
    MAX_PIECE_LENGTH,
    MIB,
    MIN_PIECE_LENGTH,
    PieceLayout,
    piece_length_for,
)


@given(st.integers(min_value=0, max_value=1 << 42))
def test_piece_length_is_a_power_of_two_within_bounds(length: int) -> None:
    piece = piece_length_for(length)
    assert MIN_PIECE_LENGTH <= piece <= MAX_PIECE_LENGTH
    assert piece & (piece - 1) == 0
    count = PieceLayout(length, piece).count
    assert count <= 256 or piece == MAX_PIECE_LENGTH
    assert count > 128 or piece == MIN_PIECE_LENGTH


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=300))
def test_pieces_cover_the_content_without_gap_or_overlap(length: int, piece: int) -> None:
    layout = PieceLayout(length, piece)
    position = 0
    for number in range(layout.count):
        assert layout.offset(number) == position
        assert 0 < layout.size(number) <= piece
        position += layout.size(number)
    assert position == length


@pytest.mark.parametrize(
    ("length", "count"), [(0, 0), (1, 1), (MIN_PIECE_LENGTH, 1), (MIN_PIECE_LENGTH + 1, 2), (256 * MIB, 256)]
)
def test_edges(length: int, count: int) -> None:
    assert PieceLayout(length, piece_length_for(length)).count == count


def test_unknown_length_has_a_piece_length() -> None:
    assert piece_length_for(None) == 4 * MIB


def test_a_number_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError, match="piece 2 is not one of 2"):
        PieceLayout(20, 10).size(2)
