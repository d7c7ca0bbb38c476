"""What a read does with every kind of origin: each test is an origin that behaves in one way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest
import trio

from shared.errors import SourceError, StoreFull
from shared.http.client import network
from shared.offline import is_offline
from shared.protocol import TaskMeta
from tests.unit.cdn.fakes import MIB, PIECE, Behaviour, MemorySink, job, random_bytes, reading, serving

LENGTHS = [1, 1000, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 17]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_one_request_brings_a_short_content(length: int, ranges: str) -> None:
    content = random_bytes(length)
    async with serving() as origin, reading() as (reader, registry):
        origin.behaviours["/file"] = Behaviour(content, ranges=ranges, headers={"Content-Type": "a/b"})
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert sink.final is not None
        assert (sink.final.length, sink.final.etag, sink.final.content_type) == (length, '"one"', "a/b")
        assert len(origin.seen) == 1
        assert sink.count == length
        assert registry.get_sample_value("dragonet_origin_reads_total") == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(b""),
        Behaviour(b"", empty_is_416=True),
        Behaviour(b"", etag=""),
        Behaviour(b"", framing="chunked"),
        Behaviour(b"", framing="close", etag=""),
        Behaviour(b"", etag="", empty_is_416=True),
    ],
)
async def test_empty_content(behaviour: Behaviour) -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = behaviour
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.final is not None
        assert sink.final.length == 0
        assert sink.metas
        assert not sink.pieces
        assert len(origin.seen) == 1


async def test_a_long_content_is_read_in_parallel_and_once() -> None:
    content = random_bytes(70 * MIB + 3)
    async with serving() as origin, reading(connections=3) as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert sink.count == len(content)
        assert [s.range for s in origin.seen[:1]] == [f"bytes=0-{16 * MIB - 1}"]
        assert 2 < len(origin.seen) <= 5  # fewer and longer ones where answers begin slowly
        assert {s.status for s in origin.seen} == {206}
        assert all(s.headers["if-range"] == '"one"' for s in origin.seen[1:])


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("etag", ['"x"', ""])
async def test_unknown_length(framing: str, etag: str) -> None:
    content = random_bytes(9 * MIB + 5)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges="ignore", framing=framing, etag=etag)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert sink.metas[0].length is None
        assert sink.final is not None
        assert sink.final.length == len(content)
        assert len(origin.seen) == 1


@pytest.mark.parametrize("ranges", ["shifted", "no header", "gzip", "no total", "wrong total", "longer"])
async def test_wrong_parts_are_not_believed(ranges: str) -> None:
    content = random_bytes(20 * MIB)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges=ranges)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert origin.seen[-1].range == ""


async def test_a_part_that_ends_early_is_resumed() -> None:
    content = random_bytes(3 * PIECE)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges="shorter")
        sink = MemorySink()
        with pytest.raises(SourceError, match="ended a part early"):
            await reader.read(job(origin.url()), sink)
        assert sorted(sink.pieces) == [0, 1]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
async def test_a_refusal_is_told_at_once(status: int) -> None:
    async with serving() as origin, reading() as (reader, registry):
        origin.behaviours["/file"] = Behaviour(status=status, headers={"Retry-After": "7"})
        with pytest.raises(SourceError, match=str(status)) as caught:
            await reader.read(job(origin.url()), MemorySink())
        assert (caught.value.origin_status, caught.value.fault) == (status, "origin")
        assert caught.value.retry_after == 7
        assert len(origin.seen) == 1
        label = f"{status // 100}xx"
        assert registry.get_sample_value("dragonet_origin_errors_total", {"status": label}) == 1


async def test_nobody_listens() -> None:
    async with reading() as (reader, _):
        with pytest.raises(SourceError, match="cannot be reached") as caught:
            await reader.read(job("http://127.0.0.1:1/file"), MemorySink())
        assert caught.value.fault == "reader"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("etag", ['"one"', ""])
@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_a_cut_body_is_completed(framing: str, etag: str, ranges: str) -> None:
    content = random_bytes(8 * PIECE)
    async with serving() as origin, reading() as (reader, _):
        cuts = {0: 3 * PIECE + 5, 1: 5 * PIECE + 1 if ranges == "ignore" or not etag else PIECE}
        origin.behaviours["/file"] = Behaviour(content, ranges=ranges, framing=framing, etag=etag, cuts=cuts)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert len(origin.seen) == 3
        assert len({meta.version for meta in sink.metas}) == 1
        if ranges == "honour" and etag:
            assert sink.count == len(content), "nothing is read twice where ranges work"


async def test_an_origin_that_always_cuts_is_given_up() -> None:
    content = random_bytes(2 * PIECE)
    async with serving() as origin, reading(retries=3) as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges="ignore", cuts=dict.fromkeys(range(50), 100))
        with pytest.raises(SourceError, match="broke off"):
            await reader.read(job(origin.url()), MemorySink())
        assert len(origin.seen) == 4


async def test_without_network_a_read_is_given_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may have one; who granted the read decides. What has come is kept."""
    content = random_bytes(4 * PIECE)

    async def unreachable(*_arguments: object) -> None:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    async with serving() as origin, reading() as (reader, registry):
        origin.behaviours["/file"] = Behaviour(content, cuts={0: 2 * PIECE + 5})
        sink = MemorySink()
        with monkeypatch.context() as patch:
            piece = sink.piece

            async def then_lose_the_network(number: int, data: memoryview) -> None:
                await piece(number, data)
                patch.setattr(network, "dial", unreachable)

            sink.piece = then_lose_the_network  # type: ignore[method-assign]
            with pytest.raises(SourceError) as caught:
                await reader.read(job(origin.url()), sink)
        assert is_offline(caught.value)
        assert caught.value.fault == "reader"
        assert len(sink.held()) == 2
        assert registry.get_sample_value("dragonet_origin_errors_total", {"status": "unreachable"}) == 1


@pytest.mark.parametrize("coded", [True, False])
async def test_gzip_is_decoded(coded: bool) -> None:
    content = b"dragonet " * 400_000
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges="ignore", gzipped=coded)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert sink.final is not None
        assert sink.final.length == len(content)
        assert origin.seen[0].headers["accept-encoding"] == "identity"


async def test_a_new_version_in_mid_read_begins_again() -> None:
    old, new = random_bytes(70 * MIB, 1), random_bytes(60 * MIB + 9, 2)
    async with serving() as origin, reading(connections=2) as (reader, _):
        origin.behaviours["/file"] = Behaviour(old)

        def change(seen: object) -> None:
            if len(origin.seen) == 3:
                origin.change(content=new, etag='"two"')

        origin.hook = change
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == new
        assert [meta.etag for meta in sink.metas] == ['"one"', '"two"']


@pytest.mark.parametrize("modified", ["Mon, 01 Jan 2024 00:00:00 GMT", ""])
async def test_a_new_version_is_seen_without_an_etag(modified: str) -> None:
    old, new = random_bytes(6 * PIECE, 1), random_bytes(6 * PIECE, 2)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(
            old,
            etag="",
            last_modified=modified,
            cuts={0: 3 * PIECE + 5},
            ranges="honour" if modified else "ignore",
        )

        def change(seen: object) -> None:
            if len(origin.seen) == 2:
                later = "Tue, 02 Jan 2024 00:00:00 GMT" if modified else ""
                origin.change(content=new, last_modified=later)

        origin.hook = change
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == new
        assert len({meta.version for meta in sink.metas}) == 2


async def test_a_content_that_never_rests_is_an_error() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin, reading(connections=1, restarts=2) as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        origin.hook = lambda seen: origin.change(etag=f'"{len(origin.seen)}"')
        with pytest.raises(SourceError, match="changed 3 times"):
            await reader.read(job(origin.url()), MemorySink())


async def test_only_missing_pieces_are_read_again() -> None:
    content = random_bytes(10 * PIECE + 3)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        first = MemorySink()
        await reader.read(job(origin.url()), first)
        sink = MemorySink()
        assert first.final is not None
        sink.hold(first.final, content, [0, 1, 4, 9])
        await reader.read(job(origin.url(), meta=first.final), sink)
        assert sink.content == content
        assert sorted(sink.written) == [2, 3, 5, 6, 7, 8, 10]
        assert sink.count == len(content) - 4 * PIECE
        assert origin.seen[1].range == f"bytes={2 * PIECE}-{4 * PIECE - 1}"
        assert origin.seen[1].headers["if-range"] == '"one"'


async def test_what_the_store_holds_unknown_to_the_cluster_is_not_stored_again() -> None:
    content = random_bytes(10 * PIECE)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        first = MemorySink()
        await reader.read(job(origin.url()), first)
        assert first.final is not None
        sink = MemorySink()
        sink.hold(first.final, content, [0, 1, 2, 7])
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
        assert sorted(sink.written) == [3, 4, 5, 6, 8, 9]


async def test_a_grant_for_some_pieces_reads_only_those() -> None:
    content = random_bytes(10 * PIECE)
    async with serving() as origin, reading() as (reader, _):
        for ranges in ("honour", "ignore"):
            origin.behaviours["/file"] = Behaviour(content, ranges=ranges)
            probe = MemorySink()
            await reader.read(job(origin.url()), probe)
            sink = MemorySink()
            await reader.read(job(origin.url(), meta=probe.final, pieces=((2, 2), (8, 5))), sink)
            assert sorted(sink.written) == [2, 3, 8, 9]
            assert sink.final == probe.final


async def test_nothing_missing_needs_no_request() -> None:
    async with serving() as origin, reading() as (reader, _):
        meta = TaskMeta(version="v", piece_length=PIECE, length=5, etag='"one"')
        sink = MemorySink()
        sink.hold(meta, b"hello", [0])
        await reader.read(job(origin.url(), meta=meta), sink)
        assert sink.final == meta
        assert not origin.seen


async def test_a_known_version_that_is_gone_is_replaced() -> None:
    content = random_bytes(6 * PIECE)
    for etag in ('"old"', 'W/"old"', ""):
        async with serving() as origin, reading() as (reader, _):
            origin.behaviours["/file"] = Behaviour(content)
            meta = TaskMeta(version="old", piece_length=PIECE, length=4 * PIECE, etag=etag)
            sink = MemorySink()
            sink.hold(meta, random_bytes(4 * PIECE, 9), [0, 1])
            await reader.read(job(origin.url(), meta=meta, pieces=((3, 1),)), sink)
            assert sink.content == content
            assert sink.meta.version != "old"


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
@pytest.mark.parametrize("etag", ['"one"', ""])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("5-9", 5, 9), (f"{PIECE}-{3 * PIECE}", PIECE, 3 * PIECE), ("10-99999999", 10, 4 * PIECE + 6)],
)
async def test_a_range_of_the_source(ranges: str, etag: str, asked: str, first: int, last: int) -> None:
    content = random_bytes(4 * PIECE + 7)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content, ranges=ranges, etag=etag)
        sink = MemorySink()
        await reader.read(job(origin.url(), asked), sink)
        assert sink.content == content[first : last + 1]
        assert sink.final is not None
        assert sink.final.length == last + 1 - first
        assert len(origin.seen) <= 2


async def test_a_long_range_of_the_source_is_read_in_spans() -> None:
    content = random_bytes(60 * MIB)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        sink = MemorySink()
        await reader.read(job(origin.url(), f"100-{55 * MIB}"), sink)
        assert sink.content == content[100 : 55 * MIB + 1]
        assert sink.count == len(sink.content)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(b"short"),
        Behaviour(b"short", ranges="ignore"),
        Behaviour(b""),
        Behaviour(b"", empty_is_416=True),
        Behaviour(b"short", ranges="ignore", framing="chunked"),
        Behaviour(b"hello worl", ranges="ignore", framing="chunked"),
    ],
)
async def test_a_range_beyond_the_end(behaviour: Behaviour) -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = behaviour
        with pytest.raises(SourceError, match="beyond the end") as caught:
            await reader.read(job(origin.url(), "10-20"), MemorySink())
        assert (caught.value.fault, caught.value.status, caught.value.origin_status) == ("request", 416, 416)


async def test_redirects_keep_credentials_at_home() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin, serving() as other, reading() as (reader, _):
        other.behaviours["/blob"] = Behaviour(content)
        origin.behaviours["/file"] = Behaviour(status=302, headers={"Location": "/moved"})
        origin.behaviours["/moved"] = Behaviour(status=307, headers={"Location": other.url("/blob")})
        sink = MemorySink()
        await reader.read(job(origin.url(), private_headers={"authorization": "secret"}), sink)
        assert sink.content == content
        assert [s.headers.get("authorization") for s in origin.seen] == ["secret", "secret"]
        assert all("authorization" not in s.headers for s in other.seen)
        assert len(origin.seen) == 2, "later ranges go straight to where the first was found"


async def test_endless_redirects() -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(status=302, headers={"Location": "/file"})
        with pytest.raises(SourceError, match="more than 10 times") as caught:
            await reader.read(job(origin.url()), MemorySink())
        assert caught.value.origin_status == 302
        assert len(origin.seen) == 11


async def test_redirects_and_names_do_not_lead_to_denied_addresses(tmp_path: Path) -> None:
    async with serving() as origin, reading(denied_addresses=("169.254.0.0/16",)) as (reader, _):
        origin.behaviours["/file"] = Behaviour(status=302, headers={"Location": "http://169.254.169.254/x"})
        origin.behaviours["/disk"] = Behaviour(status=302, headers={"Location": f"file://{tmp_path}/x"})
        with pytest.raises(SourceError, match="denied") as caught:
            await reader.read(job(origin.url()), MemorySink())
        assert caught.value.fault == "request"
        with pytest.raises(SourceError, match="not followed"):
            await reader.read(job(origin.url("/disk")), MemorySink())
    async with reading(denied_addresses=("127.0.0.0/8", "::1")) as (reader, _):
        with pytest.raises(SourceError, match="denied"):
            await reader.read(job("http://localhost:1/"), MemorySink())


async def test_a_silent_origin_is_given_up() -> None:
    async with trio.open_nursery() as nursery:

        async def silent(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
            await trio.sleep_forever()

        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        port = listeners[0].socket.getsockname()[1]
        async with reading(idle_timeout=0.05) as (reader, _):
            with pytest.raises(SourceError, match="no byte for"):
                await reader.read(job(f"http://127.0.0.1:{port}/"), MemorySink())
        nursery.cancel_scope.cancel()


async def test_a_full_store_ends_the_read() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)

        def full(number: int) -> None:
            if number == 3:
                raise StoreFull("no room")

        sink = MemorySink()
        sink.on_piece = full
        with pytest.raises(StoreFull):
            await reader.read(job(origin.url()), sink)
        assert 3 not in sink.pieces


async def test_cancellation_keeps_what_was_handed_over() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        sink = MemorySink()
        with trio.CancelScope() as scope:

            def stop(number: int) -> None:
                if number == 5:
                    scope.cancel()

            sink.on_piece = stop
            await reader.read(job(origin.url()), sink)
        assert scope.cancelled_caught
        assert sink.final is None
        assert all(data == content[n * PIECE : (n + 1) * PIECE] for n, data in sink.pieces.items())


async def test_busy_in_mid_read_lowers_the_number_of_connections() -> None:
    content = random_bytes(70 * MIB)
    async with serving() as origin, reading(connections=4) as (reader, _):
        good = Behaviour(content)
        origin.behaviours["/file"] = good

        def busy(seen: object) -> None:
            origin.behaviours["/file"] = Behaviour(status=503) if len(origin.seen) in (3, 4) else good

        origin.hook = busy
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content


async def test_unknown_and_forbidden_schemes(tmp_path: Path) -> None:
    async with reading() as (reader, _):
        assert reader.supports("http")
        assert not reader.supports("file")
        with pytest.raises(SourceError, match="cannot read ftp"):
            await reader.read(job("ftp://host/x"), MemorySink())
        with pytest.raises(SourceError, match="cannot read file"):
            await reader.read(job(f"file://{tmp_path}/x"), MemorySink())


async def test_schemes_that_are_not_allowed() -> None:
    async with reading(schemes=("http",)) as (reader, _):
        assert reader.schemes() == ("http",)
        assert not reader.supports("https")
        with pytest.raises(SourceError, match="https may not be read"):
            await reader.read(job("https://host/x"), MemorySink())


async def test_a_file(tmp_path: Path) -> None:
    content = random_bytes(40 * MIB + 1)
    (tmp_path / "my file").write_bytes(content)
    async with reading(file_roots=(tmp_path,)) as (reader, _):
        assert reader.supports("file")
        sink = MemorySink()
        await reader.read(job(f"file://{tmp_path}/my%20file"), sink)
        assert sink.content == content
        assert sink.final is not None
        assert msgspec.structs.replace(sink.final) == sink.meta


async def test_slow_but_alive_is_fine() -> None:
    async with trio.open_nursery() as nursery:

        async def dripping(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                await stream.send_all(b"x")
                await trio.lowlevel.checkpoint()

        listeners = await nursery.start(trio.serve_tcp, dripping, 0)
        port = listeners[0].socket.getsockname()[1]
        async with reading() as (reader, _):
            sink = MemorySink()
            await reader.read(job(f"http://127.0.0.1:{port}/"), sink)
        assert sink.content == b"x" * 20
        nursery.cancel_scope.cancel()


async def test_buffers_are_bounded() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin, reading(buffer_memory=2 * PIECE, connections=8) as (reader, _):
        origin.behaviours["/file"] = Behaviour(content)
        sink = MemorySink()
        await reader.read(job(origin.url()), sink)
        assert sink.content == content
