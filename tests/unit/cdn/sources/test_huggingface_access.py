"""hf://: whose credentials the hub is shown, what it means by its refusals, settings, and what URLs name."""

from __future__ import annotations

import pytest

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.context import SourceContext
from cdn.sources.huggingface import open_source
from cdn.sources.huggingface.places import parse_place
from cdn.sources.interface import SourceRequest
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.sources.hub_server import TOKEN, client, hub

CONTENT = random_bytes(1000)
URL = "hf://owner/name/weights/model.bin"


# --- credentials and refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "environ", "headers", "sent"),
    [
        ({}, {}, {}, None),
        ({"token": "o"}, {"HF_TOKEN": "e"}, {}, "Bearer o"),
        ({}, {"HF_TOKEN": "e"}, {}, "Bearer e"),
        ({"token": "o"}, {}, {"x-dragonet-source-token": "r"}, "Bearer r"),
        ({"token": "o"}, {}, {"authorization": "Bearer own"}, "Bearer own"),
    ],
)
async def test_whose_credentials_are_sent(
    options: dict[str, str], environ: dict[str, str], headers: dict[str, str], sent: str | None
) -> None:
    async with hub() as fake, client(fake, options, environ) as source:
        fake.commit("models/owner/name", {"x": b"x"})
        with pytest.raises(SourceError, match=r"is not there|does not know"):
            await source.download(SourceRequest("hf://owner/other/x", headers))
        assert fake.seen[0].headers.get("authorization") == sent
        assert not any(name.startswith("x-dragonet") for name, _ in fake.seen[0].headers.items())


@pytest.mark.parametrize(
    ("url", "headers", "status", "fault", "words"),
    [
        ("hf://owner/name/nothing", {}, 404, "origin", "has no nothing in revision main"),
        ("hf://owner/name@v9/x", {}, 404, "origin", "no revision v9"),
        ("hf://owner/none/x", {}, 401, "reader", "is not there, or is private"),
        ("hf://owner/none/x", {"x-dragonet-source-token": TOKEN}, 404, "origin", "is not there"),
        ("hf://owner/private/x", {}, 401, "reader", "give a token that may read it"),
        ("hf://owner/gated/x", {}, 401, "reader", "ask for access at .*/owner/gated"),
        (
            "hf://owner/gated/x",
            {"authorization": "Bearer hf_secret"},
            401,
            "origin",
            "does not know the token",
        ),
    ],
)
async def test_refusals_in_words(
    url: str, headers: dict[str, str], status: int, fault: str, words: str
) -> None:
    async with hub() as fake, client(fake) as source:
        fake.commit("models/owner/name", {"x": b""})
        fake.commit("models/owner/private", {"x": b""}, access="private")
        fake.commit("models/owner/gated", {"x": b""}, access="gated")
        for call in (source.download, source.get_content_length):
            with pytest.raises(SourceError, match=words) as caught:
                await call(SourceRequest(url, headers))
            assert (caught.value.origin_status, caught.value.fault) == (status, fault)
            assert "hf_" not in str(caught.value) + repr(caught.value)


async def test_no_secret_is_ever_shown() -> None:
    async with hub() as fake, client(fake, {"token": TOKEN}) as source:
        fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        request = SourceRequest(URL, {"x-dragonet-source-token": TOKEN})
        response = await source.download(request)
        await response.aclose()
        assert "secret-1" in response.url, "it is what the next range is asked with"
        fake.storage.expire()
        fake.storage.hook = lambda _: fake.storage.expire()
        with pytest.raises(SourceError, match="answered 403") as caught:
            await source.download(SourceRequest(URL, resolved_url=response.url))
        shown = f"{source!r} {request!r} {response!r} {caught.value!r} {caught.value}"
        assert TOKEN not in shown
        assert "secret-" not in shown


async def test_a_storage_that_cannot_be_reached_is_not_the_hub_s_refusal() -> None:
    async with hub() as fake, client(fake) as source:
        fake.commit("models/owner/name", {"weights/model.bin": CONTENT})
        fake.storage.address = "127.0.0.1:1"
        with pytest.raises(SourceError, match="cannot be reached") as caught:
            await source.download(SourceRequest(URL))
        assert caught.value.fault == "reader"


# --- settings and URLs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "huggingface.co"},
        {"endpoint": "https://user:secret@hub"},
        {"endpoint": "ftp://hub"},
        {"endpoint": "http://[x"},
        {"token": "secret\nX: y"},
        {"tokn": "secret"},
    ],
)
async def test_wrong_options(options: dict[str, str]) -> None:
    async with HttpClient() as http:
        context = SourceContext("hf", http, SourcePolicy(["hf"]), SourceConfig(), options)
        with pytest.raises(ConfigError, match=r"source\.options\.hf") as caught:
            open_source(context)
        assert "secret" not in str(caught.value)


async def test_the_endpoint_comes_from_the_environment_of_the_host() -> None:
    async with HttpClient() as http:
        shown = []
        for environ in ({"HF_ENDPOINT": "https://Mirror.example/hf/"}, {}):
            context = SourceContext("hf", http, SourcePolicy(["hf"]), SourceConfig(), {}, environ)
            shown.append(repr(open_source(context)))
        assert shown == [
            "<HuggingFaceSource at https://mirror.example/hf>",
            "<HuggingFaceSource at https://huggingface.co>",
        ]


@pytest.mark.parametrize(
    ("url", "content_url"),
    [
        ("hf://owner/name/a/b.bin", "/owner/name/resolve/main/a/b.bin"),
        ("hf://Owner/Na.me_1@v1.0/a%20b", "/Owner/Na.me_1/resolve/v1.0/a%20b"),
        ("hf://models/owner/name/x", "/owner/name/resolve/main/x"),
        ("hf://datasets/owner/name@refs%2Fpr%2F1/x", "/datasets/owner/name/resolve/refs%2Fpr%2F1/x"),
        (
            "hf://datasets/owner/name@refs/convert/parquet/x",
            "/datasets/owner/name/resolve/refs%2Fconvert%2Fparquet/x",
        ),
        ("hf://spaces/owner/name/x@y", "/spaces/owner/name/resolve/main/x%40y"),
        ("hf://models/gpt2@main/config.json", "/gpt2/resolve/main/config.json"),
    ],
)
def test_places(url: str, content_url: str) -> None:
    assert parse_place(url).content_url("") == content_url


@pytest.mark.parametrize(
    "url",
    [
        "hf://",
        "hf://owner",
        "hf://datasets",
        "hf://datasets/owner",
        "hf://owner/name@/x",
        "hf://owner/name@..%2F..%2Fx/y",
        "hf://owner/name/../x",
        "hf://owner/name/%2e%2e/x",
        "hf://owner/name/a//b",
        "hf://owner/name/a%2F%2Fb",
        "hf://owner/../x/y",
        "hf://owner/na me/x",
        "hf://owner/name/x?download=true",
        "hf://owner/name/x#y",
    ],
)
async def test_what_names_nothing(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_place(url)
    assert caught.value.fault == "request"
    async with hub() as fake, client(fake) as source:
        assert not source.is_immutable(SourceRequest(url))
        assert not fake.seen


async def test_a_repository_is_not_a_file() -> None:
    async with hub() as fake, client(fake) as source:
        for url in ("hf://owner/name", "hf://owner/name@v1/"):
            with pytest.raises(SourceError, match="no file in it") as caught:
                await source.download(SourceRequest(url))
            assert caught.value.fault == "request"
