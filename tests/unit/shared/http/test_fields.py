"""Header fields and query parameters."""

import pytest

from shared.errors import InvalidRequest
from shared.http.fields import MAX_QUERY_FIELDS, Headers, Query


def test_header_names_have_no_case() -> None:
    headers = Headers([("ETag", '"a"'), ("Vary", "a, b"), ("vary", ",c")])
    assert headers.get("etag") == '"a"'
    assert headers.get("missing") is None
    assert headers.get("missing", "-") == "-"
    assert headers.get_all("VARY") == ["a, b", ",c"]
    assert headers.get_list("vary") == ["a", "b", "c"]
    assert "eTaG" in headers
    assert 3 not in headers
    assert len(headers) == 3
    assert headers.items() == list(headers)


def test_header_repr_shows_no_values() -> None:
    assert "s3cret" not in repr(Headers([("authorization", "s3cret")]))
    assert "s3cret" not in repr(Query("token=s3cret"))


def test_query_keeps_order_and_blank_values() -> None:
    query = Query("a=1&b=&a=%C3%BC&c+d=e%20f")
    assert query.items() == [("a", "1"), ("b", ""), ("a", "ü"), ("c d", "e f")]
    assert query.get("a") == "1"
    assert query.get("z", "none") == "none"
    assert query.get_all("a") == ["1", "ü"]
    assert "b" in query
    assert Query().items() == []


def test_an_endless_query_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="send fewer"):
        Query("a&" * (MAX_QUERY_FIELDS + 1))
