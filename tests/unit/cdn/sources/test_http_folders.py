"""Folders behind http://: their index pages, and many small files at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.http import HttpSource
from cdn.sources.interface import SourceEntry, SourceRequest
from cdn.tree.frames import SMALL_FILE
from shared.errors import SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import Behaviour, FakeOrigin, random_bytes, serving
from tests.unit.cdn.tree.folders import read_tree

HTML = {"Content-Type": "text/html"}
FILES = {f"file{n}": random_bytes(n * 11, seed=n) for n in range(60)}


@asynccontextmanager
async def source(**settings: object) -> AsyncIterator[tuple[HttpSource, FakeOrigin]]:
    config = SourceConfig(**{"retry_delay": 0.0, **settings})  # type: ignore[arg-type]
    async with serving() as origin, HttpClient() as client:
        yield HttpSource(client, SourcePolicy((), ()), config), origin


def page(*names: str) -> Behaviour:
    body = "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()
    return Behaviour(content=body, headers=HTML, ranges="ignore")


async def test_an_index_page() -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = page("../", "a", "sub/", "/elsewhere")
        base = origin.url("/top/")
        for url in (base, origin.url("/top")):
            assert await client.list(SourceRequest(url)) == [
                SourceEntry(base + "a"),
                SourceEntry(base + "sub/", True),
            ]


async def test_an_index_page_with_a_query() -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/?key=1"] = page("a")
        found = await client.list(SourceRequest(origin.url("/top/?key=1")))
        assert found == [SourceEntry(origin.url("/top/a"))]


async def test_after_a_redirection_the_names_are_still_those_asked_for() -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = Behaviour(status=302, headers={"Location": "/other/"})
        origin.behaviours["/other/"] = page("a", "/top/b")
        assert await client.list(SourceRequest(origin.url("/top/"))) == [SourceEntry(origin.url("/top/a"))]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (
            Behaviour(content=b"x", headers={"Content-Type": "application/zip"}),
            "it is of type application/zip",
        ),
        (Behaviour(content=b"x"), "it is of type unknown"),
        (Behaviour(content=b"{", headers={"Content-Type": "application/json"}), "not a list of files"),
        (Behaviour(content=bytes(17 << 20), headers=HTML), "longer than 16 MiB"),
        (Behaviour(content=bytes(17 << 20), headers=HTML, framing="chunked"), "longer than 16 MiB"),
        (Behaviour(status=302, headers={"Location": "/file"}), "it leads to a file"),
    ],
)
async def test_what_is_no_index(behaviour: Behaviour, words: str) -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = behaviour
        origin.behaviours["/file"] = Behaviour(content=b"x")
        with pytest.raises(SourceError, match=f"cannot be listed: .*{words}") as caught:
            await client.list(SourceRequest(origin.url("/top/")))
        assert caught.value.fault == "request"


async def test_errors_keep_their_status() -> None:
    async with source() as (client, origin):
        for status in (403, 404, 500):
            origin.behaviours["/top/"] = Behaviour(status=status)
            with pytest.raises(SourceError, match=str(status)) as caught:
                await client.list(SourceRequest(origin.url("/top/")))
            assert caught.value.origin_status == status


async def tree(client: HttpSource, origin: FakeOrigin) -> tuple[dict[str, bytes], list[str], dict[str, str]]:
    collected, _ = await read_tree(client, root=origin.url("/top/"), headers={"authorization": "secret"})
    return collected.files, collected.large, collected.refused


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_tree_from_any_server(framing: str) -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = page(*FILES)
        for name, content in FILES.items():
            origin.behaviours["/top/" + name] = Behaviour(content=content, framing=framing)
        assert await tree(client, origin) == (FILES, [], {})
        assert {seen.headers["authorization"] for seen in origin.seen} == {"secret"}
        if framing == "length":
            assert len(origin.seen) == 61  # each was asked for once


async def test_what_is_unusual_is_asked_for_in_the_ordinary_way() -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = page(*FILES, "large", "gone")
        for name, content in FILES.items():
            origin.behaviours["/top/" + name] = Behaviour(content=content)
        origin.change("/top/file7", gzipped=True)
        origin.change("/top/file9", status=302, headers={"Location": "/moved"})
        origin.behaviours["/moved"] = Behaviour(content=FILES["file9"])
        origin.behaviours["/top/large"] = Behaviour(content=bytes(SMALL_FILE + 1))
        files, large, refused = await tree(client, origin)
        assert files == FILES
        assert large == ["large"]
        assert list(refused) == ["gone"]
        assert "404" in refused["gone"]


async def test_connections_that_break_are_made_good() -> None:
    async with source() as (client, origin):
        origin.behaviours["/top/"] = page(*FILES)
        for name, content in FILES.items():
            # the answers with these numbers are cut
            cuts = dict.fromkeys((7, 20, 21, 40), 3)
            origin.behaviours["/top/" + name] = Behaviour(content=content, cuts=cuts)
        assert (await tree(client, origin))[0] == FILES


async def test_no_pipeline_through_a_proxy() -> None:
    async with source(proxy="http://127.0.0.1:1") as (client, origin):
        assert client.bulk_reader(SourceRequest(origin.url("/"))) is None


async def test_the_policy_holds_for_bulk_readers() -> None:
    async with HttpClient() as http:
        client = HttpSource(http, SourcePolicy((), ("127.0.0.0/8",)), SourceConfig())
        with pytest.raises(SourceError, match="denied"):
            client.bulk_reader(SourceRequest("http://127.0.0.1/"))
