"""Who is answered."""

from __future__ import annotations

import pytest

from peer.gateway.callers import Callers
from peer.gateway.errors import RegistryError
from shared.http.messages import Request

CALLERS = Callers(["gateway.example:65001", "Node1", ":65001", "", "0.0.0.0:65001", "[::]:1", "[bad"])


def asking(host: str | None, target: str = "/v2/", **headers: str) -> Request:
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request.make("GET", target, [*fields, *([] if host is None else [("host", host)])])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:65001",
        "127.0.0.1",
        "10.0.0.7:65001",
        "[::1]:65001",
        "[fe80::1]",
        "localhost:65001",
        "LocalHost",
        "registry.localhost:1",
        "gateway.example",
        "Gateway.Example:1",
        "node1:65001",
        None,
    ],
)
def test_own_names(host: str | None) -> None:
    CALLERS.check(asking(host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:65001",
        "docker.io",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "xlocalhost",
        "gateway.example.evil",
        "user@evil.example",
        "2130706433",
        "[::1",
        "",
    ],
)
def test_foreign_names(host: str) -> None:
    with pytest.raises(RegistryError, match=r"registry\.names") as caught:
        CALLERS.check(asking(host))
    assert caught.value.status == 421


def test_both_names_of_an_absolute_target_count() -> None:
    CALLERS.check(asking("localhost", "http://127.0.0.1:65001/v2/"))
    for host, target in (("localhost", "http://evil.example/v2/"), ("evil.example", "http://localhost/v2/")):
        with pytest.raises(RegistryError, match="evil"):
            CALLERS.check(asking(host, target))


def test_pages_of_other_sites() -> None:
    CALLERS.check(asking("localhost", sec_fetch_site="none"))
    CALLERS.check(asking("localhost", sec_fetch_site="same-origin"))
    for site in ("cross-site", "same-site"):
        with pytest.raises(RegistryError, match="other sites"):
            CALLERS.check(asking("localhost", sec_fetch_site=site))


@pytest.mark.parametrize("via", ["1.1 dragonet", "1.0 fred, 1.1 Dragonet (x)", "HTTP/1.1 dragonet"])
def test_no_gateway_behind_a_gateway(via: str) -> None:
    with pytest.raises(RegistryError) as caught:
        CALLERS.check(asking("localhost", via=via))
    assert caught.value.status == 508


@pytest.mark.parametrize("via", ["1.1 proxy", "1.1 dragonet.example", "dragonet", ""])
def test_other_proxies(via: str) -> None:
    CALLERS.check(asking("localhost", via=via))
