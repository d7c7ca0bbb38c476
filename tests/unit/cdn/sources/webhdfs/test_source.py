"""The client for HDFS against a server written from the specification (see server.py)."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.context import SourceContext, credential_header
from cdn.sources.interface import ExpireInfo, RangeNotSatisfiable, SourceCut, SourceRequest, SourceResponse
from cdn.sources.testing import CHECKS, Check, Example
from cdn.sources.webhdfs import open_source
from cdn.sources.webhdfs.source import WebHdfsSource
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.sources.webhdfs.server import Answer, Call, SpecHdfs, refusal, serving_hdfs

CERTIFICATE = Path(__file__).parents[3] / "shared/http/localhost.pem"
CONTENT = random_bytes(300_000)
OTHER = random_bytes(280_000, seed=2)


CONFIG = SourceConfig(header_timeout=5, idle_timeout=5)


@asynccontextmanager
async def source(
    scheme: str = "hdfs",
    environ: dict[str, str] | None = None,
    config: SourceConfig = CONFIG,
    **options: str,
) -> AsyncIterator[WebHdfsSource]:
    async with HttpClient() as http:
        policy = SourcePolicy(["hdfs", "webhdfs"])  # not http: a scheme of its own is allowed on its own
        yield open_source(SourceContext(scheme, http, policy, config, options, environ or {}))


@asynccontextmanager
async def reading(
    namenodes: int = 1, datanodes: int = 2, config: SourceConfig = CONFIG, **options: str
) -> AsyncIterator[tuple[SpecHdfs, WebHdfsSource]]:
    """An HDFS "c" with a file /f, and a client that knows it."""
    async with serving_hdfs(namenodes, datanodes) as hdfs:
        hdfs.put("/f", CONTENT)
        named = [address for node, address in hdfs.addresses.items() if node.startswith("nn")]
        async with source(config=config, namenodes=f"c={','.join(named)}", **options) as client:
            yield hdfs, client


async def read(response: SourceResponse, size: int = 70_001) -> bytes:
    buffer, content = memoryview(bytearray(size)), b""
    async with response:
        while count := await response.receive_into(buffer):
            content += buffer[:count]
    return content


FILE = SourceRequest("hdfs://c/f")


@pytest.mark.parametrize("kind", ["name nodes", "tokens", "direct", "chunked"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, kind: str) -> None:
    options = {"delegation_token": "T"} if kind == "tokens" else {}
    async with reading(2, **options) as (hdfs, client):
        hdfs.standby = {"nn0"}
        hdfs.tokens = {"T": "me"} if kind == "tokens" else {}
        hdfs.direct, hdfs.chunked = kind == "direct", kind == "chunked"
        for path in ("/x/a file", "/x/b", "/x/c", "/x/d", "/x/sub/e"):
            hdfs.put(path, CONTENT)
        await check(
            Example(
                client,
                "hdfs://c/x/a%20file",
                CONTENT,
                missing="hdfs://c/x/none",
                folder="hdfs://c/x",
                children={"a file": False, "b": False, "c": False, "d": False, "sub": True},
                change=lambda: hdfs.put("/x/a file", OTHER),
            )
        )


async def test_what_an_answer_says() -> None:
    async with reading() as (hdfs, client):
        async with await client.download(SourceRequest(FILE.url, range=(5, 9))) as response:
            assert response.etag == f'"{1_700_000_000_123:x}-{len(CONTENT):x}-{hdfs.files["/f"].number:x}"'
            assert response.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"
            assert (response.url, response.content_type) == (FILE.url, "application/octet-stream")
        assert await client.get_last_modified(FILE) == 1_700_000_000_123
        hdfs.files["/f"].modified = 0
        assert await client.get_last_modified(FILE) == -1
        hdfs.put("/empty", b"")
        empty = SourceRequest("hdfs://c/empty")
        assert await read(await client.download(empty)) == b""
        with pytest.raises(RangeNotSatisfiable) as caught:
            await client.download(SourceRequest(empty.url, range=(0, None)))
        assert caught.value.total == 0
        assert repr(client) == "<WebHdfsSource for hdfs>"


async def test_expiry_by_time_where_no_etag_is_known() -> None:
    async with reading() as (_, client):
        assert not await client.is_expired(FILE, ExpireInfo("Tue, 14 Nov 2023 22:13:20 GMT"))
        assert await client.is_expired(FILE, ExpireInfo("Tue, 14 Nov 2023 22:13:21 GMT"))


@pytest.mark.parametrize("name", ["a b", "ä€", "x;y=1", "50%25", "a+b&c", "h#i?j", "\"q'", "[~!@$,]"])
async def test_names_go_over_the_wire_exactly(name: str) -> None:
    async with reading() as (hdfs, client):
        hdfs.put(f"/{name}/{name}", name.encode())
        url = f"hdfs://c/{quote(name, safe='')}/{quote(name, safe='')}"
        assert await read(await client.download(SourceRequest(url))) == name.encode()
        (folder,) = [e for e in await client.list(SourceRequest("hdfs://c/")) if e.is_folder]
        (file,) = await client.list(SourceRequest(folder.url))
        assert await read(await client.download(SourceRequest(file.url))) == name.encode()


async def test_an_old_server_lists_in_one_part() -> None:
    async with reading() as (hdfs, client):
        for name in "abcde":
            hdfs.put(f"/x/{name}", b"x")
        request = SourceRequest("hdfs://c/x")
        parted = await client.list(request)
        assert hdfs.ops() == ["LISTSTATUS_BATCH"] * 2
        hdfs.batches = False
        assert await client.list(request) == parted
        assert hdfs.ops()[2:] == ["LISTSTATUS_BATCH", "LISTSTATUS"]
        assert [e.size for e in parted] == [1] * 5


def listing(entries: str, remaining: int) -> Answer:
    part = f'{{"FileStatuses": {{"FileStatus": {entries}}}}}'
    return Answer(
        200,
        f'{{"DirectoryListing": {{"partialListing": {part}, "remainingEntries": {remaining}}}}}'.encode(),
    )


async def test_listings_that_cannot_be() -> None:
    async with reading() as (hdfs, client):
        request = SourceRequest("hdfs://c/x")
        hdfs.hook = lambda call: listing("[]", 9)
        with pytest.raises(SourceError, match="does not end"):
            await client.list(request)
        for name in ("../up", "", ".."):
            entry = json.dumps([{"type": "FILE", "pathSuffix": each} for each in ("ok", name)])
            hdfs.hook = lambda call, entry=entry: listing(entry, 0)  # type: ignore[misc]
            with pytest.raises(SourceError, match="no name"):
                await client.list(request)
        for wrong in (b"", b"{}", b'{"DirectoryListing": 7}', b"<html>", b"\xff"):
            hdfs.hook = lambda call, wrong=wrong: Answer(200, wrong)  # type: ignore[misc]
            with pytest.raises(SourceError, match="not WebHDFS"):
                await client.list(request)
            with pytest.raises(SourceError, match="not WebHDFS"):
                await client.download(FILE)


# --- name nodes -----------------------------------------------------------------------------------------


async def test_the_active_name_node_is_found_and_remembered() -> None:
    async with reading(3) as (hdfs, client):
        hdfs.standby = {"nn0", "nn1"}
        assert await client.get_content_length(FILE) == len(CONTENT)
        assert await client.get_content_length(FILE) == len(CONTENT)
        assert [call.node for call in hdfs.calls] == ["nn0", "nn1", "nn2", "nn2"]
        hdfs.standby, hdfs.dead = {"nn1"}, {"nn2"}
        assert await client.get_content_length(FILE) == len(CONTENT)
        # whether the dead one still hears it depends on when its end is noticed
        assert [call.node for call in hdfs.calls][4:] in (["nn2", "nn0"], ["nn0"])
        hdfs.standby = {"nn0", "nn1"}
        with pytest.raises(SourceCut, match="broke off"):
            await client.get_content_length(FILE)
        hdfs.dead = set()
        hdfs.standby.add("nn2")
        with pytest.raises(SourceError, match="no name node is active") as caught:
            await client.get_content_length(FILE)
        assert (caught.value.origin_status, caught.value.fault) == (503, "reader")


async def test_a_name_node_that_fails_over_in_mid_read() -> None:
    async with reading(2) as (hdfs, client):
        response = await client.download(FILE)
        hdfs.standby = {"nn0"}
        assert await read(response) == CONTENT


async def test_a_name_node_that_nobody_hears() -> None:
    async with source() as client:
        with pytest.raises(SourceError, match="cannot be reached") as caught:
            await client.download(SourceRequest("hdfs://127.0.0.1:8020/f"))
        assert caught.value.fault == "reader"
    async with source("webhdfs") as client:
        with pytest.raises(SourceError, match="denied") as caught:
            await client.download(SourceRequest("webhdfs://169.254.169.254/f"))
        assert caught.value.fault == "request"


async def test_a_name_node_that_stalls() -> None:
    async with reading(config=SourceConfig(header_timeout=0.05, idle_timeout=0.05)) as (hdfs, client):
        hdfs.cuts, hdfs.holding = {0: 1000}, True
        async with await client.download(FILE) as response:
            with pytest.raises(SourceError, match="gave no answer"):
                await read(response)
        hdfs.silent = {"nn0"}
        with pytest.raises(SourceError, match="did not answer"):
            await client.get_content_length(FILE)
        hdfs.silent, hdfs.halting = set(), True
        with pytest.raises(SourceError, match="did not end its answer within") as caught:
            await client.get_content_length(FILE)
        assert caught.value.fault == "reader"


async def test_another_name_node_is_asked_when_one_is_silent() -> None:
    async with reading(2, config=SourceConfig(header_timeout=0.05)) as (hdfs, client):
        hdfs.silent = {"nn0"}
        assert await client.get_content_length(FILE) == len(CONTENT)
        assert [call.node for call in hdfs.calls] == ["nn0", "nn1"]


async def test_what_is_refused() -> None:
    async with reading() as (hdfs, client):
        hdfs.put("/mine", b"x", readers=frozenset({"me"}))
        mine = SourceRequest("hdfs://c/mine")
        with pytest.raises(SourceError, match=r"user=dr\.who") as caught:
            await client.download(mine)
        assert (caught.value.origin_status, caught.value.fault) == (403, "reader")
        assert await client.get_content_length(mine) == 1, "what a file is may be known to all"
        me = SourceRequest(mine.url, {credential_header("user"): "me"})
        assert await read(await client.download(me)) == b"x"
        hdfs.hook = lambda call: refusal(403, "RetriableException", "safe mode")
        with pytest.raises(SourceError, match="safe mode") as caught:
            await client.download(FILE)
        assert caught.value.origin_status == 503
        hdfs.hook = None
        with pytest.raises(SourceError, match="is a folder") as caught:
            await client.download(SourceRequest("hdfs://c/"))
        assert (caught.value.origin_status, caught.value.fault) == (404, "request")


async def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="no option 'pot'"):
        async with source(pot="x"):
            pass


# --- credentials ----------------------------------------------------------------------------------------


def sent(call: Call) -> tuple[str | None, str | None, str | None]:
    return (
        call.parameters.get("delegation"),
        call.parameters.get("user.name"),
        call.headers.get("authorization"),
    )


async def test_tokens_go_where_they_belong_and_are_never_shown() -> None:
    async with reading(delegation_token="T0KEN/+=", authorization="Basic GATE") as (hdfs, client):
        hdfs.tokens = {"T0KEN/+=": "me", "0THER": "you"}
        assert await read(await client.download(FILE)) == CONTENT
        assert {call.node[:2]: sent(call) for call in hdfs.calls} == {
            "nn": ("T0KEN/+=", None, "Basic GATE"),
            "dn": ("T0KEN/+=", None, None),
        }
        hdfs.calls.clear()
        headers = {
            credential_header("delegation_token"): "0THER",
            "Authorization": "Basic MINE",
            "User-Agent": "x",
        }
        assert await read(await client.download(SourceRequest(FILE.url, headers))) == CONTENT
        assert {call.node[:2]: sent(call) for call in hdfs.calls} == {
            "nn": ("0THER", None, "Basic MINE"),
            "dn": ("0THER", None, None),
        }
        assert all(not name.startswith("x-dragonet") for call in hdfs.calls for name in call.headers)
        hdfs.tokens = {"NEW": "me"}
        with pytest.raises(SourceError, match="expired") as caught:
            await client.download(FILE)
        assert "T0KEN" not in str(caught.value)
        elsewhere = SourceRequest(f"hdfs://{hdfs.addresses['nn0'].partition(':')[0]}/f")
        with pytest.raises(SourceError) as caught:
            await client.download(elsewhere)
        assert "T0KEN" not in str(caught.value)


async def test_failures_at_a_data_node_do_not_show_the_token() -> None:
    async with reading(delegation_token="T0KEN") as (hdfs, client):
        hdfs.tokens = {"T0KEN": "me"}
        hdfs.dead = {"dn0", "dn1"}
        with pytest.raises(SourceCut) as caught:
            await client.download(FILE)
        assert "T0KEN" not in str(caught.value)
        assert "delegation=***" in str(caught.value)


async def test_the_environment_of_a_host() -> None:
    async with serving_hdfs() as hdfs:
        hdfs.put("/f", CONTENT)
        environ = {"HADOOP_USER_NAME": "env", "HDFS_DELEGATION_TOKEN": "T"}
        async with source("webhdfs", environ) as client:
            await client.get_content_length(SourceRequest(f"webhdfs://{hdfs.addresses['nn0']}/f"))
        async with source("webhdfs", environ, namenodes=hdfs.addresses["nn0"]) as client:
            await client.get_content_length(SourceRequest(f"webhdfs://{hdfs.addresses['nn0']}/f"))
        assert [sent(call)[:2] for call in hdfs.calls] == [(None, "env"), ("T", None)]


async def test_by_tls() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with serving_hdfs(tls=tls) as hdfs, HttpClient(ca_file=CERTIFICATE) as http:
        hdfs.put("/f", CONTENT)
        hdfs.tokens = {"T0KEN": "me"}
        context = SourceContext("swebhdfs", http, SourcePolicy(()), CONFIG, {}, {})
        client = open_source(context)
        headers = {credential_header("delegation_token"): "T0KEN"}
        request = SourceRequest(f"swebhdfs://{hdfs.addresses['nn0']}/f", headers)
        assert await client.get_content_length(request) == len(CONTENT)
        with pytest.raises(SourceError, match="from https to http"):
            await client.download(request)
        assert hdfs.ops("dn") == [], "a token never goes over the wire as it is where TLS was asked for"
        hdfs.direct = True
        assert await read(await client.download(request)) == CONTENT


# --- data nodes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("excluding", [True, False])
async def test_a_dead_data_node_is_named_to_the_name_node(*, excluding: bool) -> None:
    async with reading() as (hdfs, client):
        hdfs.dead, hdfs.excluding = {"dn0"}, excluding
        if excluding:
            assert await read(await client.download(FILE)) == CONTENT
            asked = [call.parameters.get("excludedatanodes") for call in hdfs.calls if call.op == "OPEN"][:2]
            dead = hdfs.addresses["dn0"]
            assert asked == [None, f"{dead},{dead.partition(':')[0]}"]
        else:
            with pytest.raises(SourceCut):
                await client.download(FILE)
            assert hdfs.ops("nn") == ["GETFILESTATUS", *["OPEN"] * 4] * 3


async def test_a_data_node_without_the_block_is_passed_over() -> None:
    async with reading() as (hdfs, client):
        lost = refusal(403, "BlockMissingException", "Could not obtain block")
        hdfs.hook = lambda call: lost if call.node == "dn0" else None
        assert await read(await client.download(FILE)) == CONTENT
        hdfs.hook = lambda call: lost if call.node.startswith("dn") else None
        with pytest.raises(SourceError, match="Could not obtain block") as caught:
            await client.download(FILE)
        assert caught.value.origin_status == 503


@pytest.mark.parametrize("ignored", [{"length"}, {"offset", "length"}], ids=len)
@pytest.mark.parametrize("chunked", [True, False])
async def test_ranges_that_are_ignored_are_noticed(ignored: set[str], *, chunked: bool) -> None:
    async with reading() as (hdfs, client):
        hdfs.ignored, hdfs.chunked = ignored, chunked
        with pytest.raises(SourceError, match="did not send the bytes"):
            await read(await client.download(SourceRequest(FILE.url, range=(100, 200))))


async def test_what_is_encoded_is_refused() -> None:
    async with reading() as (hdfs, client):
        hdfs.data_headers = {"Content-Encoding": "gzip"}
        with pytest.raises(SourceError, match="encoding"):
            await client.download(FILE)


async def test_redirects_that_are_not_followed() -> None:
    async with reading() as (hdfs, client):
        for location, words in (
            ("file:///etc/passwd", "file://"),
            ("http://169.254.169.254/latest", "denied"),
            (f"http://{hdfs.addresses['nn0']}/webhdfs/v1/f?op=OPEN", "redirects more than 10 times"),
        ):
            there = Answer(307, b"", {"Location": location})
            hdfs.hook = lambda call, there=there: there if call.op == "OPEN" else None  # type: ignore[misc]
            with pytest.raises(SourceError, match=words):
                await client.download(FILE)


# --- versions -------------------------------------------------------------------------------------------


async def test_bytes_are_given_only_after_the_file_is_seen_to_be_the_same() -> None:
    async with reading() as (hdfs, client):
        response = await client.download(FILE)
        async with response:
            buffer = memoryview(bytearray(10_000))
            assert await response.receive_into(buffer) == 10_000
            assert hdfs.ops("nn") == ["GETFILESTATUS", "OPEN", "GETFILESTATUS"]
            for _ in range(20):
                assert await response.receive_into(buffer) == 10_000
            assert hdfs.ops("nn")[3:] == [], "small buffers are filled from what is checked already"
            hdfs.put("/f", CONTENT[:100_000] + OTHER)
            with pytest.raises(SourceCut, match="changed"):
                await read(response)


async def test_a_file_that_changes_before_its_first_byte() -> None:
    async with reading() as (hdfs, client):
        changes = [OTHER]

        def change(call: Call) -> None:
            if call.node.startswith("dn") and changes:
                hdfs.put("/f", changes.pop())

        hdfs.hook = change
        response = await client.download(FILE)
        assert await read(response) == OTHER, "its length gave it away, and it was looked at again"
        changes += [OTHER[:9], OTHER[:99], OTHER[:999]]
        with pytest.raises(SourceCut, match="changed"):
            await client.download(FILE)


async def test_a_cut_gives_what_came_before_it() -> None:
    async with reading() as (hdfs, client):
        hdfs.cuts = {0: 120_000, 1: 5}
        async with await client.download(FILE) as response:
            buffer = memoryview(bytearray(1_000_000))
            assert await response.receive_into(buffer) == 120_000
            assert buffer[:120_000] == CONTENT[:120_000]
            for _ in range(2):
                with pytest.raises(SourceCut, match="broke off"):
                    await response.receive_into(buffer)
        response = await client.download(FILE)
        await response.aclose()
        with pytest.raises(SourceCut, match="closed"):
            await response.receive_into(buffer)
