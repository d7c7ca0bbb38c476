"""Asking registries on behalf of others: whose credentials are shown, for how long they are good."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.reader import SourceReader
from cdn.sources.oci.client import OPAQUE_LIFETIME, RegistryClient
from cdn.sources.oci.logins import ANONYMOUS, Login, login_of
from cdn.sources.oci.names import Reference
from shared.errors import SourceError
from shared.http.messages import Request, Response
from tests.unit.cdn.sources.registry_server import BASIC, FakeRegistry, digest_of, registry

MANIFEST_BYTES = b'{"schemaVersion":2}'
ALICE, BOB = Login("alice", "secret"), Login("bob", "secret")


@asynccontextmanager
async def client(**options: str) -> AsyncIterator[RegistryClient]:
    config = SourceConfig(options={"oci": options})
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        asking = await reader.registry_client()
        assert await reader.registry_client() is asking
        yield asking


def tag(fake: FakeRegistry, name: str = "v1", repository: str = "lib/app") -> Reference:
    return Reference(fake.address, repository, name, "")


def shown(fake: FakeRegistry) -> list[str | None]:
    return [seen.headers.get("authorization") for seen in fake.seen]


# --- whose credentials --------------------------------------------------------------------------------


async def test_everybody_or_nobody() -> None:
    async with registry() as fake, client(**{f"auth.{fake.address}": "alice:secret"}) as asking:
        digest = fake.put_manifest(MANIFEST_BYTES, "v1")
        proven = await asking.head(tag(fake), "manifest", None)
        assert (proven.descriptor.digest, proven.descriptor.size) == (digest, len(MANIFEST_BYTES))
        assert [seen.headers.get("authorization") for seen in fake.tokens] == [None]
        fake.readers = frozenset({BASIC})
        fake.revoke()
        with pytest.raises(SourceError, match="may not be read by everybody") as caught:
            await asking.head(tag(fake), "manifest", ANONYMOUS)
        assert (caught.value.origin_status, caught.value.fault) == (401, "origin")
        assert [seen.headers.get("authorization") for seen in fake.tokens] == [None, None]
        own = await asking.own_login(tag(fake))
        assert own == ALICE
        assert (await asking.head(tag(fake), "manifest", own)).descriptor.digest == digest
        assert await asking.own_login(Reference("other.example", "a", "b", "")) is None


async def test_no_one_is_given_what_anothers_credentials_got() -> None:
    async with registry() as fake, client() as asking:
        fake.readers = frozenset({BASIC})
        fake.put_manifest(MANIFEST_BYTES, "v1")
        await asking.head(tag(fake), "manifest", ALICE)
        for login in (BOB, None, Login("alice", "wrong"), login_of("Bearer secret-token-2")):
            with pytest.raises(SourceError) as caught:
                await asking.head(tag(fake), "manifest", login)
            assert caught.value.origin_status == 401
            assert "secret" not in str(caught.value)
        fake.seen.clear()
        fake.tokens.clear()
        await asking.head(tag(fake), "manifest", ALICE)
        assert (shown(fake), fake.tokens) == (["Bearer secret-token-1"], []), "a token is kept"
        await asking.head(tag(fake, repository="lib/app"), "manifest", Login("alice", "secret"))
        with pytest.raises(SourceError) as caught:
            await asking.head(tag(fake, repository="lib/other"), "manifest", ALICE)
        assert caught.value.origin_status == 404
        assert len(fake.tokens) == 1, "a token is for one repository"


async def test_a_token_that_is_good_no_more_is_renewed_once() -> None:
    async with registry() as fake, client() as asking:
        fake.put_manifest(MANIFEST_BYTES, "v1")
        await asking.head(tag(fake), "manifest", ALICE)
        fake.revoke()
        await asking.head(tag(fake), "manifest", ALICE)
        assert [seen.status for seen in fake.seen] == [401, 200, 401, 200]
        fake.seen.clear()
        fake.tokens.clear()
        fake.readers = frozenset()
        fake.revoke()
        with pytest.raises(SourceError, match="may not be read with these credentials") as caught:
            await asking.head(tag(fake), "manifest", ALICE)
        assert caught.value.origin_status == 401
        assert [seen.status for seen in fake.seen] == [401, 401], "then it is over"
        assert len(fake.tokens) == 1


async def test_a_bearer_token_is_shown_as_it_is_and_never_exchanged() -> None:
    async with registry() as fake, client() as asking:
        fake.put_manifest(MANIFEST_BYTES, "v1")
        await asking.head(tag(fake), "manifest", login_of("Bearer secret-token-1"))
        with pytest.raises(SourceError, match="may not be read with these credentials"):
            await asking.head(tag(fake), "manifest", login_of("Bearer wrong"))
        assert shown(fake) == ["Bearer secret-token-1", "Bearer wrong"]
        assert not fake.tokens


async def test_user_and_password_where_a_registry_wants_them_itself() -> None:
    async with registry("basic") as fake, client() as asking:
        digest = fake.put_manifest(MANIFEST_BYTES, "v1")
        assert (await asking.head(tag(fake), "manifest", ALICE)).expires == math.inf
        assert shown(fake) == [None, BASIC]
        with pytest.raises(SourceError, match="may not be read with these credentials"):
            await asking.head(tag(fake), "manifest", Login("alice", "wrong"))
        reference = Reference(fake.address, "lib/app", "", digest)
        assert (await asking.head(reference, "manifest", ALICE)).descriptor.digest == digest
        assert shown(fake)[-1] == BASIC, "it is known by now what the registry wants"


# --- for how long -------------------------------------------------------------------------------------


def jwt(claims: dict[str, object]) -> str:
    return f"Bearer e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize(
    ("authorization", "lifetime"),
    [
        (jwt({"exp": 1_000_250}), 250.0),
        (jwt({"exp": 999_000}), -1000.0),
        (jwt({"sub": "x"}), OPAQUE_LIFETIME),
        ("Bearer opaque", OPAQUE_LIFETIME),
        ("Negotiate abc=", OPAQUE_LIFETIME),
    ],
)
async def test_how_long_a_token_that_is_given_counts_as_good(authorization: str, lifetime: float) -> None:
    async with registry(challenge="other") as fake, client() as asking:
        asking._clock = lambda: 1_000_000.0
        fake.put_manifest(MANIFEST_BYTES, "v1")

        def hook(request: Request) -> Response | None:
            fake.challenge = "" if request.headers.get("authorization") == authorization else "other"
            return None

        fake.hook = hook
        proven = await asking.head(tag(fake), "manifest", login_of(authorization))
        assert proven.expires - trio.current_time() == pytest.approx(lifetime, abs=5)


@pytest.mark.parametrize(("told", "most"), [(100, 100), (None, 60), (0, 0), (10**9, 300), (-5, 0)])
async def test_how_long_a_token_that_we_asked_for_counts_as_good(told: int | None, most: float) -> None:
    async with registry() as fake, client() as asking:
        fake.expires_in = told
        fake.put_manifest(MANIFEST_BYTES, "v1")
        for login in (None, ALICE):
            proven = await asking.head(tag(fake), "manifest", login)
            left = proven.expires - trio.current_time()
            assert most - 10 <= left <= most
        await asking.head(tag(fake), "manifest", None)
        assert len(fake.tokens) == (3 if not most else 2)


async def test_what_needs_no_credentials_proves_nothing_about_them() -> None:
    async with registry("") as fake, client() as asking:
        fake.put_manifest(MANIFEST_BYTES, "v1")
        assert (await asking.head(tag(fake), "manifest", None)).expires == math.inf
        assert (await asking.head(tag(fake), "manifest", ALICE)).expires == math.inf
        assert shown(fake) == [None, None]


# --- at the same time ---------------------------------------------------------------------------------


async def test_many_that_ask_for_the_same_make_one_request() -> None:
    async with registry() as fake, client() as asking:
        digest = fake.put_manifest(MANIFEST_BYTES, "v1")
        found: list[str] = []

        async def ask(login: Login | None) -> None:
            found.append((await asking.head(tag(fake), "manifest", login)).descriptor.digest)

        async with trio.open_nursery() as nursery:
            for login in (None, ALICE, BOB):
                for _ in range(20):
                    nursery.start_soon(ask, login)
        assert found == [digest] * 60
        assert len(fake.seen) == 6, "one 401 and one answer for each login"
        assert sorted(seen.headers.get("authorization", "") for seen in fake.tokens) == sorted(
            ["", ALICE.basic, BOB.basic]
        )


async def test_those_who_ask_at_the_same_time_are_judged_each_by_their_own() -> None:
    async with registry() as fake, client() as asking:
        fake.readers = frozenset({BASIC})
        fake.put_manifest(MANIFEST_BYTES, "v1")
        let_in: list[Login | None] = []
        refused: list[int | None] = []

        async def ask(login: Login | None) -> None:
            try:
                await asking.head(tag(fake), "manifest", login)
            except SourceError as error:
                refused.append(error.origin_status)
            else:
                let_in.append(login)

        async with trio.open_nursery() as nursery:
            for login in (None, ALICE, BOB, Login("alice", "wrong"), login_of("Bearer wrong")) * 5:
                nursery.start_soon(ask, login)
        assert let_in == [ALICE] * 5
        assert refused == [401] * 20


async def test_an_outage_is_told_to_all_after_one_request() -> None:
    async with registry("") as fake, client() as asking:
        fake.hook = lambda request: Response(503, b"", [("retry-after", "5")])
        told: list[tuple[int | None, float | None]] = []

        async def ask() -> None:
            with pytest.raises(SourceError) as caught:
                await asking.head(tag(fake), "manifest", None)
            told.append((caught.value.origin_status, caught.value.retry_after))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert told == [(503, 5)] * 20
        assert len(fake.seen) == 1


async def test_one_that_is_cancelled_fails_nobody_else() -> None:
    async with registry("") as fake, client() as asking:
        digest = fake.put_manifest(MANIFEST_BYTES, "v1")
        scope = trio.CancelScope()

        def hook(request: Request) -> None:
            scope.cancel()

        fake.hook = hook
        found: list[str] = []

        async def ask() -> None:
            found.append((await asking.head(tag(fake), "manifest", None)).descriptor.digest)

        async def leave() -> None:
            with scope:
                await ask()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.lowlevel.checkpoint()
            for _ in range(5):
                nursery.start_soon(ask)
        assert len(found) >= 5
        assert set(found) == {digest}


# --- anything below a repository ----------------------------------------------------------------------


async def test_what_lies_below_a_repository() -> None:
    async with registry() as fake, client() as asking:
        page = Response.json({"tags": ["v1"]}, headers=[("link", '</v2/x>; rel="next"')])

        def hook(request: Request) -> Response | None:
            if "/tags/list" not in request.target or not request.headers.get("authorization"):
                return None
            return Response(page.status, page.body, page.headers, "application/json")

        fake.hook = hook
        headers = {"Accept": "application/json", "Authorization": "Bearer other", "Cookie": "c", "Host": "x"}
        answer = await asking.get(fake.address, "lib/app", "tags/list", "n=1&last=a%2Fb", headers, None)
        assert (answer.status, answer.body) == (200, b'{"tags":["v1"]}')
        assert answer.headers.get("link") == '</v2/x>; rel="next"'
        last = fake.seen[-1]
        assert last.target == "/v2/lib/app/tags/list?n=1&last=a%2Fb"
        assert last.headers.get("authorization") == "Bearer secret-token-1"
        assert last.headers.get("accept") == "application/json"
        assert last.headers.get("host") == fake.address
        assert "cookie" not in last.headers
        assert [seen.headers.get("authorization") for seen in fake.tokens] == [None]


async def test_every_status_is_an_answer() -> None:
    async with registry() as fake, client() as asking:
        fake.readers = frozenset({BASIC})

        async def ask(login: Login | None) -> int:
            return (await asking.get(fake.address, "lib/app", "tags/list", "", {}, login)).status

        answer = await asking.get(fake.address, "lib/app", "tags/list", "", {}, None)
        assert (answer.status, answer.body) == (401, b"no")
        assert answer.headers.get("www-authenticate", "").startswith("Bearer realm=")
        fake.token_answer = Response.json({}, 403)
        assert await ask(BOB) == 401
        assert await ask(login_of("Bearer wrong")) == 401
        fake.token_answer = Response.json({}, 503)
        with pytest.raises(SourceError, match="try again later") as caught:
            await ask(None)
        assert caught.value.origin_status == 503
        fake.token_answer = None
        for status in (404, 429, 500, 403):
            fake.hook = lambda request, status=status: Response(status, b"why")  # type: ignore[misc]
            assert await ask(ALICE) == status


@pytest.mark.parametrize("path", ["../../_catalog", "tags/../../x", "tags/list?n=1", "a#b", "a%2e", "a\\b"])
async def test_a_place_that_is_not_below_the_repository(path: str) -> None:
    async with client() as asking:
        with pytest.raises(SourceError, match="no place below a repository") as caught:
            await asking.get("127.0.0.1:1", "lib/app", path, "", {}, None)
        assert caught.value.fault == "request"


async def test_what_a_registry_says_to_who_shows_nothing() -> None:
    async with registry() as fake, client(**{f"auth.{fake.address}": "alice:secret"}) as asking:
        fake.put_manifest(MANIFEST_BYTES, "v1")
        await asking.head(tag(fake), "manifest", None)
        answer = await asking.unauthenticated(tag(fake), "manifest")
        assert (answer.status, answer.body) == (401, b"no")
        assert answer.headers.get("www-authenticate", "").startswith("Bearer realm=")
        fake.challenge = ""
        layer = fake.put_blob(bytes(1000))
        blob = Reference(fake.address, "lib/app", "", layer)
        answer = await asking.unauthenticated(blob, "blob")
        assert (answer.status, answer.body) == (307, b"")
        assert not fake.storage.seen, "nothing is followed"
        answer = await asking.unauthenticated(tag(fake), "manifest")
        assert (answer.status, answer.body) == (200, b""), "content is not what is asked for here"
        answer = await asking.unauthenticated(tag(fake, "none"), "manifest")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")
        assert "authorization" not in fake.seen[-1].headers


async def test_where_nobody_listens() -> None:
    async with client() as asking:
        reference = Reference("127.0.0.1:1", "lib/app", "", digest_of(b""))
        for call in (
            asking.head(reference, "manifest", None),
            asking.head(reference, "blob", ALICE),
            asking.unauthenticated(reference, "manifest"),
            asking.get("127.0.0.1:1", "lib/app", "tags/list", "", {}, ALICE),
        ):
            with pytest.raises(SourceError, match="cannot be reached") as caught:
                await call
            assert (caught.value.origin_status, caught.value.fault) == (None, "reader")


async def test_its_name_tells_no_secrets() -> None:
    async with registry() as fake, client(**{f"auth.{fake.address}": "alice:secret"}) as asking:
        fake.put_manifest(MANIFEST_BYTES, "v1")
        await asking.head(tag(fake), "manifest", ALICE)
        assert "secret" not in f"{asking!r} {asking._door!r} {ALICE!r} {await asking.own_login(tag(fake))!r}"
