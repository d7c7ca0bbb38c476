"""Heads of messages."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.heads import DateField, Refusal, ResponseFrame, check_request, frame_response
from shared.http.limits import ServerLimits
from shared.http.messages import Response

LIMITS = ServerLimits(max_header_bytes=1000, max_target_bytes=100, max_headers=5)
DATE = b"date: now\r\n"


def head(*fields: tuple[str, str], target: str = "/", version: str = "1.1") -> h11.Request:
    return h11.Request(method="POST", target=target, headers=[("host", "h"), *fields], http_version=version)


@pytest.mark.parametrize(
    ("request_head", "received", "status"),
    [
        (head(version="2.0"), 0, 505),
        (head(target="/" + "a" * 100), 0, 414),
        (head(*[("x", "y")] * 5), 0, 431),
        (head(("x", "y" * 1000)), 1100, 431),
        (head(("content-length", "1"), ("transfer-encoding", "chunked")), 0, 400),
        (head(("transfer-encoding", "chunked"), version="1.0"), 0, 400),
        (head(("expect", "miracles")), 0, 417),
    ],
)
def test_what_is_refused(request_head: h11.Request, received: int, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        check_request(request_head, LIMITS, received)
    assert caught.value.status == status


def test_how_requests_are_framed() -> None:
    plain = check_request(head(), LIMITS, 5000)
    assert (plain.length, plain.keep_alive) == (0, True)
    assert check_request(head(("content-length", "7")), LIMITS, 0).length == 7
    assert check_request(head(("transfer-encoding", "chunked")), LIMITS, 0).length is None
    assert not check_request(head(("connection", "x, Close")), LIMITS, 0).keep_alive
    assert not check_request(head(version="1.0"), LIMITS, 0).keep_alive


def framed(
    response: Response, length: int | None, *, close: bool = False, bare: bool = False, old: bool = False
) -> ResponseFrame:
    return frame_response(response, length, date=DATE, close=close, bare=bare, old=old)


def test_how_responses_are_framed() -> None:
    assert framed(Response(headers=[("X-A", "ü")], content_type="a/b"), 3).head == (
        b"HTTP/1.1 200 OK\r\nX-A: \xfc\r\ncontent-type: a/b\r\ncontent-length: 3\r\ndate: now\r\n\r\n"
    )
    unknown = framed(Response(), None)
    assert unknown.chunked
    assert not unknown.close
    old = framed(Response(), None, old=True)
    assert not old.chunked
    assert old.head.endswith(b"connection: close\r\n\r\n")
    assert b"content-length" not in framed(Response(204), 0, bare=True).head
    assert b"content-length" not in framed(Response(304), 0, bare=True).head
    assert b"HTTP/1.1 299 \r\n" in framed(Response(299), 0).head


def test_a_handlers_framing_fields_are_understood() -> None:
    proxied = Response(
        headers=[("Content-Length", "9"), ("Connection", "close"), ("Transfer-Encoding", "chunked")]
    )
    frame = framed(proxied, None)
    assert (frame.length, frame.chunked, frame.close) == (9, False, True)
    assert b"chunked" not in frame.head
    assert framed(Response(headers=[("Date", "then")]), 0).head.count(b"ate: ") == 1
    assert b"content-length: 9" in framed(Response(headers=[("content-length", "9")]), 0, bare=True).head


@pytest.mark.parametrize(
    "response",
    [
        Response(headers=[("a", "b\r\nc: d")]),
        Response(headers=[("a b", "c")]),
        Response(headers=[("", "c")]),
        Response(content_type="a\0"),
        Response(headers=[("content-length", "4")]),
        Response(headers=[("content-length", "-3")]),
        Response(100),
        Response(42),
    ],
)
def test_what_cannot_be_sent(response: Response) -> None:
    with pytest.raises(ValueError, match=r"."):
        framed(response, 3)


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_what_is_sent_is_valid_http(fields: list[tuple[str, str]]) -> None:
    try:
        frame = framed(Response(headers=fields), 0)
    except ValueError:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    client.receive_data(frame.head)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    names = [name.lower() for name, _ in fields]
    kept = [
        name for name in names if name not in ("content-length", "connection", "transfer-encoding", "date")
    ]
    assert len(event.headers) >= len(kept)


def test_the_date_is_a_field() -> None:
    field = DateField().now()
    assert field.startswith(b"date: ")
    assert field.endswith(b" GMT\r\n")
