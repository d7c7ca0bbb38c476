"""The gateway's way through a request: who asks, what is named, what is allowed, what is answered, what is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest
import structlog
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from peer.gateway.access import Granted, Passed, Verdict
from peer.gateway.config import RegistryConfig
from peer.gateway.exchange import GONE, Exchange
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.registry import RegistryGateway
from peer.gateway.target import Target
from shared.errors import SourceError, StoreFull, Unavailable
from shared.http.errors import ClientGone
from shared.http.messages import Request, Response
from shared.http.router import Router
from tests.unit.peer.gateway.worlds import asking, body_of, digest_of, fields, sample_value

Clock = trio.testing.MockClock
CONFIG = RegistryConfig(allow=("docker.io", "*.example"), names=("gateway.test",))
DIGEST = digest_of(b"x")
MANIFEST = "/v2/team/app/manifests/v1?ns=quay.example"


class FakeParts:
    """Access, passthrough and content; each notes that it was asked, and does what the test says."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.verdict: Verdict | Exception = Granted()
        self.content: Callable[[Exchange], Awaitable[Response]] = self.give

    async def check(self, target: Target, authorization: str) -> Verdict:
        self.asked.append(("check", target, authorization))
        await trio.lowlevel.checkpoint()
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def forget(self, target: Target, authorization: str) -> None:
        self.asked.append(("forget", target, authorization))

    async def give(self, exchange: Exchange) -> Response:
        exchange.cache, exchange.sent, exchange.expected = "hit", 3, 3
        return Response(200, b"abc")

    async def serve(self, exchange: Exchange, target: Target, granted: Granted) -> Response:
        self.asked.append(("content", target, granted))
        return await self.content(exchange)

    async def pass_on(self, target: Target, request: Request) -> Response:
        self.asked.append(("pass", target, request))
        return Response(200, b'{"tags":[]}', content_type="application/json")


class _As:
    """One method of the fake under the name that the gateway calls."""

    def __init__(self, answer: Callable[..., Awaitable[Response]]) -> None:
        self.answer = answer


class Gateway:
    """A gateway of fakes behind a router."""

    def __init__(self, config: RegistryConfig = CONFIG) -> None:
        self.parts = FakeParts()
        self.metrics = RegistryMetrics(CollectorRegistry())
        self.router = Router()
        serving, passing = _As(self.parts.serve), _As(self.parts.pass_on)
        RegistryGateway(config, self.metrics, self.parts, cast(Any, passing), cast(Any, serving)).add_routes(
            self.router
        )

    async def ask(self, method: str = "GET", path: str = MANIFEST, **headers: str) -> Response:
        return await self.router(asking(method, path, **headers))

    async def error(self, method: str = "GET", path: str = MANIFEST, **headers: str) -> tuple[int, str]:
        """Status and code of an error, which is in the specification's form."""
        response = await self.ask(method, path, **headers)
        told = msgspec.json.decode(await body_of(response))
        assert fields(response)["content-type"] == "application/json"
        assert fields(response)["docker-distribution-api-version"] == "registry/2.0"
        [error] = told["errors"]
        assert error["message"]
        return response.status, error["code"]

    def count(self, *labels: str) -> float:
        return sample_value(self.metrics.requests, *labels)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


# --- what is answered at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/?ns=not-allowed.test"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_base(gateway: Gateway, method: str, path: str) -> None:
    response = await gateway.ask(method, path)
    assert response.status == 200
    assert fields(response)["docker-distribution-api-version"] == "registry/2.0"
    assert await body_of(response) == b"{}"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [MANIFEST, "/v2/team/app/blobs/uploads/", "/v2/"])
async def test_nothing_is_pushed(gateway: Gateway, method: str, path: str) -> None:
    assert await gateway.error(method, path) == (405, "UNSUPPORTED")
    assert fields(await gateway.ask(method, path))["allow"] == "GET, HEAD"
    assert not gateway.parts.asked


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (MANIFEST, {"host": "evil.example"}, 421, "DENIED"),
        (MANIFEST, {"sec_fetch_site": "cross-site"}, 403, "DENIED"),
        (MANIFEST, {"via": "1.1 dragonet"}, 508, "DENIED"),
        ("/v2/team/app/manifests/v1?ns=evil.test", {}, 403, "DENIED"),
        ("/v2/evil.test/team/app/manifests/v1", {}, 403, "DENIED"),
        ("/v2/team/app/manifests/v1?ns=https://quay.example", {}, 400, "NAME_INVALID"),
        ("/v2/team/app/manifests/v1?ns=quay.example&ns=docker.io", {}, 400, "NAME_INVALID"),
        ("/v2/team/../app/manifests/v1", {}, 400, "NAME_INVALID"),
        ("/v2/team/app/blobs/sha256:12", {}, 400, "DIGEST_INVALID"),
        ("/v2/_catalog", {}, 404, "UNSUPPORTED"),
    ],
)
async def test_what_is_refused_before_anybody_is_asked(
    gateway: Gateway, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    assert await gateway.error("GET", path, **headers) == (status, code)
    assert await gateway.error("HEAD", path, **headers) == (status, code)
    assert not gateway.parts.asked
    assert gateway.count("", "GET", "none", str(status), "none") == 1


async def test_the_log_names_what_was_refused(gateway: Gateway) -> None:
    with structlog.testing.capture_logs() as logs:
        await gateway.error("GET", "/v2/team/app/manifests/v1?ns=evil.test")
    [line] = logs
    assert (line["event"], line["registry"], line["code"]) == ("registry request", "evil.test", 403)
    assert "registry.allow" in line["why"]


async def test_names_of_the_gateway(gateway: Gateway) -> None:
    assert (await gateway.ask(host="gateway.test:65001")).status == 200


# --- what is asked of whom ---------------------------------------------------------------------------------


async def test_access_is_asked_before_content(gateway: Gateway) -> None:
    granted = gateway.parts.verdict = Granted("scope", {"authorization": "Basic eA=="})
    response = await gateway.ask(authorization="Basic eA==")
    target = Target("manifests", "quay.example", "team/app", "v1", ns="quay.example")
    assert gateway.parts.asked == [("check", target, "Basic eA=="), ("content", target, granted)]
    assert await body_of(response) == b"abc"


async def test_what_access_passes_on_is_the_answer(gateway: Gateway) -> None:
    over: list[str] = []
    challenge = [("www-authenticate", "Basic")]
    gateway.parts.verdict = Passed(Response(401, b"no", challenge, release=lambda: over.append("over")))
    response = await gateway.ask()
    assert (response.status, fields(response)["www-authenticate"]) == (401, "Basic")
    assert await body_of(response) == b"no"
    assert over == ["over"]
    assert gateway.count("*.example", "GET", "manifests", "401", "none") == 1


@pytest.mark.parametrize("path", ["/v2/team/app/tags/list", f"/v2/team/app/referrers/{DIGEST}"])
async def test_lists_are_passed_through(gateway: Gateway, path: str) -> None:
    response = await gateway.ask("GET", f"{path}?ns=quay.example&n=5")
    assert await body_of(response) == b'{"tags":[]}'
    [(what, target, request)] = gateway.parts.asked
    assert (what, target.repository, request.query.get("n")) == ("pass", "team/app", "5")


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code", "again"),
    [
        (SourceError("x", origin_status=404), 404, "MANIFEST_UNKNOWN", None),
        (SourceError("x", origin_status=429, retry_after=9), 429, "TOOMANYREQUESTS", "9"),
        (Unavailable("x"), 503, "UNAVAILABLE", "5"),
        (StoreFull("x"), 503, "UNAVAILABLE", "5"),
        (ExceptionGroup("x", [SourceError("x", origin_status=404)]), 404, "MANIFEST_UNKNOWN", None),
    ],
)
async def test_errors_have_the_specifications_form(
    gateway: Gateway, error: Exception, status: int, code: str, again: str | None
) -> None:
    gateway.parts.verdict = error
    assert await gateway.error() == (status, code)
    response = await gateway.ask()
    assert fields(response).get("retry-after") == again
    assert fields(response)["oci-namespace"] == "quay.example"


async def test_a_bug_is_a_500_in_the_same_form(gateway: Gateway) -> None:
    gateway.parts.verdict = ZeroDivisionError("secret words")
    with structlog.testing.capture_logs() as logs:
        response = await gateway.ask()
    assert response.status == 500
    assert b"secret" not in await body_of(response)
    assert any("ZeroDivisionError" in str(line.get("error")) for line in logs)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("scope", ["", "private"])
async def test_credentials_that_are_not_taken_any_more(gateway: Gateway, status: int, scope: str) -> None:
    async def refuse(_exchange: Exchange) -> Response:
        raise SourceError("no longer", origin_status=status)

    gateway.parts.verdict = Granted(scope)
    gateway.parts.content = refuse
    assert await gateway.error(authorization="Basic eA==") == (403, "DENIED")
    assert ("forget" in [asked[0] for asked in gateway.parts.asked]) == bool(scope)


async def test_nothing_in_time_is_a_503(autojump_clock: Clock, gateway: Gateway) -> None:
    async def never(_exchange: Exchange) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    gateway.parts.content = never
    assert await gateway.error() == (503, "UNAVAILABLE")
    assert trio.current_time() == pytest.approx(31, abs=0.1)
    assert fields(await gateway.ask())["retry-after"] == "5"


class Leaving(Request):
    """A request whose client hangs up after two seconds."""

    async def hangup(self) -> None:
        await trio.sleep(2)


async def test_a_client_that_hangs_up_ends_the_work(autojump_clock: Clock, gateway: Gateway) -> None:
    ended: list[float] = []

    async def long(_exchange: Exchange) -> Response:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())
        raise AssertionError

    gateway.parts.content = long
    request = Leaving.make("GET", MANIFEST, [("host", "localhost")])
    with pytest.raises(ClientGone):
        await gateway.router(request)
    assert ended == [pytest.approx(4, abs=0.1)]
    assert gateway.count("*.example", "GET", "manifests", str(GONE), "none") == 1
    assert sample_value(gateway.metrics.hangups) == 1
    assert sample_value(gateway.metrics.broken) == 0


async def test_a_body_is_dropped_and_a_long_one_refused(gateway: Gateway) -> None:
    short = Request.make("GET", MANIFEST, [("host", "localhost")], b"x" * 100)
    assert (await gateway.router(short)).status == 200
    long = Request.make("GET", MANIFEST, [("host", "localhost")], b"x" * 100_000)
    assert (await gateway.router(long)).status == 400


# --- what is told --------------------------------------------------------------------------------------------


async def test_one_line_and_the_metrics_of_a_request(gateway: Gateway) -> None:
    async def give(exchange: Exchange) -> Response:
        exchange.cache, exchange.length = "miss", 5_000_000
        exchange.sent = exchange.expected = 10
        exchange.obtained = {"origin": 1_000_000, "peer": 4_000_000}
        return Response(200, b"0123456789")

    gateway.parts.content = give
    with structlog.testing.capture_logs() as logs:
        response = await gateway.ask(
            path=f"/v2/library/a/blobs/{DIGEST}", authorization="Bearer secret", cookie="secret"
        )
        assert logs == []
        await body_of(response)
    [line] = logs
    assert 0 <= line.pop("seconds") < 60
    assert line == {
        "event": "registry request",
        "log_level": "info",
        "method": "GET",
        "registry": "docker.io",
        "repository": "library/a",
        "kind": "blobs",
        "reference": DIGEST,
        "code": 200,
        "cache": "miss",
        "bytes": 10,
        "sources": {"origin": 2, "peer": 8},
    }
    metrics = gateway.metrics
    assert gateway.count("docker.io", "GET", "blobs", "200", "miss") == 1
    assert sample_value(metrics.sent, "peer") == 8
    assert sample_value(metrics.blobs, "1-10MiB") == 1
    assert sample_value(metrics.hangups) == sample_value(metrics.broken) == 0


@pytest.mark.parametrize(("broken", "hangups"), [("the registry died", 0), ("", 1)])
async def test_whose_doing_a_short_answer_is(gateway: Gateway, broken: str, hangups: int) -> None:
    async def give(exchange: Exchange) -> Response:
        exchange.sent, exchange.expected, exchange.broken = 5, 10, broken
        return Response(206, b"01234")

    gateway.parts.content = give
    (await gateway.ask()).finish()
    assert sample_value(gateway.metrics.hangups) == hangups
    assert sample_value(gateway.metrics.broken) == 1 - hangups


async def test_stale_answers_are_counted(gateway: Gateway) -> None:
    async def give(exchange: Exchange) -> Response:
        exchange.cache = "stale"
        return Response(200, b"")

    gateway.parts.content = give
    (await gateway.ask()).finish()
    assert sample_value(gateway.metrics.stale) == 1


# --- settings ------------------------------------------------------------------------------------------------


async def test_without_a_default_a_registry_must_be_named() -> None:
    gateway = Gateway(RegistryConfig(default=""))
    assert await gateway.error(path="/v2/library/a/manifests/v1") == (400, "NAME_INVALID")
