"""What oci:// URLs name, what registries ask for, whose credentials are shown and to whom."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.context import SourceContext
from cdn.sources.interface import SourceRequest
from cdn.sources.oci.access import RegistryAccess
from cdn.sources.oci.challenges import Challenge, parse_challenges
from cdn.sources.oci.logins import ANONYMOUS, Login, Logins, login_of, request_login
from cdn.sources.oci.names import PlainRegistries, Reference, parse_reference
from cdn.sources.oci.tokens import token_end
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0b" * 64


@pytest.mark.parametrize(
    ("url", "expected", "server"),
    [
        (f"oci://host/app@{SHA256}", ("host", "app", "", SHA256), "host"),
        (f"oci://Host:5000/a/b-c__d@{SHA256.upper()}", ("host:5000", "a/b-c__d", "", SHA256), "host:5000"),
        (f"oci://[::1]:5000/a:t@{SHA512}", ("[::1]:5000", "a", "t", SHA512), "[::1]:5000"),
        ("oci://host/a/b:V1.0", ("host", "a/b", "V1.0", ""), "host"),
        ("oci://docker.io/alpine:3", ("docker.io", "library/alpine", "3", ""), "registry-1.docker.io"),
        ("oci://index.docker.io/a/b:3", ("docker.io", "a/b", "3", ""), "registry-1.docker.io"),
    ],
)
def test_references(url: str, expected: tuple[str, str, str, str], server: str) -> None:
    reference = parse_reference(url)
    assert reference == Reference(*expected)
    assert reference.server == server


def test_references_that_tell_the_kind() -> None:
    for scheme in ("oci", "oci-descriptor"):
        for kind in ("manifest", "blob"):
            found = parse_reference(f"{scheme}://host/app@{SHA256}?kind={kind}")
            assert (found.kind, found.digest) == (kind, SHA256)
    assert parse_reference(f"oci://host/app:v1@{SHA256}").kind is None


@pytest.mark.parametrize(
    "rest",
    [
        "host",
        "host/",
        "host/app",
        "host/App:v1",
        "host/../app:v1",
        "host/a//b:v1",
        "host/a%2e:v1",
        "host/app:",
        "host/app:a/b",
        "host/app@",
        "host/app@sha256:00",
        "host/app@md5:" + "0" * 32,
        f"host/app@{SHA256}?x=y",
        f"host/app@{SHA256}?kind=",
        f"host/app@{SHA256}?kind=blobs",
        f"host/app@{SHA256}?kind=blob&x=y",
        "host/app:v1?kind=manifest",
        f"host/{'a' * 256}:v1",
        "/app:v1",
    ],
)
def test_what_names_nothing(rest: str) -> None:
    with pytest.raises(SourceError, match="cannot be read") as caught:
        parse_reference(f"oci://{rest}")
    assert caught.value.fault == "request"


@pytest.mark.parametrize("options", [("http://lan.example", ""), ("", "a, localhost/team")])
def test_registries_are_named_without_scheme_and_path(options: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="does not name a registry: write host or host:port"):
        PlainRegistries(*options)


def test_which_registries_are_plain() -> None:
    plain = PlainRegistries("Reg:5000, lan.example", "localhost:5001")
    for server in (
        "reg:5000",
        "lan.example:81",
        "lan.example",
        "localhost",
        "127.0.0.9:5000",
        "[::1]:1",
        "a.localhost",
    ):
        assert server in plain, server
    for server in (
        "reg",
        "reg:5001",
        "localhost:5001",
        "10.0.0.1",
        "notlocalhost",
        "docker.io",
        "127.0.0.1.example",
    ):
        assert server not in plain, server


def test_challenges() -> None:
    assert parse_challenges(['Bearer realm="https://a/b",service="c d",scope="e:f:g,h"']) == [
        Challenge("bearer", {"realm": "https://a/b", "service": "c d", "scope": "e:f:g,h"})
    ]
    found = parse_challenges([r'Negotiate abc==, BASIC Realm = "a \"b\"" , bearer realm=x', "Digest"])
    assert [(each.scheme, each.parameters) for each in found] == [
        ("negotiate", {}),
        ("basic", {"realm": 'a "b"'}),
        ("bearer", {"realm": "x"}),
        ("digest", {}),
    ]
    assert parse_challenges(["", ",", "Basic,", '"', 'Bearer realm="a']) == [
        Challenge("basic"),
        Challenge("bearer"),
    ]


def test_credentials_of_a_request() -> None:
    def login(headers: dict[str, str]) -> Login | None:
        return request_login(SourceRequest("oci://host/a:b", headers))

    basic = base64.b64encode(b"a:b:c").decode()
    assert login({"user-agent": "x"}) is None
    assert login({"Authorization": f"basic {basic}"}) == Login("a", "b:c")
    assert login({"authorization": "Basic ?"}) == Login(header="Basic ?")
    assert login({"authorization": "Bearer t"}) == Login(header="Bearer t")
    assert login({"x-dragonet-source-token": "t", "authorization": "Bearer u"}) == Login(header="Bearer t")
    assert login({"x-dragonet-source-username": "a", "x-dragonet-source-password": "b"}) == Login("a", "b")
    assert "b" not in repr(Login("a", "b", "b"))
    with pytest.raises(SourceError, match="cannot carry"):
        login({"x-dragonet-source-endpoint": "http://evil"})


def test_logins_as_values_of_a_header() -> None:
    basic = "Basic " + base64.b64encode(b"a:b:c").decode()
    assert login_of(basic) == Login("a", "b:c")
    assert login_of(basic).authorization == basic
    for value in ("Bearer t", "bearer t", "Basic ?", "Negotiate abc="):
        assert login_of(f" {value} ").authorization == value
    assert login_of("") == ANONYMOUS
    assert ANONYMOUS.authorization == ""


def token_of(claims: object) -> str:
    return "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".c2ln"


@pytest.mark.parametrize(
    ("token", "end"),
    [
        (token_of({"exp": 1_700_000_000, "sub": "ä?>"}), 1_700_000_000),
        (token_of({"exp": 17.5}), 17.5),
        (token_of({"iat": 5}), None),
        (token_of({"exp": "soon"}), None),
        (token_of({"exp": None}), None),
        (token_of([]), None),
        ("e30.eyJleHAiOjFlOTk5fQ.c2ln", None),
        ("opaque", None),
        ("a.b", None),
        ("a.!.c", None),
        ("a.ä.c", None),
        ("..", None),
        ("", None),
    ],
)
def test_when_a_token_says_that_it_ends(token: str, end: float | None) -> None:
    assert token_end(token) == end


def test_credentials_of_docker(tmp_path: Path) -> None:
    def encoded(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": encoded("hub:1"),
                    "Host:5000": encoded("host:2"),
                    "http://quay.example/team": {"username": "team", "password": "3"},
                    "token.example": {"registrytoken": "4"},
                    "empty.example": {},
                    "broken.example": {"auth": "???"},
                },
                "credHelpers": {"helped.example": "pass"},
                "credsStore": "desktop",
                "HttpHeaders": {"x": "y"},
            }
        )
    )
    logins = Logins.from_options({"auth.host:5001": "given:5"}, {"DOCKER_CONFIG": str(tmp_path)})
    found = {
        name: logins.of(parse_reference(f"oci://{name}:t"))
        for name in (
            "docker.io/alpine",
            "host:5000/a",
            "host:5001/a",
            "quay.example/team/app",
            "quay.example/teams/app",
            "token.example/a",
            "empty.example/a",
            "broken.example/a",
            "helped.example/a",
        )
    }
    assert found == {
        "docker.io/alpine": (Login("hub", "1"), ""),
        "host:5000/a": (Login("host", "2"), ""),
        "host:5001/a": (Login("given", "5"), ""),
        "quay.example/team/app": (Login("team", "3"), ""),
        "quay.example/teams/app": (None, "desktop"),
        "token.example/a": (Login(header="Bearer 4"), ""),
        "empty.example/a": (None, "desktop"),
        "broken.example/a": (None, "desktop"),
        "helped.example/a": (None, "pass"),
    }
    assert "given" not in repr(logins)
    file.write_text('{"auths": {"host:5000": {"auth": 5}}}')
    with pytest.raises(SourceError, match=r"docker's credentials in .* cannot be read"):
        logins.of(parse_reference("oci://host:5000/a:t"))
    file.unlink()
    assert logins.of(parse_reference("oci://host:5000/a:t")) == (None, "")


@asynccontextmanager
async def access(plain: PlainRegistries, logins: Logins | None = None) -> AsyncIterator[RegistryAccess]:
    async with HttpClient(connect_timeout=1.0) as http:
        context = SourceContext("oci", http, SourcePolicy(["oci"]), SourceConfig())
        yield RegistryAccess(context, logins or Logins({}), plain)


@pytest.mark.parametrize(
    ("registry", "realm", "asked"),
    [
        ("secure.example", "http://secure.example/token", False),
        ("secure.example", "http://127.0.0.1:1/token", False),
        ("secure.example", "https://127.0.0.1:1/token", True),
        ("lan.example", "http://other.example/token", False),
        ("lan.example", "http://127.0.0.1:1/token", True),
        ("lan.example", "https://127.0.0.1:1/token", True),
        ("lan.example", "ftp://127.0.0.1/token", False),
        ("lan.example", "/token", False),
        ("lan.example", "http://[x/token", False),
        ("lan.example", "", False),
    ],
)
async def test_which_token_services_are_asked(registry: str, realm: str, asked: bool) -> None:
    async with access(PlainRegistries("lan.example"), Logins({registry: Login("u", "secret")})) as passes:
        reference = parse_reference(f"oci://{registry}/app:v1")
        words = "gives no answer" if asked else "which is not asked"
        with pytest.raises(SourceError, match=words) as caught:
            await passes.obtain(reference, None, [Challenge("bearer", {"realm": realm})], None)
        assert caught.value.fault == ("reader" if asked else "origin")
        assert "secret" not in str(caught.value)


async def test_a_token_service_at_a_denied_address_is_not_asked() -> None:
    async with access(PlainRegistries("lan.example, 169.254.169.254")) as passes:
        challenge = Challenge("bearer", {"realm": "http://169.254.169.254/latest"})
        with pytest.raises(SourceError, match="is denied"):
            await passes.obtain(parse_reference("oci://lan.example/app:v1"), None, [challenge], None)


async def test_a_challenge_without_end_is_not_answered() -> None:
    async with access(PlainRegistries("lan.example")) as passes:
        many = {"realm": "https://lan.example/token", "scope": "repository:a:pull " * 2000}
        with pytest.raises(SourceError, match="which is too many"):
            await passes.obtain(
                parse_reference("oci://lan.example/a:v1"), None, [Challenge("bearer", many)], None
            )


async def test_nobody_is_not_given_our_own_credentials() -> None:
    reference = parse_reference("oci://host/app:v1")
    async with access(PlainRegistries(), Logins({"host": Login("u", "secret")})) as passes:
        own = await passes.obtain(reference, None, [Challenge("basic")], None)
        assert own.authorization == Login("u", "secret").basic
        assert passes.held(reference, ANONYMOUS) is None
        with pytest.raises(SourceError, match="may not be read by everybody") as caught:
            await passes.obtain(reference, ANONYMOUS, [Challenge("basic")], None)
        assert (caught.value.origin_status, caught.value.fault) == (401, "origin")
        assert await passes.own(reference) == (Login("u", "secret"), "")


async def test_a_credential_helper_is_named_where_nothing_else_helps(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "desktop"}')
    async with access(PlainRegistries(), Logins({}, tmp_path / "config.json")) as passes:
        with pytest.raises(SourceError, match="docker-credential-desktop is not run") as caught:
            await passes.obtain(parse_reference("oci://host/app:v1"), None, [Challenge("basic")], None)
        assert (caught.value.origin_status, caught.value.fault) == (401, "reader")


async def test_the_number_of_repositories_that_are_remembered_is_bounded() -> None:
    async with access(PlainRegistries()) as passes:
        first = parse_reference("oci://host/app:v1")
        held = await passes.obtain(first, Login("u", "p"), [Challenge("basic")], None)
        assert passes.held(first, Login("u", "p")) is held
        assert passes.held(first, Login("u", "other")) is None
        for number in range(300):
            assert passes.held(parse_reference(f"oci://host/app{number}:v1"), None) is None
        assert repr(passes) == "<RegistryAccess to 256 repositories>"
        assert passes.held(first, Login("u", "p")) is None
