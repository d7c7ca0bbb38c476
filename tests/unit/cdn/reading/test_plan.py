from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.reading.plan import (
    Ask,
    ContentChanged,
    Found,
    RangesUnusable,
    Validators,
    Window,
    check_follow_up,
    check_part,
    content_bytes,
    cut_runs,
    first_ask,
    round_span,
    understand,
    wanted_pieces,
    worthwhile_span,
)
from cdn.sources.interface import ContentRange, SourceResponse
from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.task.bitmap import Bitmap
from shared.task.pieces import MAX_PIECE_LENGTH, PieceLayout, piece_length_for

MIB = 1 << 20
SPAN = 32 * MIB


def part(first: int, last: int, total: int | None, etag: str = '"e"', **rest: object) -> SourceResponse:
    return SourceResponse(
        status=206, range=ContentRange(first, last, total), etag=etag, content_length=last - first + 1, **rest
    )


@given(st.sets(st.integers(0, 300)), st.sampled_from([1, 3, 8]), st.integers(1, 30))
def test_runs_cover_what_is_wanted_once_and_in_order(numbers: set[int], piece: int, span: int) -> None:
    runs = cut_runs(Bitmap(numbers), piece, span)
    assert [n for first, count in runs for n in range(first, first + count)] == sorted(numbers)
    assert all(1 <= count <= max(1, span // piece) for _, count in runs)


@given(
    st.integers(0, 200),
    st.none() | st.lists(st.tuples(st.integers(-5, 250), st.integers(-3, 60)), max_size=5),
    st.sets(st.integers(0, 220)),
)
def test_wanted_pieces(count: int, runs: list[tuple[int, int]] | None, held: set[int]) -> None:
    expected = set(range(count))
    if runs is not None:
        expected &= {n for first, length in runs for n in range(first, first + length)}
    assert set(wanted_pieces(count, runs, Bitmap(held))) == expected - held


@given(st.integers(1, 1 << 40), st.data())
def test_bytes_of_runs_join(length: int, data: st.DataObject) -> None:
    layout = PieceLayout(length, piece_length_for(length))
    first = data.draw(st.integers(0, layout.count - 1))
    count = data.draw(st.integers(1, layout.count - first))
    start, end = content_bytes(layout, (first, count))
    assert start == layout.offset(first)
    if first + count < layout.count:
        assert content_bytes(layout, (first + count, 1))[0] == end + 1
    else:
        assert end == length - 1


@given(st.integers(1, 1 << 30))
def test_spans_end_between_pieces(span: int) -> None:
    rounded = round_span(span)
    assert rounded >= span
    assert rounded % MAX_PIECE_LENGTH == 0
    assert rounded - span < MAX_PIECE_LENGTH


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_a_window_is_cut_at_the_end(first: int, extra: int, total: int) -> None:
    window = Window(first, first + extra)
    if total <= first:
        with pytest.raises(SourceError, match="beyond"):
            window.length(total)
    else:
        assert window.length(total) == len(range(total)[first : first + extra + 1])


def test_the_first_request() -> None:
    whole = Window()
    assert first_ask(whole, None, None, SPAN) == Ask(0, SPAN - 1)
    assert first_ask(Window(10, 19), None, None, SPAN) == Ask(10, 19)
    known = TaskMeta(version="v", piece_length=MIB, length=100 * MIB, etag='"e"')
    wanted = Bitmap.full(100) - Bitmap([0, 1, 5])
    assert first_ask(whole, known, wanted, SPAN) == Ask(2 * MIB, 5 * MIB - 1, '"e"')
    assert first_ask(Window(7, 200 * MIB), known, wanted, SPAN) == Ask(2 * MIB + 7, 5 * MIB + 6, '"e"')
    weak = TaskMeta(version="v", piece_length=MIB, length=100 * MIB, etag='W/"e"')
    assert first_ask(whole, weak, Bitmap.full(100), SPAN) == Ask(0, SPAN - 1)
    for unsure in (
        TaskMeta(version="v", piece_length=MIB, length=100 * MIB),
        TaskMeta(version="v", piece_length=MIB, etag='"e"'),
    ):
        assert first_ask(whole, unsure, wanted, SPAN) is None


def test_versions() -> None:
    one = Validators('"e"', "Mon").version(5)
    assert one == Validators('"e"', "Tue").version(5), "a strong ETag says it all"
    assert one != Validators('"e"', "Mon").version(6)
    assert one != Validators('"f"', "Mon").version(5)
    assert one != Validators('"e"', "Mon").version(5, decoded=True)
    assert Validators('W/"e"', "Mon").version(5) != Validators('W/"e"', "Tue").version(5)
    assert Validators().version(5) == ""
    assert Validators().version(0) != "", "nothing is always the same"


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (('"a"', ""), ('"a"', ""), False),
        (('"a"', ""), ('"b"', ""), True),
        (('"a"', "Mon"), ('"a"', "Tue"), False),
        (('W/"a"', "Mon"), ('W/"a"', "Tue"), True),
        (("", "Mon"), ("", "Tue"), True),
        (('"a"', "Mon"), ("", ""), False),
        (('"a"', "Mon"), ("", "Tue"), True),
    ],
)
def test_contradictions(before: tuple[str, str], after: tuple[str, str], changed: bool) -> None:
    assert Validators(*before).contradicts(Validators(*after)) is changed


def test_what_first_answers_mean() -> None:
    ask = Ask(0, SPAN - 1)
    found = understand(part(0, SPAN - 1, 100 * MIB), ask, Window(), None, "fresh")
    assert (found.ranged, found.total, found.meta.length) == (True, 100 * MIB, 100 * MIB)
    found = understand(SourceResponse(b"hello", etag='"e"'), ask, Window(), None, "fresh")
    assert (found.ranged, found.meta.length) == (False, 5)
    found = understand(SourceResponse(content_length=-1), ask, Window(), None, "fresh")
    assert (found.meta.length, found.meta.version) == (None, "fresh")
    short = part(0, 4, 5, etag="")
    assert understand(short, ask, Window(), None, "fresh").meta.version == "fresh"
    with pytest.raises(RangesUnusable, match="neither"):
        understand(part(0, SPAN - 1, 100 * MIB, etag=""), ask, Window(), None, "fresh")
    with pytest.raises(SourceError, match="part"):
        understand(short, None, Window(), None, "fresh")


def test_known_versions_are_kept_or_replaced() -> None:
    ask = Ask(0, SPAN - 1)
    known = understand(part(0, SPAN - 1, 100 * MIB), ask, Window(), None, "x").meta
    later = Ask(MIB, SPAN - 1, '"e"')
    assert understand(part(MIB, SPAN - 1, 100 * MIB), later, Window(), known, "y").meta == known
    with pytest.raises(ContentChanged):
        understand(part(MIB, SPAN - 1, 100 * MIB, etag='"f"'), later, Window(), known, "y")
    whole = understand(SourceResponse(b"new", etag='"f"'), later, Window(), known, "y")
    assert whole.meta.version not in ("y", known.version)
    silent = TaskMeta(version="r", piece_length=MIB, length=3)
    found = understand(SourceResponse(b"abc"), None, Window(), silent, "y")
    assert (found.compare, found.meta.version) == (True, "r")
    found = understand(SourceResponse(b"abcd"), None, Window(), silent, "y")
    assert (found.compare, found.meta.version) == (False, "y")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SourceResponse(status=206), "valid Content-Range"),
        (part(1, 10, 100), "Content-Range says 1-10"),
        (part(0, 8, 100), "Content-Range says 0-8"),
        (part(0, 9, None), "whole length"),
        (part(0, 9, 100, decoded=True), "compressed"),
    ],
)
def test_wrong_parts(answer: SourceResponse, words: str) -> None:
    with pytest.raises(RangesUnusable, match=words):
        check_part(answer, Ask(0, 9), 100)


def test_parts_and_totals() -> None:
    assert check_part(part(0, 9, 100), Ask(0, 9), 100) == 100
    assert check_part(part(0, 4, 5), Ask(0, 9), None) == 5
    with pytest.raises(ContentChanged):
        check_part(part(0, 9, 101), Ask(0, 9), 100)
    wrong = SourceResponse(status=206, range=ContentRange(0, 9, 100), content_length=11)
    with pytest.raises(RangesUnusable, match="Content-Length 11"):
        check_part(wrong, Ask(0, 9), 100)


def test_follow_ups() -> None:
    found = Found(TaskMeta(version="v", piece_length=MIB, length=100), Validators('W/"e"', "Mon"), 100, True)
    check_follow_up(part(0, 9, 100, etag='W/"e"'), Ask(0, 9), found)
    check_follow_up(part(0, 9, 100, etag=""), Ask(0, 9, '"e"'), found)
    with pytest.raises(RangesUnusable, match="neither"):
        check_follow_up(part(0, 9, 100, etag=""), Ask(0, 9), found)
    with pytest.raises(ContentChanged):
        check_follow_up(SourceResponse(b"x" * 99, etag='W/"e"'), Ask(0, 9), found)
    with pytest.raises(RangesUnusable, match="whole content"):
        check_follow_up(SourceResponse(b"x" * 100), Ask(0, 9), found)


def test_spans_are_as_long_as_asking_for_them_is_worth() -> None:
    assert worthwhile_span(100, asking=0.25, reading=1.0, received=100) == 100
    assert worthwhile_span(100, asking=1.0, reading=1.0, received=100) == 400
    assert worthwhile_span(1000, asking=1.0, reading=1.0, received=100) == 1000
    assert worthwhile_span(100, asking=1.0, reading=0.0, received=100) > 10**8
