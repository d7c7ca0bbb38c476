"""Preheats over HTTP: what is taken, what is refused and in which words, who may."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from scheduler.preheat_api import Doorkeeper, decode_json
from scheduler.preheat_orders import PreheatAsked, order_of, parse_targets
from scheduler.preheats import Targets
from shared.errors import DragonetError, InvalidRequest
from shared.http.messages import Request, Response
from shared.protocol import Preheated, PreheatItem, PreheatWanted, Resolved, ResolveWanted
from shared.task.identity import TaskSpec
from tests.unit.scheduler.test_service import Fixture

URL = "https://origin.test/file?sig=hidden"
LAYER = PreheatItem(TaskSpec(url="oci://r.test/a@sha256:1"), "layer sha256:1", 100)


class Preheats(Fixture):
    """A scheduler with hosts that take preheats."""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """(status, answer), as over a connection."""
        from shared.http.messages import error_response

        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        try:
            answer = await self.call(method, path, data, **headers)
        except DragonetError as error:
            answer = error_response(error)
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body) if answer.content_type == "application/json" else None

    async def begin(self, **asked: Any) -> Any:
        status, told = await self.ask("POST", "/v1/preheats", asked)
        assert status == 201, told
        return told


@pytest.fixture
async def api() -> Preheats:
    made = Preheats()
    await made.renew("seeder1", role="seeder", preheats=True)
    await made.renew("a", preheats=True)
    return made


async def test_a_preheat_from_its_order_to_its_end(api: Preheats) -> None:
    stream = await api.stream("seeder1")
    told = await api.begin(image="r.test/a:1", to="seeders", platforms=["linux/arm64"])
    assert (told["state"], told["what"], told["to"]) == ("resolving", "r.test/a:1", "seeders")
    wanted = await stream.until(ResolveWanted)
    assert (wanted.image, wanted.platforms) == ("r.test/a:1", ("linux/arm64",))
    await api.report("seeder1", Resolved(told["id"], "r.test/a:1", [LAYER]))
    assert (await stream.until(PreheatWanted)).items == [LAYER]
    await api.report("seeder1", Preheated(told["id"], LAYER.spec.task_id, 100, {"origin": 100}))
    status, shown = await api.ask("GET", f"/v1/preheats/{told['id']}")
    assert (status, shown["state"]) == (200, "succeeded")
    assert shown["bytes"] == {"total": 100, "done": 100, "by_source": {"origin": 100}}
    assert shown["at"] == [{"host": "seeder1", "left": 0, "failed": 0}]
    listed = (await api.ask("GET", "/v1/preheats"))[1]["preheats"]
    assert [one["id"] for one in listed] == [told["id"]]
    metrics = generate_latest(api.registry).decode()
    assert 'dragonet_preheat_jobs_total{result="succeeded"} 1.0' in metrics
    assert 'dragonet_preheat_bytes_total{source="origin"} 100.0' in metrics


async def test_no_secret_is_shown(api: Preheats) -> None:
    told = await api.begin(url=URL, to="all", headers={"Authorization": "Bearer hidden"})
    for path in ("/v1/preheats", f"/v1/preheats/{told['id']}", "/v1/tasks"):
        assert "hidden" not in json.dumps((await api.ask("GET", path))[1])
    assert told["private"]


async def test_one_that_is_cancelled(api: Preheats) -> None:
    told = await api.begin(url=URL)
    status, shown = await api.ask("DELETE", f"/v1/preheats/{told['id']}")
    assert (status, shown["state"]) == (200, "cancelled")
    assert (await api.ask("DELETE", f"/v1/preheats/{told['id']}"))[0] == 200


@pytest.mark.parametrize("number", ["0", "7", "-1", "x", "9" * 30, "٣"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_one(api: Preheats, method: str, number: str) -> None:
    from urllib.parse import quote

    status, told = await api.ask(method, f"/v1/preheats/{quote(number)}")
    assert status == 404
    assert "restarted" in told["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (b"{", "not a valid preheat"),
        (b"[" * 100_000, "not a valid preheat"),
        ({}, "give one of them"),
        ({"image": "a", "url": URL}, "give one of them"),
        ({"image": "a", "what": 1}, "unknown field `what`"),
        ({"image": "a", "to": "some"}, "seeders, all, a share"),
        ({"image": "a", "to": "0%"}, "seeders, all, a share"),
        ({"image": "a", "to": "101%"}, "seeders, all, a share"),
        ({"image": "a", "to": "0"}, "seeders, all, a share"),
        ({"image": "a b"}, "no spaces"),
        ({"image": "a" * 2000}, "no spaces"),
        ({"image": "a", "platforms": ["amd64"]}, "linux/amd64"),
        ({"image": "a", "platforms": ["linux/amd64"] * 40}, "at most 32"),
        ({"image": "a", "tag": "x"}, "leave them out"),
        ({"image": "a", "timeout": 0}, "more than 0"),
        ({"image": "a", "headers": {"a b": "c"}}, "not valid"),
        ({"image": "a", "headers": {"a": "c\r\nd: e"}}, "line break"),
        ({"image": "a", "headers": {"host": "c"}}, "set by dragonet"),
        ({"url": "no url"}, "scheme"),
        ({"url": URL, "platforms": ["linux/amd64"]}, "only an image"),
    ],
)
async def test_what_is_refused(api: Preheats, asked: Any, words: str) -> None:
    status, told = await api.ask("POST", "/v1/preheats", asked)
    assert status == 400
    assert words in told["error"]["message"]
    assert list(api.service.state.cluster.preheats) == []


def test_a_wrong_body_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_json(b'{"headers": {"authorization": ["hidden"]}}', PreheatAsked)
    assert "hidden" not in str(caught.value)


@given(st.text(max_size=8))
def test_targets_are_taken_or_refused(text: str) -> None:
    try:
        targets = parse_targets(text)
    except InvalidRequest:
        return
    assert targets.choose(["s"], ["a", "b"], 1)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("Seeders ", Targets("seeders")),
        ("all", Targets("all")),
        ("25%", Targets("all", percent=25)),
        ("3", Targets("all", count=3)),
    ],
)
def test_targets(text: str, targets: Targets) -> None:
    assert parse_targets(text) == targets


def test_a_url_is_the_content_that_get_means() -> None:
    from shared.task.identity import make_spec

    asked = PreheatAsked(url=URL, tag="t", application="a", filtered=("sig",), headers={"X-Key": "k"})
    spec, private = make_spec(URL, headers={"X-Key": "k"}, tag="t", application="a", filtered=("sig",))
    order = order_of(asked)
    assert (order.specs, order.headers) == ((spec,), private)
    assert "hidden" not in order.shown + repr(asked)


# --- who may -----------------------------------------------------------------------------------------


def request(authorization: str = "") -> Request:
    return Request.make("GET", "/", [("authorization", authorization)] if authorization else [])


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _handler(_: Request) -> Response:
    await trio.lowlevel.checkpoint()
    return Response.text("in")


@pytest.mark.parametrize("shown", ["Bearer right", "bearer  right", basic("anybody", "right")])
async def test_the_right_token(shown: str) -> None:
    for always in (True, False):
        answer = await Doorkeeper("right").guard(_handler, always=always)(request(shown))
        assert answer.status == 200


@pytest.mark.parametrize(
    "shown",
    ["", "right", "Bearer wrong", "Bearer", "Basic !", basic("right", ""), "Bearer rıght", "Digest right"],
)
async def test_a_wrong_token(shown: str) -> None:
    for always in (True, False):
        made = Request.make("GET", "/", [])
        made._raw_headers = [(b"authorization", shown.encode())]
        answer = await Doorkeeper("right").guard(_handler, always=always)(made)
        assert answer.status == 401
        assert ("www-authenticate", 'Bearer realm="dragonet"') in answer.headers


async def test_without_a_token_set() -> None:
    keeper = Doorkeeper("")
    assert (await keeper.guard(_handler, always=False)(request())).status == 200
    for shown in ("", "Bearer ", basic("", "")):
        with pytest.raises(DragonetError, match=r"scheduler\.preheat_token") as caught:
            await keeper.guard(_handler, always=True)(request(shown))
        assert caught.value.status == 403
