"""Serving pieces, from a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from shared.errors import InvalidRequest, ParentBusy, TaskNotFound
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.protocol import Availability, decode_availability
from shared.store import Store, StoreConfig
from shared.swarm.limits import TokenBucket, UploadSlots
from shared.swarm.tasks import MAX_IDLE, HostTasks
from shared.swarm.uploads import RECHECK, Uploads, VersionGone
from shared.task.bitmap import Bitmap
from tests.unit.shared.http.wires import exchange, parse
from tests.unit.shared.swarm.fakes import SPEC, MemoryStore, Reported, Sample, metrics, sample

OF = Sample(sample(33.3).data, piece_length=65536)


class Parent:
    def __init__(
        self, store: Store | MemoryStore, *, slots: int = 2, queue: int = 1, rate: float = 0
    ) -> None:
        self.metrics = metrics()
        self.tasks = HostTasks(cast(Store, store), Reported(), self.metrics, linger=5)
        self.slots = UploadSlots(slots, queue=queue)
        self.uploads = Uploads(self.tasks, self.slots, TokenBucket(rate), self.metrics)

    async def ask(self, number: object, *, task: str = SPEC.task_id, version: str = "v1") -> Response:
        request = Request.make(
            "GET", "/", [("Dragonet-Version", version)] if version else [], params={"task": task}
        )
        request.params["number"] = str(number)
        return await self.uploads.piece(request)

    async def listen(self, version: str = "v1") -> Response:
        request = Request.make("GET", "/", [("Dragonet-Version", version)], params={"task": SPEC.task_id})
        return await self.uploads.availability(request)

    @property
    def users(self) -> int:
        task = self.tasks.active(SPEC.task_id)
        return 0 if task is None else task.users

    def at_rest(self) -> None:
        assert self.slots.used == 0
        assert self.users == 0


@asynccontextmanager
async def parent_with(folder: Path, *numbers: int) -> AsyncIterator[Parent]:
    async with Store.open(folder, StoreConfig()) as store:
        if numbers:
            async with store.create(SPEC, OF.meta) as content:
                for number in numbers:
                    await content.put(number, OF.piece(number), expected=None)
        parent = Parent(store)
        async with aclosing(parent.tasks):
            yield parent
            parent.at_rest()


async def test_a_held_piece_is_given_under_a_slot(tmp_path: Path) -> None:
    async with parent_with(tmp_path, 0, 1) as parent:
        response = await parent.ask(1)
        assert response.status == 200
        assert bytes(cast(memoryview, response.body)) == OF.piece(1)
        assert ("Dragonet-Version", "v1") in response.headers
        assert (parent.slots.used, parent.users) == (1, 1)
        response.finish()
        response.finish()
        parent.at_rest()


async def test_a_piece_that_is_not_held(tmp_path: Path) -> None:
    async with parent_with(tmp_path, 1) as parent:
        assert (await parent.ask(0)).status == 404
        assert (await parent.ask(4_000_000)).status == 404


async def test_a_task_that_is_not_held(tmp_path: Path) -> None:
    async with parent_with(tmp_path) as parent:
        with pytest.raises(TaskNotFound):
            await parent.ask(0)
        with pytest.raises(TaskNotFound):
            await parent.listen()


async def test_another_version_is_refused(tmp_path: Path) -> None:
    async with parent_with(tmp_path, 0) as parent:
        for refused in (parent.ask, parent.listen):
            with pytest.raises(VersionGone) as caught:
                await (refused(0, version="v2") if refused == parent.ask else parent.listen("v2"))
            assert caught.value.status == 409
        (await parent.ask(0, version="")).finish()


@pytest.mark.parametrize("number", ["-1", "x", "", "1.0", "9" * 9, "²", "4194304"])
async def test_what_is_no_piece_number(tmp_path: Path, number: str) -> None:
    async with parent_with(tmp_path, 0) as parent:
        with pytest.raises(InvalidRequest):
            await parent.ask(number)


@pytest.mark.parametrize("task", ["", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
async def test_what_is_no_task_id(tmp_path: Path, task: str) -> None:
    async with parent_with(tmp_path, 0) as parent:
        with pytest.raises(InvalidRequest):
            await parent.ask(0, task=task)


async def test_without_a_slot_the_child_is_sent_elsewhere(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    parent = Parent(store)
    async with aclosing(parent.tasks):
        taken = [await parent.ask(0), await parent.ask(1)]
        with pytest.raises(ParentBusy) as caught:
            await parent.ask(1)
        assert caught.value.retry_after
        assert parent.metrics.refused._value.get() == 1
        assert (parent.slots.used, parent.users) == (2, 2)
        for response in taken:
            response.finish()
        parent.at_rest()


async def test_who_waits_for_a_slot_and_goes_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    parent = Parent(store, slots=1)
    async with aclosing(parent.tasks):
        taken = await parent.ask(0)
        with trio.move_on_after(0.1):
            await parent.ask(1)
        assert (parent.slots.used, parent.users) == (1, 1)
        taken.finish()
        parent.at_rest()


async def test_a_content_replaced_while_a_slot_was_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    parent = Parent(store, slots=1)
    async with aclosing(parent.tasks):
        taken = await parent.ask(0)
        statuses: list[int] = []

        async def wait() -> None:
            statuses.append((await parent.ask(1)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            task = parent.tasks.active(SPEC.task_id)
            assert task is not None
            await task.adopt(sample(2, version="v2").meta)
            taken.finish()
        assert statuses == [404]
        parent.at_rest()


async def test_a_damaged_piece_is_not_held(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    store.damaged = {1}
    parent = Parent(store)
    async with aclosing(parent.tasks):
        assert (await parent.ask(1)).status == 404
        parent.at_rest()


async def test_who_goes_while_the_rate_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    parent = Parent(store, rate=1000)
    async with aclosing(parent.tasks):
        (await parent.ask(0)).finish()
        with trio.move_on_after(1) as scope:
            await parent.ask(1)
        assert scope.cancelled_caught
        parent.at_rest()


async def test_an_availability_stream_keeps_the_task_open(tmp_path: Path) -> None:
    async with parent_with(tmp_path, 0, 2) as parent:
        response = await parent.listen()
        body = cast(AsyncIterator[bytes], response.body)
        first = await anext(body)
        assert decode_availability(first[4:]) == Availability("v1", Bitmap([0, 2]).to_bytes())
        assert parent.users == 1
        await parent.tasks.close_idle(0)
        assert parent.tasks.active(SPEC.task_id) is not None
        await body.aclose()  # type: ignore[attr-defined]
        response.finish()
        await parent.tasks.close_idle(0)
        assert parent.tasks.active(SPEC.task_id) is None


async def test_over_the_server(tmp_path: Path) -> None:
    async with parent_with(tmp_path, 0) as parent:
        router = Router()
        parent.uploads.add_routes(router)
        path = f"/v1/tasks/{SPEC.task_id}"
        data = b"".join(
            f"GET {path}/pieces/{what} HTTP/1.1\r\nHost: h\r\nDragonet-Version: {version}\r\n\r\n".encode()
            for what, version in ((0, "v1"), (1, "v1"), (0, "v2"), ("x", "v1"))
        )
        answers = parse(await exchange(router, data), "GET", "GET", "GET", "GET")
        assert [status for status, _, _ in answers] == [200, 404, 409, 400]
        assert answers[0][2] == OF.piece(0)


async def test_what_not_everybody_may_have_is_given_to_who_shows_its_key(tmp_path: Path) -> None:
    """Without it nothing is told, not even that it is held."""
    spec = replace(SPEC, scope="5c0be5")
    async with Store.open(tmp_path, StoreConfig()) as store:
        async with store.create(spec, OF.meta) as content:
            await content.put(0, OF.piece(0), expected=None)
        parent = Parent(store)
        router = Router()
        parent.uploads.add_routes(router)
        public, other = SPEC.piece_key, replace(SPEC, scope="07be4").piece_key
        shown = ["", "Dragonet-Key: \r\n", "Dragonet-Key: \xe4\r\n"]
        shown += [f"Dragonet-Key: {key}\r\n" for key in (public, other, spec.scope, spec.task_id)]
        async with aclosing(parent.tasks):
            for task, keys, expected in (
                (spec.task_id, shown, 404),
                (spec.task_id, [f"Dragonet-Key: {spec.piece_key}\r\n"], 200),
                ("0" * 64, shown, 404),
            ):
                for key in keys:
                    head = f"GET /v1/tasks/{task}/pieces/0 HTTP/1.1\r\nHost: h\r\n{key}\r\n".encode("latin-1")
                    ((status, _, body),) = parse(await exchange(router, head), "GET")
                    assert status == expected
                    assert (body == OF.piece(0)) == (expected == 200)
            for key in ("", other):
                request = Request.make("GET", "/", [("Dragonet-Key", key)], params={"task": spec.task_id})
                with pytest.raises(TaskNotFound, match="holds nothing"):
                    await parent.uploads.availability(request)
            parent.at_rest()
            active = parent.tasks.active(spec.task_id)
            assert active is not None
            assert active.users == 0


async def test_over_the_server_without_a_slot(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    await store.hold(OF)
    parent = Parent(store)
    router = Router()
    parent.uploads.add_routes(router)
    data = (
        f"GET /v1/tasks/{SPEC.task_id}/pieces/1 HTTP/1.1\r\nHost: h\r\nDragonet-Version: v1\r\n\r\n".encode()
    )
    async with aclosing(parent.tasks):
        taken = [await parent.ask(0), await parent.ask(1)]
        ((status, headers, _),) = parse(await exchange(router, data), "GET")
        assert status == 503, "children take any other status for a broken parent"
        assert "retry-after" in {name.lower() for name in headers}
        for response in taken:
            response.finish()
        parent.at_rest()


async def test_idle_tasks_close_though_others_go_meanwhile(autojump_clock: trio.testing.MockClock) -> None:
    """Closing takes a moment, in which another idle task may be removed."""
    store = MemoryStore()
    tasks = HostTasks(cast(Store, store), Reported(), metrics(), linger=0)
    specs = [SPEC.__class__(f"https://origin.example/{n}") for n in range(5)]
    for spec in specs:
        async with tasks.wanted(spec, spec.task_id) as task:
            await task.adopt(OF.meta)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tasks.close_idle, 0)
        for spec in specs:
            nursery.start_soon(tasks.forget, spec.task_id)
    assert not list(tasks)
    assert store.opened == 0


async def test_few_idle_tasks_stay_open(autojump_clock: trio.testing.MockClock) -> None:
    """However fast new ones come: each takes files of the process. Those in use stay."""
    store = MemoryStore()
    tasks = HostTasks(cast(Store, store), Reported(), metrics(), linger=60)
    specs = [SPEC.__class__(f"https://origin.example/{n}") for n in range(MAX_IDLE + 20)]
    async with aclosing(tasks), tasks.wanted(specs[0], specs[0].task_id) as used:
        for spec in specs[1:]:
            async with tasks.wanted(spec, spec.task_id) as task:
                await task.adopt(OF.meta)
            await trio.sleep(0.01)
        assert len(list(tasks)) <= MAX_IDLE + 2
        assert not used.closed
        newest = tasks.active(specs[-1].task_id)
        assert newest is not None
        assert not newest.closed


async def test_a_closed_task_takes_nothing_more() -> None:
    store = MemoryStore()
    tasks = HostTasks(cast(Store, store), Reported(), metrics(), linger=0)
    async with tasks.wanted(SPEC, SPEC.task_id) as task:
        await task.adopt(OF.meta)
        await tasks.forget(SPEC.task_id)
        with pytest.raises(Exception, match="removed or replaced"):
            await task.adopt(OF.meta)
        with pytest.raises(Exception, match="removed or replaced"):
            await task.keep_from_origin("v1", 0, memoryview(OF.piece(0)))
    assert store.opened == 0


async def test_a_piece_that_changed_on_the_disk_is_found_out_after_a_while(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parent_with(tmp_path, 0, 1) as parent:
        (await parent.ask(1)).finish()
        path = tmp_path / "content" / f"{SPEC.task_id}.mdb"
        data = bytearray(path.read_bytes())
        data[data.find(OF.piece(1)[:64])] ^= 1
        with path.open("r+b") as file:
            file.write(data)
        await trio.sleep(RECHECK + 1)
        assert (await parent.ask(1)).status == 404
        response = await parent.ask(0)
        assert response.status == 200
        response.finish()
