"""Byte ranges and conditional requests (RFC 9110 §13, §14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.fields import Headers
from shared.http.ranges import MAX_RANGES, Span, if_range_holds, merge, parse_date, parse_range_header, select

DATE = "Fri, 20 Nov 2026 10:00:00 GMT"
LATER = "Fri, 20 Nov 2026 10:00:01 GMT"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 100)]),
        ("BYTES = 10-19", [(10, 20)]),
        ("bytes=90-200", [(90, 100)]),
        ("bytes=-10", [(90, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=99-99", [(99, 100)]),
        ("bytes=0-1,5-6, ,-1", [(0, 2), (5, 7), (99, 100)]),
        ("bytes=100-", []),
        ("bytes=-0", []),
        ("bytes=100-,0-4", [(0, 5)]),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=1-99999999999999999999", None),
        ("lines=0-1", None),
        ("bytes 0-1", None),
        ("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), None),
    ],
)
def test_range_values(value: str, expected: list[tuple[int, int]] | None) -> None:
    spans = parse_range_header(value, 100)
    assert (None if spans is None else [(s.start, s.stop) for s in spans]) == expected


def test_nothing_of_empty_content_can_be_had() -> None:
    assert parse_range_header("bytes=0-", 0) == ()
    assert parse_range_header("bytes=-5", 0) == ()


@given(st.text(max_size=40), st.integers(0, 1000))
def test_any_value_is_cut_to_the_content(value: str, length: int) -> None:
    for span in parse_range_header("bytes=" + value, length) or ():
        assert 0 <= span.start < span.stop <= length


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=6))
def test_merging_covers_exactly_the_same_bytes(pairs: list[tuple[int, int]]) -> None:
    spans = tuple(Span(start, start + size) for start, size in pairs)
    wanted = {at for span in spans for at in range(span.start, span.stop)}
    covering = merge(spans)
    if covering is None:
        assert len(wanted) < max(wanted) - min(wanted) + 1
    else:
        assert set(range(covering.start, covering.stop)) == wanted


def chosen(method: str = "GET", length: int | None = 100, **headers: str) -> tuple[int, Span | None]:
    fields = Headers((name.replace("_", "-"), value) for name, value in headers.items())
    selection = select(method, fields, length=length, etag='"a"', last_modified=DATE)
    assert selection.has_body == (selection.status < 300)
    return selection.status, selection.span


WHOLE = (200, Span(0, 100))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, WHOLE),
        ({"range": "bytes=10-19"}, (206, Span(10, 20))),
        ({"range": "bytes=0-9,10-19"}, (206, Span(0, 20))),
        ({"range": "bytes=0-9,50-59"}, WHOLE),
        ({"range": "bytes=100-"}, (416, None)),
        ({"range": "bytes=x"}, WHOLE),
        ({"range": "bytes=0-1", "if_range": '"a"'}, (206, Span(0, 2))),
        ({"range": "bytes=0-1", "if_range": '"b"'}, WHOLE),
        ({"range": "bytes=0-1", "if_range": 'W/"a"'}, WHOLE),
        ({"range": "bytes=0-1", "if_range": DATE}, (206, Span(0, 2))),
        ({"range": "bytes=0-1", "if_range": LATER}, WHOLE),
        ({"if_none_match": '"a"'}, (304, None)),
        ({"if_none_match": '"x", W/"a"'}, (304, None)),
        ({"if_none_match": "*"}, (304, None)),
        ({"if_none_match": '"b"'}, WHOLE),
        ({"if_none_match": "a"}, WHOLE),
        ({"if_none_match": '"b"', "if_modified_since": DATE}, WHOLE),
        ({"if_modified_since": DATE}, (304, None)),
        ({"if_modified_since": LATER}, (304, None)),
        ({"if_modified_since": "Fri, 20 Nov 2026 09:59:59 GMT"}, WHOLE),
        ({"if_modified_since": "soon"}, WHOLE),
        ({"if_match": '"a"'}, WHOLE),
        ({"if_match": "*"}, WHOLE),
        ({"if_match": '"b"'}, (412, None)),
        ({"if_match": 'W/"a"'}, (412, None)),
        ({"if_unmodified_since": "Fri, 20 Nov 2026 09:59:59 GMT"}, (412, None)),
        ({"if_unmodified_since": DATE}, WHOLE),
        ({"if_match": '"b"', "if_none_match": '"a"'}, (412, None)),
    ],
)
def test_what_is_answered(headers: dict[str, str], expected: tuple[int, Span | None]) -> None:
    assert chosen(**headers) == expected


def test_methods_and_lengths() -> None:
    assert chosen("HEAD", range="bytes=0-1") == WHOLE
    assert chosen("PUT", if_none_match='"a"') == (412, None)
    assert chosen(length=None, range="bytes=0-1") == (200, None)
    assert chosen(length=0, range="bytes=0-1") == (416, None)


def test_fields_that_go_along() -> None:
    partial = select("GET", Headers([("range", "bytes=-1")]), length=100, etag='"a"', last_modified=DATE)
    assert dict(partial.headers) == {
        "etag": '"a"',
        "last-modified": DATE,
        "accept-ranges": "bytes",
        "content-range": "bytes 99-99/100",
    }
    refused = select("GET", Headers([("range", "bytes=100-")]), length=100)
    assert dict(refused.headers)["content-range"] == "bytes */100"
    assert Span(0, 5).content_range(None) == "bytes 0-4/*"
    assert len(Span(3, 5)) == 2


def test_if_range_wants_something_strong() -> None:
    assert if_range_holds(None, "", "")
    assert not if_range_holds('W/"a"', 'W/"a"', "")
    assert not if_range_holds('"a"', "", "")
    assert not if_range_holds("soon", "", "soon")


@given(st.text(max_size=80))
def test_any_text_may_be_asked_for_a_date(text: str) -> None:
    parse_date(text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_condition_has_an_answer(value: str, etag: str) -> None:
    for name in ("if-match", "if-none-match", "if-range", "if-modified-since", "if-unmodified-since"):
        headers = Headers([(name, value), ("range", "bytes=0-1")])
        assert select("GET", headers, length=9, etag=etag, last_modified=value).status in (200, 206, 304, 412)
