"""HDFS read by the engine that reads sources for the swarm, from a server written from the specification."""

from __future__ import annotations

import pytest

from shared.errors import SourceError
from tests.unit.cdn.fakes import MIB, MemorySink, job, random_bytes, reading
from tests.unit.cdn.sources.webhdfs.server import Call, SpecHdfs, serving_hdfs

CONTENT = random_bytes(40 * MIB + 3)
URL = "hdfs://cluster/data/file"


def options(hdfs: SpecHdfs, **more: str) -> dict[str, dict[str, str]]:
    named = [address for node, address in hdfs.addresses.items() if node.startswith("nn")]
    return {"hdfs": {"namenodes": f"cluster={','.join(named)}", **more}}


def opened(hdfs: SpecHdfs) -> list[tuple[int, int]]:
    """The (offset, length) of what data nodes were asked for, in order of offset."""
    asked = [call.parameters for call in hdfs.calls if call.node.startswith("dn")]
    return sorted((int(each["offset"]), int(each["length"])) for each in asked)


async def test_a_long_file_is_read_in_parallel_and_once() -> None:
    async with serving_hdfs(2) as hdfs, reading(options=options(hdfs), connections=3) as (reader, registry):
        hdfs.put("/data/file", CONTENT)
        hdfs.standby = {"nn0"}
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == CONTENT
        assert sink.count == len(CONTENT)
        assert opened(hdfs) == [(0, 16 * MIB), (16 * MIB, 16 * MIB), (32 * MIB, 8 * MIB + 3)]
        assert sink.final is not None
        assert sink.final.etag
        assert sink.final.length == len(CONTENT)
        assert registry.get_sample_value("dragonet_origin_reads_total") == 3


async def test_a_part_of_a_file() -> None:
    async with serving_hdfs() as hdfs, reading(options=options(hdfs)) as (reader, _):
        hdfs.put("/data/file", CONTENT)
        sink = MemorySink()
        await reader.read(job(URL, f"{MIB}-{2 * MIB + 9}"), sink)
        assert sink.content == CONTENT[MIB : 2 * MIB + 10]


async def test_cuts_in_mid_body_are_resumed() -> None:
    async with serving_hdfs() as hdfs, reading(options=options(hdfs)) as (reader, _):
        hdfs.put("/data/file", CONTENT)
        hdfs.cuts = {0: 3 * MIB + 5, 1: 5 * MIB, 4: 7, 5: 0}
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == CONTENT
        assert sink.count == len(CONTENT), "nothing is read twice"
        assert len({meta.version for meta in sink.metas}) == 1


async def test_a_data_node_that_dies_in_mid_read() -> None:
    async with serving_hdfs() as hdfs, reading(options=options(hdfs)) as (reader, _):
        hdfs.put("/data/file", CONTENT)
        hdfs.cuts = {0: 3 * MIB}

        def die(call: Call) -> None:
            if hdfs.bodies == 1:
                hdfs.dead = {"dn0"}

        hdfs.hook = die
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == CONTENT
        assert {call.node for call in hdfs.calls if call.node != "nn0"} == {"dn0", "dn1"}


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_file_that_changes_between_ranges_is_begun_again(after: int) -> None:
    other = random_bytes(33 * MIB, seed=2)
    async with serving_hdfs() as hdfs, reading(options=options(hdfs), connections=1) as (reader, _):
        hdfs.put("/data/file", CONTENT)

        def change(call: Call) -> None:
            if hdfs.bodies == after and len(hdfs.files["/data/file"].content) == len(CONTENT):
                hdfs.put("/data/file", other)

        hdfs.hook = change
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == other
        assert len({meta.version for meta in sink.metas}) == 2


async def test_a_file_that_never_rests() -> None:
    async with serving_hdfs() as hdfs, reading(options=options(hdfs)) as (reader, _):
        hdfs.put("/data/file", CONTENT)
        sink = MemorySink()
        sink.on_piece = lambda number: hdfs.put("/data/file", random_bytes(30 * MIB, seed=len(hdfs.calls)))
        with pytest.raises(SourceError, match="changed 4 times"):
            await reader.read(job(URL), sink)


async def test_what_is_missing_is_said_in_words() -> None:
    async with serving_hdfs() as hdfs, reading(options=options(hdfs)) as (reader, _):
        with pytest.raises(SourceError, match=f"{URL} does not exist") as caught:
            await reader.read(job(URL), MemorySink())
        assert (caught.value.origin_status, caught.value.fault) == (404, "origin")
        assert hdfs.ops() == ["GETFILESTATUS"]
    async with reading(options={"hdfs": {"tls": "perhaps"}}) as (reader, _):
        with pytest.raises(SourceError, match="write true or false") as caught:
            await reader.read(job(URL), MemorySink())
        assert caught.value.fault == "reader"


async def test_tokens_stay_out_of_logs_and_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        serving_hdfs() as hdfs,
        reading(options=options(hdfs, delegation_token="T0KEN")) as (reader, _),
    ):
        hdfs.put("/data/file", CONTENT[: 9 * MIB])
        hdfs.tokens = {"T0KEN": "me"}
        hdfs.cuts = {0: 5}
        sink = MemorySink()
        await reader.read(job(URL), sink)
        assert sink.content == CONTENT[: 9 * MIB]
        said = capsys.readouterr()
        assert "source read is resumed" in said.out + said.err
        assert "T0KEN" not in said.out + said.err + repr(sink.metas)
