"""HDFS sources against Hadoop's own name and data nodes (MiniDFSCluster, real redirects and blocks).

What a healthy HDFS does not do (cuts, lies, old versions) is in tests/unit/cdn/sources/webhdfs,
against a server written from the WebHDFS specification.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.context import SourceContext, credential_header
from cdn.sources.interface import AsyncResourceClient, SourceCut, SourceRequest, SourceResponse
from cdn.sources.testing import CHECKS, Check, Example
from cdn.sources.webhdfs import calls, open_source
from shared.errors import SourceError
from shared.http.client import HttpClient
from tests.integration.cluster import Cluster
from tests.integration.hdfs.cluster import BLOCK, Hdfs, running
from tests.unit.cdn.fakes import MemorySink, job, random_bytes, reading

CONTENT = random_bytes(3 * BLOCK + 12_345)
OTHER = random_bytes(2 * BLOCK + 77, seed=2)
ODD_NAMES = ["a b", "ä€", "semi;colon=1", "per%20cent", "plus+&and", "hash#?query", "quote'\"", "[x]{y}~!@,"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """Two name nodes, two data nodes."""
    with running("plain", tmp_path_factory) as hdfs:
        yield hdfs


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """Kerberos: who has no token gets nothing."""
    with running("kerberos", tmp_path_factory) as hdfs:
        yield hdfs


@asynccontextmanager
async def client_for(scheme: str, **options: str) -> AsyncIterator[AsyncResourceClient]:
    async with HttpClient() as http:
        yield open_source(SourceContext(scheme, http, SourcePolicy(()), SourceConfig(), options))


def names(hdfs: Hdfs) -> dict[str, str]:
    return {"namenodes": f"cluster={','.join(hdfs.namenodes)}"}


async def read(response: SourceResponse, size: int = 300_000) -> bytes:
    buffer, content = memoryview(bytearray(size)), b""
    async with response:
        while count := await response.receive_into(buffer):
            content += buffer[:count]
    return content


@asynccontextmanager
async def example(hdfs: Hdfs, **options: str) -> AsyncIterator[Example]:
    hdfs.put("/conformance/a file", CONTENT)
    hdfs.put("/conformance/b", b"b")
    hdfs.make_folder("/conformance/sub/deeper")
    async with client_for("hdfs", **names(hdfs), **options) as client:
        yield Example(
            client,
            "hdfs://cluster/conformance/a%20file",
            CONTENT,
            missing="hdfs://cluster/conformance/none",
            folder="hdfs://cluster/conformance/",
            children={"a file": False, "b": False, "sub": True},
            change=lambda: hdfs.put("/conformance/a file", OTHER),
        )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(plain: Hdfs, check: Check) -> None:
    async with example(plain, user="root") as made:
        await check(made)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_with_a_delegation_token(secure: Hdfs, check: Check) -> None:
    async with example(secure, delegation_token=secure.token) as made:
        await check(made)


# --- names and listings -----------------------------------------------------------------------------


async def test_odd_names_are_read_and_listed_exactly(plain: Hdfs) -> None:
    for name in ODD_NAMES:
        plain.put(f"/odd/{name}/{name}", name.encode())
    async with client_for("hdfs", **names(plain), user="root") as client:
        for name in ODD_NAMES:
            url = f"hdfs://cluster/odd/{quote(name, safe='')}/{quote(name, safe='')}"
            assert await read(await client.download(SourceRequest(url))) == name.encode(), name
        folders = await client.list(SourceRequest("hdfs://cluster/odd"))
        assert len(folders) == len(ODD_NAMES)
        found = [(await client.list(SourceRequest(folder.url)))[0] for folder in folders]
        contents = [await read(await client.download(SourceRequest(each.url))) for each in found]
        assert sorted(contents) == sorted(name.encode() for name in ODD_NAMES)


async def test_a_long_folder_is_listed_in_parts(plain: Hdfs) -> None:
    for number in range(23):
        plain.put(f"/long/file-{number:02}", b"x" * number)
    async with client_for("webhdfs", user="root") as client:
        url = f"webhdfs://{plain.namenodes[plain.active]}/long"
        entries = await client.list(SourceRequest(url))
        assert [(e.url, e.size, e.is_folder) for e in entries] == [
            (f"{url}/file-{number:02}", number, False) for number in range(23)
        ]
        assert len({e.version for e in entries}) == 23
        with pytest.raises(SourceError, match="is a file"):
            await client.list(SourceRequest(f"{url}/file-01"))
        with pytest.raises(SourceError, match="is a folder"):
            await client.download(SourceRequest(url))


# --- content ----------------------------------------------------------------------------------------


async def test_ranges_over_many_blocks(plain: Hdfs) -> None:
    content = random_bytes(17 * BLOCK + 5)
    plain.put("/big", content)
    async with client_for("hdfs", **names(plain), user="root") as client:
        spans = [(BLOCK - 1, BLOCK), (BLOCK, 2 * BLOCK - 1), (5 * BLOCK + 7, 16 * BLOCK), (17 * BLOCK, None)]
        for first, last in spans:
            request = SourceRequest("hdfs://cluster/big", range=(first, last))
            response = await client.download(request)
            assert response.status == 206
            assert response.url == request.url, "the data node's address, with who reads in it, stays inside"
            assert await read(response) == content[first : len(content) if last is None else last + 1]
        assert await read(await client.download(SourceRequest("hdfs://cluster/big"))) == content
    options = {"hdfs": {**names(plain), "user": "root"}}
    async with reading(options=options) as (reader, _):
        sink = MemorySink()
        await reader.read(job("hdfs://cluster/big"), sink)
        assert sink.content == content
        assert sink.count == len(content)


async def test_each_write_is_another_version(plain: Hdfs) -> None:
    async with client_for("hdfs", **names(plain), user="root") as client:
        request = SourceRequest("hdfs://cluster/versions/a")
        etags = []
        for change in (
            lambda: plain.put("/versions/a", b"one"),
            lambda: plain.put("/versions/a", b"two"),
            lambda: plain.append("/versions/a", b"more"),
            lambda: plain.replace("/versions/a", b"one"),
        ):
            change()
            async with await client.download(request) as response:
                etags.append(response.etag)
        assert len(set(etags)) == len(etags)


async def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed(plain: Hdfs) -> None:
    before, after = random_bytes(20 * BLOCK, seed=3), random_bytes(20 * BLOCK, seed=4)
    plain.put("/replaced", before)
    async with client_for("hdfs", **names(plain), user="root") as client:
        response = await client.download(SourceRequest("hdfs://cluster/replaced"))
        async with response:
            buffer = memoryview(bytearray(BLOCK))
            assert await response.receive_into(buffer) == BLOCK
            assert buffer == before[:BLOCK]
            plain.put("/replaced", after)
            with pytest.raises(SourceCut, match="changed"):
                await response.receive_into(buffer)
    plain.put("/replaced", before)
    async with reading(options={"hdfs": {**names(plain), "user": "root"}}) as (reader, _):
        sink, puts = MemorySink(), [after]
        sink.on_piece = lambda number: plain.put("/replaced", puts.pop()) if puts else None
        await reader.read(job("hdfs://cluster/replaced"), sink)
        assert sink.content == after
        assert len({meta.version for meta in sink.metas}) == 2


# --- who may ----------------------------------------------------------------------------------------


async def test_permissions(plain: Hdfs) -> None:
    plain.put("/private", b"secret")
    plain.allow("/private", "600")
    request = SourceRequest("hdfs://cluster/private")
    async with client_for("hdfs", **names(plain), user="bob") as client:
        with pytest.raises(SourceError, match="user=bob") as caught:
            await client.download(request)
        assert caught.value.origin_status == 403
        as_root = SourceRequest(request.url, {credential_header("user"): "root"})
        assert await read(await client.download(as_root)) == b"secret"
    async with client_for("hdfs", **names(plain)) as client:
        with pytest.raises(SourceError, match=r"set source\.options") as caught:
            await client.download(request)
        assert caught.value.fault == "reader", "a host that knows a user may do better"


async def test_tokens(secure: Hdfs) -> None:
    secure.put("/hers", b"hers")
    secure.allow("/hers", "644")
    secure.put("/mine", b"mine")
    secure.allow("/mine", "600")
    alice = secure.say("token alice")
    hers, mine = SourceRequest("hdfs://cluster/hers"), SourceRequest("hdfs://cluster/mine")
    errors: list[SourceError] = []
    async with client_for("hdfs", **names(secure)) as client:
        with pytest.raises(SourceError, match="delegation_token") as caught:
            await client.download(hers)
        assert (caught.value.origin_status, caught.value.fault) == (401, "reader")
        with_token = {credential_header("delegation_token"): alice}
        assert await read(await client.download(SourceRequest(hers.url, with_token))) == b"hers"
        with pytest.raises(SourceError, match="user=alice") as caught:
            await client.download(SourceRequest(mine.url, with_token))
        assert (caught.value.origin_status, caught.value.fault) == (403, "request")
        errors.append(caught.value)
        # 20 bytes of proof come after the identifier, whose length the first byte tells.
        proof = (int.from_bytes(base64.urlsafe_b64decode(alice[:4])[:1]) + 4) * 4 // 3
        for wrong in (alice[:proof] + "AAAAAAAA" + alice[proof + 8 :], "no token"):
            with pytest.raises(SourceError) as caught:
                await client.download(SourceRequest(hers.url, {credential_header("delegation_token"): wrong}))
            assert caught.value.origin_status in (401, 503)
            assert wrong not in str(caught.value)
        secure.say(f"cancel alice {alice}")
        with pytest.raises(SourceError, match="check the credentials of the request") as caught:
            await client.download(SourceRequest(hers.url, with_token))
        assert (caught.value.origin_status, caught.value.fault) == (401, "request")
        errors.append(caught.value)
    assert not any(alice in str(error) for error in errors)


async def test_a_token_is_kept_from_name_nodes_that_nobody_named(secure: Hdfs) -> None:
    secure.put("/hers", b"hers")
    host, port = secure.namenodes[0].split(":")
    named = {"namenodes": f"elsewhere.example=elsewhere.example:{port}"}
    async with client_for("hdfs", **named, delegation_token=secure.token, http_port=port) as client:
        with pytest.raises(SourceError, match="add this one"):
            await client.download(SourceRequest(f"hdfs://{host}/hers"))


def test_peers_get_what_the_seeder_alone_may_read(
    secure: Hdfs, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    secure.put("/shared", CONTENT)
    secure.allow("/shared", "600")
    config = tmp_path / "config.toml"
    config.write_text(
        f"[source.options.hdfs]\nnamenodes = 'cluster={secure.namenodes[0]}'\n"
        f"delegation_token = '{secure.token}'\n"
    )
    cluster = make_cluster()
    cluster.start_scheduler()
    seeder = cluster.start_seeder(environ={"DRAGONET_CONFIG": str(config)})
    for peer in (cluster.start_peer(), cluster.start_peer()):
        cluster.get("hdfs://cluster/shared", peer).check(CONTENT)
    assert seeder.metrics().value("dragonet_origin_reads_total") == 1
    assert all(secure.token not in daemon.log for daemon in cluster.daemons)
    cluster.get("hdfs://cluster/none", peer).check_failed("hdfs://cluster/none does not exist")


# --- nodes that fail --------------------------------------------------------------------------------


async def test_the_other_name_node_takes_over(plain: Hdfs) -> None:
    plain.put("/stays", CONTENT)
    async with client_for("hdfs", **names(plain), user="root") as client:
        for _ in range(2):
            assert await read(await client.download(SourceRequest("hdfs://cluster/stays"))) == CONTENT
            plain.say("failover")
    async with client_for("webhdfs", user="root") as client:
        standby = plain.namenodes[1 - plain.active]
        with pytest.raises(SourceError, match="no name node is active") as caught:
            await client.download(SourceRequest(f"webhdfs://{standby}/stays"))
        assert (caught.value.origin_status, caught.value.fault) == (503, "reader")


async def test_the_wrong_port_is_named(plain: Hdfs) -> None:
    async with client_for("hdfs", http_port=str(plain.rpc)) as client:
        with pytest.raises(SourceError, match="http_port"):
            await client.download(SourceRequest("hdfs://127.0.0.1/x"))


async def test_a_dead_data_node_is_passed_over(plain: Hdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both data nodes are on one host here, so that the name node cannot tell which one is not wanted: it
    # names either, as often as it is asked.
    monkeypatch.setattr(calls, "MAX_TRIES", 40)
    contents = {f"/kept/{number}": random_bytes(BLOCK + number, seed=number) for number in range(8)}
    for path, content in contents.items():
        plain.put(path, content)
    plain.say("stop-datanode")
    async with client_for("hdfs", **names(plain), user="root") as client:
        for path, content in contents.items():
            assert await read(await client.download(SourceRequest(f"hdfs://cluster{path}"))) == content
