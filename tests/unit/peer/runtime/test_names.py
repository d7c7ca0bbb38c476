"""What may be asked for."""

from __future__ import annotations

import pytest

from peer.runtime.names import Wanted, parse_gateway, parse_registries, parse_runtime
from shared.errors import InvalidRequest


def test_runtimes() -> None:
    assert [parse_runtime(name) for name in ("containerd", "CRI-O", "crio", "podman", "Docker")] == [
        "containerd",
        "crio",
        "crio",
        "podman",
        "docker",
    ]
    with pytest.raises(
        InvalidRequest, match=r"'rkt' is none of the runtimes.*containerd, podman, crio, docker"
    ):
        parse_runtime("rkt")


def test_registries() -> None:
    assert parse_registries((), "podman") == ("*",)
    assert parse_registries((), "docker") == ("docker.io",)
    assert parse_registries(("quay.io", "index.docker.io", "quay.io", "r:5000"), "podman") == (
        "quay.io",
        "docker.io",
        "r:5000",
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://quay.io", "host or host:port"),
        ("quay.io/library", "host or host:port"),
        ("Quay.io", "lower case: quay.io"),
        ("quay io", "does not name a registry"),
        ("", "does not name a registry"),
        ("..", "does not name a registry"),
        ("quay.io:99999", "does not name a registry"),
        ("quay.io:", "does not name a registry"),
        ("*", "leave --registry out"),
        ("a\nb", "does not name a registry"),
    ],
)
def test_names_that_are_none(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_registries((name,), "podman")


def test_gateways() -> None:
    here = parse_gateway("http://127.0.0.1:65001/")
    assert (here.url, here.address, here.plain, here.local) == (
        "http://127.0.0.1:65001",
        "127.0.0.1:65001",
        True,
        True,
    )
    assert parse_gateway("https://G.example").url == "https://g.example:443"
    assert not parse_gateway("http://10.0.0.1").local
    assert parse_gateway("http://[::1]:1").address == "[::1]:1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:65001",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x/path",
        "http://x?y",
        "http://x#y",
        'http://x"y',
        "http://x y",
    ],
)
def test_gateways_that_are_none(url: str) -> None:
    with pytest.raises(InvalidRequest, match="write http://HOST:PORT"):
        parse_gateway(url)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_gateway("http://user:hunter2@x:1")
    assert "hunter2" not in str(caught.value)


def test_what_the_gateway_allows() -> None:
    wanted = Wanted(parse_gateway("http://x"), ("*",), ("docker.io", "*.corp.example", "index.docker.io"))
    assert wanted.allowed("a.corp.example")
    assert not wanted.allowed("quay.io")
    assert wanted.allowed_names() == ["docker.io"]
