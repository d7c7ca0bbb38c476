"""The origin of the tests does what the tests say it does."""

from __future__ import annotations

import gzip
import http.client
import threading

import pytest

from tests.integration.net import Answer, request
from tests.integration.origins import MIB, Gate, Origin, random_content

CONTENT = random_content(300_000)


def ask(origin: Origin, path: str = "/f", **headers: str) -> Answer:
    return request(origin.address, path, headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_serves_whole_and_in_parts_and_counts(origin: Origin) -> None:
    assert origin.add("/f", CONTENT) == f"{origin.url}/f"
    assert ask(origin).body == CONTENT
    part = ask(origin, range="bytes=10-19")
    assert (part.status, part.body) == (206, CONTENT[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(CONTENT)}"
    assert ask(origin, range=f"bytes={len(CONTENT)}-").status == 416
    assert ask(origin, range="bytes=0-9", if_range='"old"').status == 200
    assert origin.count("/f").requests == 4
    assert origin.count("/f").body == 2 * len(CONTENT) + 10
    assert ask(origin, "/none").status == 404


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_without_content_length(origin: Origin, framing: str) -> None:
    origin.add("/f", CONTENT, framing=framing, ranges="ignore")
    answer = ask(origin)
    assert answer.body == CONTENT
    assert "content-length" not in answer.headers


def test_cuts_as_often_as_told(origin: Origin) -> None:
    origin.add("/f", CONTENT, cut_after=1000, cuts=2)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            ask(origin)
    assert ask(origin).body == CONTENT


def test_gate_holds_back_by_offset(origin: Origin) -> None:
    gate = Gate(100_000)
    origin.add("/f", CONTENT, gate=gate)
    assert ask(origin, range="bytes=0-99999").body == CONTENT[:100_000]
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ask(origin).body))
    thread.start()
    gate.wait_reached()
    assert origin.count("/f").body == 200_000
    gate.open()
    thread.join(10)
    assert got == [CONTENT]


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ("shifted", f"bytes 11-20/{len(CONTENT)}"),
        ("wrong total", f"bytes 10-19/{len(CONTENT) + 7}"),
        ("no header", None),
    ],
)
def test_wrong_content_range(origin: Origin, ranges: str, said: str | None) -> None:
    origin.add("/f", CONTENT, ranges=ranges)
    answer = ask(origin, range="bytes=10-19")
    assert answer.status == 206
    assert answer.headers.get("content-range") == said


def test_gzip_redirect_status_and_authorization(origin: Origin) -> None:
    origin.add("/z", CONTENT, encoding="gzip")
    answer = ask(origin, "/z")
    assert gzip.decompress(answer.body) == CONTENT
    assert answer.headers["content-encoding"] == "gzip"
    origin.add("/r", redirect="/z")
    assert ask(origin, "/r").headers["location"] == "/z"
    origin.add("/no", status=429, headers={"Retry-After": "7"})
    assert ask(origin, "/no").headers["retry-after"] == "7"
    origin.add("/a", CONTENT, authorization="Basic x")
    assert ask(origin, "/a").status == 401
    assert ask(origin, "/a", authorization="Basic x").status == 200


def test_connections_are_kept_and_closing_ends_a_held_response() -> None:
    with Origin() as origin:
        origin.add("/f", b"x")
        origin.add("/held", bytes(MIB), gate=Gate(10))
        connection = http.client.HTTPConnection(origin.address, timeout=10)
        for _ in range(3):
            connection.request("GET", "/f")
            assert connection.getresponse().read() == b"x"
        connection.request("GET", "/held")
        response = connection.getresponse()
        assert response.read(10) == bytes(10)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
