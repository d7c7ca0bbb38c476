"""What requests name: every runtime's way of writing it, and every trick."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.gateway.errors import RegistryError
from peer.gateway.names import AllowList, parse_registry, parse_target
from peer.gateway.target import Target

SHA256 = "sha256:" + hashlib.sha256(b"x").hexdigest()
SHA512 = "sha512:" + hashlib.sha512(b"x").hexdigest()
HUB = "docker.io"


def refused(path: str, *spaces: str, default: str = HUB) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        parse_target(path, spaces, default)
    return caught.value


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_base(path: str) -> None:
    assert parse_target(path, ["docker.io"], HUB) is None


@pytest.mark.parametrize(
    ("path", "spaces", "target"),
    [
        (  # containerd
            "/v2/library/alpine/manifests/3.20",
            ["docker.io"],
            Target("manifests", HUB, "library/alpine", "3.20", ns="docker.io"),
        ),
        (  # a path that looks like a registry is none where ns names one
            f"/v2/quay.io/a/b/blobs/{SHA256}",
            ["ghcr.io"],
            Target("blobs", "ghcr.io", "quay.io/a/b", digest=SHA256, ns="ghcr.io"),
        ),
        (  # podman, CRI-O, skopeo
            "/v2/quay.io/team/app/manifests/v1",
            [],
            Target("manifests", "quay.io", "team/app", "v1", prefix="quay.io/"),
        ),
        (
            f"/v2/10.1.2.3:5000/team/app/manifests/{SHA512}",
            [],
            Target("manifests", "10.1.2.3:5000", "team/app", digest=SHA512, prefix="10.1.2.3:5000/"),
        ),
        (  # a mirror's location may not hold a colon
            "/v2/10.1.2.3_5000/team/app/tags/list",
            [],
            Target("tags", "10.1.2.3:5000", "team/app", prefix="10.1.2.3_5000/"),
        ),
        (
            "/v2/localhost_5000/app/manifests/v1",
            [],
            Target("manifests", "localhost:5000", "app", "v1", prefix="localhost_5000/"),
        ),
        (
            "/v2/localhost/app/manifests/v1",
            [],
            Target("manifests", "localhost", "app", "v1", prefix="localhost/"),
        ),
        (  # Docker
            f"/v2/library/alpine/blobs/{SHA256}",
            [],
            Target("blobs", HUB, "library/alpine", digest=SHA256),
        ),
        ("/v2/alpine/manifests/latest", [], Target("manifests", HUB, "library/alpine", "latest")),
        (
            "/v2/Docker.IO/alpine/manifests/latest",
            [],
            Target("manifests", HUB, "library/alpine", "latest", prefix="Docker.IO/"),
        ),
        (
            "/v2/alpine/manifests/latest",
            ["registry-1.docker.io"],
            Target("manifests", HUB, "library/alpine", "latest", ns="registry-1.docker.io"),
        ),
        (
            "/v2/app/manifests/v1",
            ["[2001:DB8::1]:5000"],
            Target("manifests", "[2001:db8::1]:5000", "app", "v1", ns="[2001:DB8::1]:5000"),
        ),
        (  # repositories may be named as the kinds are
            "/v2/blobs/manifests/tags/manifests/list",
            ["quay.io"],
            Target("manifests", "quay.io", "blobs/manifests/tags", "list", ns="quay.io"),
        ),
        (
            f"/v2/a/referrers/{SHA256}",
            ["quay.io", "quay.io"],
            Target("referrers", "quay.io", "a", digest=SHA256, ns="quay.io"),
        ),
        (
            f"/v2/a/blobs/{SHA256.replace(':', '%3a')}",
            ["quay.io"],
            Target("blobs", "quay.io", "a", digest=SHA256, ns="quay.io"),
        ),
    ],
)
def test_who_writes_what(path: str, spaces: list[str], target: Target) -> None:
    assert parse_target(path, spaces, HUB) == target


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../manifests/v1",
        "/v2/a/../b/manifests/v1",
        "/v2/./a/manifests/v1",
        "/v2//a/manifests/v1",
        "/v2/a//b/manifests/v1",
        "/v2/a/b//manifests/v1",
        "/v2/A/manifests/v1",
        "/v2/a b/manifests/v1",
        "/v2/a%20b/manifests/v1",
        "/v2/a%2fb/manifests/v1",
        "/v2/%2e%2e/a/manifests/v1",
        "/v2/a%00/manifests/v1",
        "/v2/a%252fb/manifests/v1",
        "/%76%32/a/manifests/v1",
        "/v2/manifests/v1",
        "/v2/quay.io/manifests/v1",
        "/v2/quay.io//manifests/v1",
        "/v2/quay.io/../manifests/v1",
        "/v2/quay.io/quay.io//a/manifests/v1",
        "/v2/-a/manifests/v1",
        "/v2/a-/manifests/v1",
        "/v2/a___b/manifests/v1",
        "/v2/é/manifests/v1",
        f"/v2/{'a' * 256}/manifests/v1",
        f"/v2/library/{'a' * 248}/manifests/v1",
        "/v2/user@quay.io/a/manifests/v1",
        "/v2/quay.io:0/a/manifests/v1",
        "/v2/quay.io:70000/a/manifests/v1",
        "/v2/quay.io_70000/a/manifests/v1",
        "/v2/quay.io_1_2/a/manifests/v1",
        "/v2/quay..io/a/manifests/v1",
        "/v2/quay.io./a/manifests/v1",
        "/v2/.quay.io/a/manifests/v1",
        "/v2/quay.io:/a/manifests/v1",
        "/v2/quay.io:80:80/a/manifests/v1",
        "/v2/http:/quay.io/a/manifests/v1",
        "/v2/http://quay.io/a/manifests/v1",
        f"/v2/{'a' * 300}.io/a/manifests/v1",
    ],
)
def test_names_that_are_none(path: str) -> None:
    error = refused(path)
    assert (error.status, error.code) == (400, "NAME_INVALID")
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    "space",
    [
        "",
        "https://quay.io",
        "quay.io/team",
        "quay.io/",
        "user@quay.io",
        "user:word@quay.io",
        "quay.io?x",
        "quay.io#x",
        "quay.io\\x",
        "quay.io:",
        "quay.io:x",
        "quay.io:99999",
        "qu ay.io",
        "quay.io\n",
        "\tquay.io",
        "*",
        "*.io",
        "[::1",
        "[::g]",
        "[....]",
        "::1",
        "١.example",
        "a" * 4000,
    ],
)
def test_a_parameter_that_names_no_registry(space: str) -> None:
    error = refused("/v2/a/manifests/v1", space)
    assert (error.status, error.code) == (400, "NAME_INVALID")
    assert len(str(error)) < 600


def test_two_registries_at_once() -> None:
    assert refused("/v2/a/manifests/v1", "quay.io", "ghcr.io").code == "NAME_INVALID"


def test_no_registry_at_all() -> None:
    assert "registry.default" in str(refused("/v2/a/manifests/v1", default=""))


@pytest.mark.parametrize(
    "path",
    [
        "/v2/_catalog",
        "/v2/a",
        "/v2/a/manifests/v1/x",
        "/v2/a/tags/v1",
        "/v2/a/blobs/uploads/",
        "/v2/a/other/v1",
        f"/v2/a/blobs/{SHA256}/",
    ],
)
def test_what_there_is_not(path: str) -> None:
    error = refused(path)
    assert (error.status, error.code) == (404, "UNSUPPORTED")


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "v1",
        "sha256:",
        "sha256:12",
        SHA256[:-1],
        SHA256 + "0",
        SHA256.upper(),
        SHA256[:8] + SHA256[8:].upper(),
        "md5:" + "0" * 32,
        "sha384:" + "0" * 96,
        "sha512:" + "0" * 64,
        "sha256:" + "g" * 64,
        "sha256+b64:" + "0" * 64,
    ],
)
@pytest.mark.parametrize("kind", ["blobs", "referrers"])
def test_digests_that_are_none(kind: str, digest: str) -> None:
    error = refused(f"/v2/a/{kind}/{digest}")
    assert (error.status, error.code) == (400, "DIGEST_INVALID")
    if ":" in digest:
        assert refused(f"/v2/a/manifests/{digest}").code == "DIGEST_INVALID"


@pytest.mark.parametrize("tag", ["", ".x", "-x", "a" * 129, "a@b", "a~b"])
def test_tags_that_cannot_be(tag: str) -> None:
    error = refused(f"/v2/a/manifests/{tag}")
    assert (error.status, error.code) == (404, "MANIFEST_UNKNOWN")


_PART = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_HOST = st.lists(_LABEL, min_size=2, max_size=4).map(".".join)
_PORT = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))


@given(
    host=_HOST,
    port=_PORT,
    parts=st.lists(_PART, min_size=1, max_size=5),
    way=st.sampled_from(["ns", "path", "podman"]),
)
def test_what_is_named_comes_out(host: str, port: str, parts: list[str], way: str) -> None:
    registry, repository = host + port, "/".join(parts)
    written = registry.replace(":", "_") if way == "podman" else registry
    if way == "ns":
        target = parse_target(f"/v2/{repository}/manifests/v1", [registry], HUB)
    else:
        target = parse_target(f"/v2/{written}/{repository}/manifests/v1", [], HUB)
    assert target is not None
    assert (target.registry, target.repository, target.tag) == (registry, repository, "v1")


@given(st.text(max_size=60), st.one_of(st.none(), st.text(max_size=30)))
def test_anything_else_is_refused_or_harmless(text: str, space: str | None) -> None:
    """Whatever is written, the result names a registry and a repository by their grammar."""
    for path in (f"/v2/{text}/manifests/v1", f"/v2/{quote(text)}/manifests/v1", f"/v2/a/blobs/{text}"):
        target = None
        with suppress(RegistryError):
            target = parse_target(path, [] if space is None else [space], HUB)
        if target is not None:
            assert parse_registry(target.registry) == target.registry
            assert ".." not in target.repository
            assert "//" not in f"/{target.repository}/"
            assert target.repository.replace("/", "").isascii()


@pytest.mark.parametrize(
    ("entries", "registry", "entry"),
    [
        (["docker.io"], "docker.io", "docker.io"),
        (["index.docker.io"], "docker.io", "index.docker.io"),
        (["Registry-1.Docker.IO"], "docker.io", "Registry-1.Docker.IO"),
        (["a.example", "*.example"], "b.example", "*.example"),
        (["*.example"], "a.b.example", "*.example"),
        (["*"], "127.0.0.1:5000", "*"),
        (["10.0.*"], "10.0.0.1:5000", "10.0.*"),
        (["registry.local:*"], "registry.local:5000", "registry.local:*"),
        (["[::1]:5000"], "[::1]:5000", "[::1]:5000"),
    ],
)
def test_allowed(entries: list[str], registry: str, entry: str) -> None:
    assert AllowList(entries).entry_of(registry) == entry


@pytest.mark.parametrize(
    ("entries", "registry"),
    [
        ([], "docker.io"),
        (["docker.io"], "evildocker.io"),
        (["docker.io"], "docker.io.evil.example"),
        (["docker.io"], "docker.io:5000"),
        (["docker.io"], "dockerxio"),
        (["*.example"], "example"),
        (["*.example"], "a.example:5000"),
        (["*.example"], "a.example.evil"),
        (["quay.io"], "ghcr.io"),
    ],
)
def test_not_allowed(entries: list[str], registry: str) -> None:
    with pytest.raises(RegistryError, match=r"registry\.allow") as caught:
        AllowList(entries).entry_of(registry)
    assert (caught.value.status, caught.value.code) == (403, "DENIED")
    assert registry in str(caught.value)
