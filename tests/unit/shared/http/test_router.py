"""Patterns over path segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.messages import Handler, Request, Response
from shared.http.router import Router


def answer(name: str) -> Handler:
    async def handler(request: Request) -> Response:
        return Response.text(f"{name} {request.params}")

    return handler


async def ask(router: Router, method: str, target: str) -> tuple[int, str]:
    response = await router(Request.make(method, target))
    assert isinstance(response.body, bytes)
    return response.status, response.body.decode()


@pytest.fixture
def router() -> Router:
    router = Router()
    router.add("GET", "/", answer("root"))
    router.add("GET", "/v1/tasks", answer("list"))
    router.add("GET", "/v1/tasks/{id}", answer("task"))
    router.add("DELETE", "/v1/tasks/{task}", answer("remove"))
    router.add("GET", "/v1/tasks/{id}/pieces/{number}", answer("piece"))
    router.add("GET", "/v1/tasks/all", answer("all"))
    router.add("*", "/files/{path...}", answer("files"))
    router.add("GET", "/files/index", answer("index"))
    return router


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/?a=b", "root {}"),
        ("GET", "/v1/tasks", "list {}"),
        ("GET", "/v1/tasks/abc", "task {'id': 'abc'}"),
        ("HEAD", "/v1/tasks/abc", "task {'id': 'abc'}"),
        ("DELETE", "/v1/tasks/abc", "remove {'task': 'abc'}"),
        ("DELETE", "/v1/tasks/all", "remove {'task': 'all'}"),
        ("GET", "/v1/tasks/all", "all {}"),
        ("GET", "/v1/tasks/a%2Fb/pieces/7", "piece {'id': 'a/b', 'number': '7'}"),
        ("GET", "/v1/tasks/all/pieces/7", "piece {'id': 'all', 'number': '7'}"),
        ("PUT", "/files/a/../b", "files {'path': 'a/../b'}"),
        ("GET", "/files/", "files {'path': ''}"),
        ("GET", "/files/index", "index {}"),
        ("POST", "/files/index", "files {'path': 'index'}"),
    ],
)
async def test_the_most_literal_pattern_wins(router: Router, method: str, target: str, expected: str) -> None:
    assert await ask(router, method, target) == (200, expected)


@pytest.mark.parametrize(
    "target", ["/v1", "/v1/tasks/", "/v1/tasks//pieces/1", "*", "host:1", "//", "/files"]
)
async def test_nothing_is_found_elsewhere(router: Router, target: str) -> None:
    assert (await ask(router, "GET", target))[0] == 404


async def test_a_wrong_method_is_told_the_right_ones(router: Router) -> None:
    response = await router(Request.make("POST", "/v1/tasks/abc"))
    assert response.status == 405
    assert dict(response.headers)["allow"] == "DELETE, GET, HEAD"


async def test_the_fallback_answers_the_rest() -> None:
    assert await ask(Router(fallback=answer("proxy")), "CONNECT", "host:443") == (200, "proxy {}")


@pytest.mark.parametrize("pattern", ["a", "/{a}/{a}", "/x{a}", "/{a...}/b", "/{}", "/{a-b}"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|parameter|segment"):
        Router().add("GET", pattern, answer(""))


def test_a_pair_has_one_handler() -> None:
    router = Router()
    router.add("GET", "/a/{x}", answer(""))
    with pytest.raises(ValueError, match="already"):
        router.add("GET", "/a/{y}", answer(""))


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=5))
async def test_the_short_way_finds_what_the_long_way_finds(segments: list[str]) -> None:
    from shared.http.router import _matches, _only_match

    router = Router()
    for pattern in ("/a/{x}", "/a/b", "/{x}/c/{y}", "/b/{r...}", "/c", "/c/a/{x}/b"):
        router.add("GET", pattern, answer(pattern))
    short = _only_match(router._root, segments)
    assert not short or short == _matches(router._root, segments, 0, ())
