"""Many readers of one content, those who leave, and those behind a server."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import h11
import msgspec
import pytest
import trio
import trio.testing

from shared.errors import (
    SourceError,
    Unavailable,
)
from shared.http.messages import Handler, Request, Response
from shared.protocol import PeerLeft, PeerRegistered
from shared.swarm.fetch import FetchOrder, fetch
from tests.unit.shared.http.wires import exchange, parse, serving
from tests.unit.shared.swarm.fakes import (
    PIECE,
    SPEC,
    FakeParent,
    answer,
    sample,
)
from tests.unit.shared.swarm.readers import (
    KNOWN,
    LENGTH,
    assign_soon,
    begin,
    collect,
    fails_after,
    first,
    lies,
    read,
)
from tests.unit.shared.swarm.worlds import OF, Clock, World, new_world

# --- many readers, and those who leave ------------------------------------------------------------------------


async def test_many_readers_share_one_download(autojump_clock: Clock, world: World) -> None:
    world.linked()
    parent = world.lan.add("p", FakeParent(OF))
    results: list[bytes] = []

    async def one(start: int) -> None:
        results.append(await collect(await begin(world), start))

    async with trio.open_nursery() as nursery:
        for start in range(8):
            nursery.start_soon(one, start)
        nursery.start_soon(fetch, world.host, FetchOrder(KNOWN))
        await assign_soon(world)
    assert sorted(results) == sorted(OF.data[start:] for start in range(8))
    assert len(world.link.of(PeerRegistered)) == 1
    assert sorted(parent.asked) == list(range(OF.count))
    assert not world.origin.jobs


async def test_what_one_leaves_is_brought_for_the_other(autojump_clock: Clock, world: World) -> None:
    world.linked()
    parent = world.lan.add("p", FakeParent(OF))
    parent.held = first(4)
    world.nursery.start_soon(assign_soon, world)
    one = await begin(world)
    other = await begin(world)
    await anext(one.body(0, LENGTH))
    await one.aclose()
    await one.aclose()
    parent.gain(*range(OF.count))
    assert await collect(other) == OF.data
    assert len(world.link.of(PeerRegistered)) == 1
    assert world.result("cancelled") == 1


async def test_the_last_one_ends_the_download(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.nursery.start_soon(assign_soon, world)
    reading = await begin(world)
    body = reading.body(0, LENGTH)
    await anext(body)
    await body.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert KNOWN.task_id not in world.host.sessions
    assert len(world.link.of(PeerLeft)) == 1


async def test_a_body_that_is_never_begun_can_be_closed(autojump_clock: Clock, world: World) -> None:
    await (await begin(world)).body(0, LENGTH).aclose()
    assert KNOWN.task_id not in world.host.sessions


@pytest.mark.parametrize("moment", range(1, 120, 2))
async def test_leaving_at_any_moment_leaves_nothing(autojump_clock: Clock, world: World, moment: int) -> None:
    world.store.damaged = {2}
    fails_after(world, 3, 2)
    with trio.CancelScope() as scope:

        @world.nursery.start_soon
        async def canceller() -> None:
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        with suppress(SourceError):  # it broke off before the first byte was given
            await read(world)
    assert KNOWN.task_id not in world.host.sessions
    await trio.testing.wait_all_tasks_blocked()
    task = world.host.tasks.active(KNOWN.task_id)
    assert task is None or (task.users, task.fetches) == (0, 0)
    world.origin.script = world.origin.give
    assert await read(world) == OF.data


@pytest.mark.parametrize("pieces", range(OF.count))
async def test_leaving_after_any_piece_leaves_nothing(
    autojump_clock: Clock, world: World, pieces: int
) -> None:
    reading = await begin(world)
    body = reading.body(0, LENGTH)
    for _ in range(pieces):
        await anext(body)
    task = world.host.tasks.active(KNOWN.task_id)
    assert task is not None
    assert len(task.cursors) == 1
    await body.aclose()
    assert len(task.cursors) == 0
    assert KNOWN.task_id not in world.host.sessions


async def test_a_host_that_stops(autojump_clock: Clock) -> None:
    caught: list[BaseException] = []

    async def read_on(world: World) -> None:
        reading = await begin(world)
        try:
            await collect(reading)
        except Unavailable as error:
            caught.append(error)
        finally:
            await reading.aclose()

    async with new_world() as world:
        world.linked()
        world.lan.add("p", FakeParent(OF)).held = first(4)
        world.nursery.start_soon(assign_soon, world)
        world.nursery.start_soon(read_on, world)
        await trio.sleep(5)
        world.host.nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert "stopping" in str(caught[0])
        with pytest.raises(Unavailable, match="stopping"):
            await begin(world)
        await world.host.tasks.aclose()


# --- who waits is helped --------------------------------------------------------------------------------------


async def test_a_reader_far_into_the_content_gets_its_pieces_first(autojump_clock: Clock) -> None:
    of = sample(200)
    spec = msgspec.structs.replace(SPEC, digest="sha256:" + hashlib.sha256(of.data).hexdigest())
    async with new_world(of) as world:
        world.linked()
        parent = world.lan.add("p", FakeParent(of))

        async def slowly(number: int) -> bytes:
            await trio.sleep(0.5)
            return answer(200, of.piece(number), f"Dragonet-Version: {of.version}")

        parent.answer = slowly
        world.nursery.start_soon(assign_soon, world, spec, of)
        start = 150 * PIECE + 5
        reading = await begin(world, spec)
        assert await collect(reading, start, start + 3 * PIECE) == of.data[start : start + 3 * PIECE]
        assert len(parent.asked) < 40
        assert trio.current_time() < 20


# --- through the server ---------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def handler_of(world: World, *, chunked: bool = False) -> Handler:
    async def handler(request: Request) -> Response:
        reading = await begin(world)
        return Response(200, reading.body(0, LENGTH), length=None if chunked else LENGTH)

    return handler


@pytest.mark.parametrize("chunked", [True, False])
async def test_it_is_sent(autojump_clock: Clock, world: World, small_chunks: int, chunked: bool) -> None:
    handler = handler_of(world, chunked=chunked)
    answers = parse(await exchange(handler, GET + GET), "GET", "GET")
    assert [body for _, _, body in answers] == [OF.data] * 2
    (head,) = parse(await exchange(handler, GET.replace(b"GET", b"HEAD")), "HEAD")
    assert head[2] == b""


async def test_wrong_content_breaks_the_connection(
    autojump_clock: Clock, world: World, small_chunks: int
) -> None:
    lies(world)
    answered = await exchange(handler_of(world), GET)
    assert answered.startswith(b"HTTP/1.1 200 ")
    with pytest.raises(h11.RemoteProtocolError):
        parse(answered, "GET")


async def test_a_client_that_hangs_up_ends_the_download(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF)).held = first(4)
    world.nursery.start_soon(assign_soon, world)
    async with serving(handler_of(world)) as client:
        await client.send_all(GET)
        received = b""
        while len(received) < 4 * PIECE:
            received += await client.receive_some()
        await client.aclose()
        await trio.sleep(5)
        assert KNOWN.task_id not in world.host.sessions
