"""Requests and responses as handlers see them."""

import os
from pathlib import Path

import msgspec
import pytest

from shared.errors import ParentBusy, TaskNotFound, Unavailable
from shared.http.errors import RequestTooLarge, told_error
from shared.http.messages import FileBody, Request, Response, error_response


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b?x=1?y", "/a/b", "x=1?y"),
        ("/", "/", ""),
        ("*", "*", ""),
        ("host:443", "host:443", ""),
        ("http://host/a%20b?q", "/a%20b", "q"),
        ("http://host", "/", ""),
        ("http://host?q=/", "/", "q=/"),
        ("/x?u=http://h/p", "/x", "u=http://h/p"),
        ("//double", "//double", ""),
    ],
)
def test_every_form_of_target_has_a_path(target: str, path: str, query: str) -> None:
    request = Request.make("GET", target)
    assert (request.raw_path, request.raw_query) == (path, query)


def test_the_path_is_decoded_once() -> None:
    assert Request.make("GET", "/%2561%C3%BC/%ff").path == "/%61ü/\ufffd"


async def test_the_body_is_there_again_when_asked_again() -> None:
    request = Request.make("POST", "/", [("X-A", "1")], b"abc")
    assert request.content_length == 3
    assert await request.body() == b"abc"
    assert await request.body() == b"abc"
    assert request.headers.get("x-a") == "1"
    assert request.take_fds() == []


async def test_a_body_over_the_limit_is_refused() -> None:
    with pytest.raises(RequestTooLarge) as caught:
        await Request.make("POST", "/", body=b"abc").body(2)
    assert caught.value.status == 413


async def test_a_request_that_is_over_gives_nothing_more() -> None:
    request = Request.make("POST", "/", body=b"abc")
    request.finish()
    with pytest.raises(RuntimeError):
        await request.body()


def test_release_happens_once() -> None:
    calls: list[int] = []
    response = Response(release=lambda: calls.append(1))
    response.finish()
    response.finish()
    assert calls == [1]


def test_errors_become_json_with_retry_after() -> None:
    response = error_response(ParentBusy("all slots are taken", retry_after=0.1))
    assert response.status == 503
    assert ("retry-after", "1") in response.headers
    assert isinstance(response.body, bytes)
    assert msgspec.json.decode(response.body) == {"error": {"message": "all slots are taken", "status": 503}}


def test_groups_are_told_by_their_first_own_error() -> None:
    own = TaskNotFound("no such task")
    assert told_error(ExceptionGroup("g", [ExceptionGroup("h", [own]), Unavailable("x")])) is own
    assert told_error(ExceptionGroup("g", [own, ValueError()])) is None
    assert told_error(ValueError()) is None


def test_a_file_body_measures_itself(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert FileBody(fd).measure(fd) == 10
        assert FileBody(fd, 4).measure(fd) == 6
        assert FileBody(fd, 4, 2).measure(fd) == 2
        for wrong in (FileBody(fd, 11), FileBody(fd, 4, 7), FileBody(fd, -1, 1)):
            with pytest.raises(ValueError, match="beyond"):
                wrong.measure(fd)
    finally:
        os.close(fd)
