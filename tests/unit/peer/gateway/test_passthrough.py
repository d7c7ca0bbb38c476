"""Lists come from the registry, as the client itself could have them; the way to the next page leads back here."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cdn.sources.oci.logins import Login
from peer.gateway.config import RegistryConfig
from peer.gateway.passthrough import Passthrough, next_page
from peer.gateway.target import Target
from shared.errors import InvalidRequest, SourceError
from shared.http.client import ClientResponse
from shared.http.fields import Headers
from shared.http.messages import Request, Response
from tests.unit.peer.gateway.registries import ALICE, EVE, REGISTRY, World, digest_of, new_world

TAGS = Target("tags", REGISTRY, "team/app")
REFERRERS = Target("referrers", REGISTRY, "team/app", digest=digest_of("v1"))
MIRRORED = Target("tags", REGISTRY, "team/app", prefix=f"{REGISTRY}/")
NAMED = Target("tags", REGISTRY, "team/app", ns=REGISTRY)


def page(status: int = 200, body: bytes = b"{}", **fields: str) -> ClientResponse:
    items = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return ClientResponse(status, Headers(items), body)


async def ask(world: World, target: Target = TAGS, query: str = "", **fields: str) -> Response:
    request = Request.make("GET", f"/v2/x?{query}", list(fields.items()))
    return await Passthrough(world.reader, world.access).answer(target, request)


async def test_a_list_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(monkeypatch)
    world.registry.page = page(200, b'{"tags":[]}', content_type="application/json", set_cookie="theirs=1")
    answer = await ask(world, TAGS, "n=5&last=v%201&ns=registry.example")
    assert (answer.status, answer.body) == (200, b'{"tags":[]}')
    fields = dict(answer.headers)
    assert fields["content-type"] == "application/json"
    assert fields["docker-distribution-api-version"] == "registry/2.0"
    assert "set-cookie" not in fields
    assert world.registry.gets == [(f"{REGISTRY}/team/app/tags/list", "n=5&last=v+1", {}, None)]


async def test_referrers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(monkeypatch)
    world.registry.page = page(404, b"no", oci_filters_applied="artifactType")
    answer = await ask(world, REFERRERS, "artifactType=a%2Fb", accept="application/x")
    assert (answer.status, answer.body) == (404, b"no")
    assert ("oci-filters-applied", "artifactType") in answer.headers
    place, query, headers, login = world.registry.gets[0]
    assert place == f"{REGISTRY}/team/app/referrers/{digest_of('v1')}"
    assert (query, headers, login) == ("artifactType=a%2Fb", {"accept": "application/x"}, None)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_every_status_is_passed_on(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    world = new_world(monkeypatch)
    world.registry.page = page(status, b"x", www_authenticate='Bearer realm="r"', retry_after="7")
    answer = await ask(world)
    assert answer.status == status
    assert ("www-authenticate", 'Bearer realm="r"') in answer.headers
    assert ("retry-after", "7") in answer.headers
    answer = await ask(world, MIRRORED, "n=2")
    assert dict(answer.headers)["www-authenticate"].startswith("Basic ")


async def test_whose_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(monkeypatch)
    world.registry.own = Login("machine", "own")
    await ask(world)
    await ask(world, authorization=ALICE)
    assert [get[3] for get in world.registry.gets] == [None, Login("alice", "secret")]
    assert all("authorization" not in get[2] for get in world.registry.gets)
    shared = new_world(monkeypatch, RegistryConfig(allow=(REGISTRY,), share_login=(REGISTRY,)))
    shared.registry.own = Login("machine", "own")
    await ask(shared)
    assert shared.registry.gets[0][3] == Login("machine", "own")


async def test_one_request_for_many(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch)
    world.registry.delay = 1
    passthrough = Passthrough(world.reader, world.access)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            for shown in ({}, {"authorization": ALICE}, {"authorization": EVE}):
                request = Request.make("GET", "/v2/x", list(shown.items()))
                nursery.start_soon(passthrough.answer, TAGS, request)
    assert len(world.registry.gets) == 3, "one for each of those whose credentials differ"


async def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(monkeypatch)
    world.registry.trouble = SourceError("it cannot be reached", fault="reader")
    for _ in range(2):
        with pytest.raises(SourceError, match="reached"):
            await ask(world)


@pytest.mark.parametrize("query", ["n=many", "n=-1", "n=²", "n=", "last=" + "x" * 600, "a=1&" * 9])
async def test_queries_that_are_wrong(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    world = new_world(monkeypatch)
    with pytest.raises(InvalidRequest):
        await ask(world, TAGS, query)
    assert world.registry.gets == []


# --- the next page -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('</v2/team/app/tags/list?last=v2&n=2>; rel="next"', "last=v2&n=2"),
        ("<https://registry.example/v2/team/app/tags/list?n=2&last=v2>; rel=next", "n=2&last=v2"),
        ('<?last=a%2Fb>; title="x"; rel="next"', "last=a%2Fb"),
        ('</first>; rel="first", </v2/x?last=b>;rel=NEXT', "last=b"),
        ("<https://evil.example/v2/other/tags/list?last=v2&ns=evil.example#x>; rel=next", "last=v2"),
    ],
)
def test_the_next_page_is_here(link: str, query: str) -> None:
    assert next_page([link], TAGS, "tags/list") == f"/v2/team/app/tags/list?{query}"
    assert next_page([link], MIRRORED, "tags/list") == f"/v2/{REGISTRY}/team/app/tags/list?{query}"
    assert next_page([link], NAMED, "tags/list") == f"/v2/team/app/tags/list?{query}&ns={REGISTRY}"


@pytest.mark.parametrize(
    "link", ["", "</v2/x?last=b>", "</v2/x>; rel=prev", "nonsense", "<" * 5000, "<a>;" * 2000]
)
def test_no_next_page(link: str) -> None:
    assert next_page([link], TAGS, "tags/list") == ""


async def test_the_link_is_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    world = new_world(monkeypatch)
    world.registry.page = page(link='</v2/team/app/tags/list?last=v2%0d%0aX:%20y&n=2>; rel="next"')
    fields = dict((await ask(world, NAMED)).headers)
    assert fields["link"] == (f'</v2/team/app/tags/list?last=v2%0D%0AX%3A+y&n=2&ns={REGISTRY}>; rel="next"')
