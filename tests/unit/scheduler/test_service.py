"""The shell: routes, streams, the clock. Requests are made without connections, time is virtual."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from trio.testing import MockClock

from scheduler.config import SchedulerConfig
from scheduler.hub import Hub, as_frame, as_line
from scheduler.service import SchedulerService
from shared.errors import DragonetError, InvalidRequest, TaskNotFound
from shared.http.frames import FrameDecoder
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.protocol import (
    Assignment,
    Beat,
    Failure,
    HostLease,
    ParentsAssigned,
    PeerRegistered,
    Report,
    Reports,
    SourceFailed,
    SourceGranted,
    TaskFailed,
    Welcome,
    decode_assignment,
    decode_lease_granted,
    decode_reports_taken,
    encode,
)
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import SPEC


class Fixture:
    """A running service and ways to call it."""

    def __init__(self, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.service = SchedulerService(SchedulerConfig(**settings), self.registry, name="here")
        self.router = Router()
        self.service.routes(self.router)

    async def call(
        self, method: str, path: str, body: bytes = b"", *, peer: str = "10.0.0.7:5000", **headers: str
    ) -> Response:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.router(Request.make(method, path, named, body, peer=peer))

    async def renew(self, host: str, **fields: Any) -> bool:
        lease = HostLease(
            host,
            fields.pop("instance", "1"),
            fields.pop("role", "peer"),
            fields.pop("address", f"{host}:1"),
            **fields,
        )
        answer = await self.call("PUT", f"/v1/hosts/{host}", encode(lease))
        assert isinstance(answer.body, bytes)
        return decode_lease_granted(answer.body).known

    async def report(self, host: str, *reports: Report, instance: str = "1") -> bool:
        answer = await self.call(
            "POST", f"/v1/hosts/{host}/reports", encode(Reports(instance, list(reports)))
        )
        assert isinstance(answer.body, bytes)
        return decode_reports_taken(answer.body).known

    async def stream(self, host: str, **headers: str) -> Stream:
        return Stream(await self.call("GET", f"/v1/hosts/{host}/assignments", **headers))

    async def json(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.content_type == "application/json"
        assert isinstance(answer.body, bytes)
        return msgspec.json.decode(answer.body)


class Stream:
    """An assignment stream, read message by message."""

    def __init__(self, response: Response) -> None:
        self.response = response
        assert not isinstance(response.body, bytes)
        self.body: AsyncIterator[bytes] = response.body  # type: ignore[assignment]
        self._frames = FrameDecoder()
        self._ready: list[Assignment] = []

    async def next(self) -> Assignment:
        while not self._ready:
            chunk = await anext(self.body)
            self._ready += [decode_assignment(payload) for payload in self._frames.feed(chunk)]
        return self._ready.pop(0)

    async def rest(self) -> int:
        """Read to the end; the number of messages."""
        count = 0
        async for chunk in self.body:
            count += len(self._frames.feed(chunk))
        return count

    async def until(self, kind: type[Any]) -> Any:
        with trio.fail_after(60):
            while not isinstance(message := await self.next(), kind):
                pass
        return message

    def close(self) -> None:
        """What the server does when the client hangs up."""
        self.response.finish()


@pytest.fixture
async def running(nursery: trio.Nursery) -> Fixture:
    fixture = Fixture()
    await nursery.start(fixture.service.run)
    return fixture


async def test_leases_over_http(running: Fixture) -> None:
    assert not await running.renew("a")
    assert await running.renew("a")
    answer = await running.call("DELETE", "/v1/hosts/a")
    assert answer.status == 204
    assert (await running.call("DELETE", "/v1/hosts/a")).status == 204
    assert not await running.renew("a")


async def test_a_lease_in_json(running: Fixture) -> None:
    lease = msgspec.json.encode(HostLease("a", "1", "peer", "a:1"))
    answer = await running.call(
        "PUT", "/v1/hosts/a", lease, content_type="application/json", accept="application/json"
    )
    assert isinstance(answer.body, bytes)
    assert msgspec.json.decode(answer.body) == {
        "type": "lease_granted",
        "scheduler": "here",
        "ttl": 10.0,
        "known": False,
        "version": 1,
        "secret": b64encode(running.service.state.cluster.secret).decode(),
        "secret_since": running.service.state.cluster.secret_since,
        "beat": 5.0,
    }


async def test_a_wildcard_address_becomes_where_the_request_came_from(running: Fixture) -> None:
    await running.renew("a", address="0.0.0.0:65002")
    assert (await running.json("/v1/hosts"))["hosts"][0]["address"] == "10.0.0.7:65002"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa4type\xa5lease", b"\x91" * 5000, b"[" * 5000])
async def test_garbage_is_refused_in_words(running: Fixture, body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a valid HostLease"):
        await running.call("PUT", "/v1/hosts/a", body)
    with pytest.raises(InvalidRequest, match="not a valid Reports"):
        await running.call("POST", "/v1/hosts/a/reports", body, content_type="application/json")


async def test_another_protocol_version_is_refused(running: Fixture) -> None:
    with pytest.raises(InvalidRequest, match="protocol 9"):
        await running.renew("a", version=9)
    strange = msgspec.msgpack.encode({"type": "reports", "version": 9, "items": [{"type": "unheard of"}]})
    with pytest.raises(InvalidRequest, match="protocol 9"):
        await running.call("POST", "/v1/hosts/a/reports", strange)


async def test_the_path_and_the_lease_must_agree(running: Fixture) -> None:
    with pytest.raises(InvalidRequest, match="the path names"):
        await running.call("PUT", "/v1/hosts/b", encode(HostLease("a", "1", "peer", "a:1")))


async def test_reports_without_a_lease_are_not_taken(running: Fixture) -> None:
    assert not await running.report("a", PeerRegistered(SPEC.task_id, SPEC))
    await running.renew("a")
    assert not await running.report("a", instance="other")
    assert await running.report("a")


async def test_assignments_without_a_lease_are_refused(running: Fixture) -> None:
    with pytest.raises(DragonetError) as caught:
        await running.stream("a")
    assert caught.value.status == 404
    await running.renew("a")
    with pytest.raises(DragonetError):
        await running.call("GET", "/v1/hosts/a/assignments?instance=2")
    head = await running.call("HEAD", "/v1/hosts/a/assignments")
    assert head.body == b""


async def test_decisions_reach_the_host(running: Fixture) -> None:
    await running.renew("a")
    await running.renew("s", role="seeder")
    seeder = await running.stream("s")
    assert await seeder.next() == Welcome("here")
    await running.stream("a")
    await running.report("a", PeerRegistered(SPEC.task_id, SPEC))
    granted = await seeder.until(SourceGranted)
    assert granted.spec == SPEC


async def test_a_silent_stream_beats(running: Fixture, autojump_clock: MockClock) -> None:
    await running.renew("a")
    stream = await running.stream("a")
    await stream.next()
    before = trio.current_time()
    assert await stream.next() == Beat()
    assert trio.current_time() - before == pytest.approx(5.0)
    stream.close()


async def test_a_second_stream_ends_the_first(running: Fixture) -> None:
    await running.renew("a")
    first = await running.stream("a")
    second = await running.stream("a")
    await first.next()
    with pytest.raises(StopAsyncIteration):
        await first.next()
    first.close()
    assert running.service.state.cluster.present("a").stream is not None  # type: ignore[union-attr]
    second.close()
    assert running.service.state.cluster.present("a").stream is None  # type: ignore[union-attr]


async def test_time_alone_expires_leases_and_ends_their_streams(
    running: Fixture, autojump_clock: MockClock
) -> None:
    await running.renew("a")
    stream = await running.stream("a")
    await trio.sleep(10.5)
    assert not running.service.state.knows("a")
    await stream.next()
    with pytest.raises(StopAsyncIteration):
        await stream.next()


async def test_time_in_which_the_process_stood_still_does_not_count(
    running: Fixture, mock_clock: MockClock
) -> None:
    await running.renew("a")
    await running.stream("a")
    for _ in range(8):
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1.0)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(3600.0)  # stopped, and woken up
    await trio.testing.wait_all_tasks_blocked()
    assert running.service.state.knows("a"), "its renewal lies in a socket"
    for _ in range(4):
        mock_clock.jump(1.0)
        await trio.testing.wait_all_tasks_blocked()
    assert not running.service.state.knows("a"), "the time that it was awake does count"


async def test_a_broken_stream_is_noticed_in_time(running: Fixture, autojump_clock: MockClock) -> None:
    await running.renew("s1", role="seeder")
    await running.renew("a")
    one, child = await running.stream("s1"), await running.stream("a")
    await running.report("a", PeerRegistered(SPEC.task_id, SPEC, may_read=False))
    await one.until(SourceGranted)
    await running.renew("s2", role="seeder")
    two = await running.stream("s2")
    one.close()
    before = trio.current_time()
    await two.until(SourceGranted)
    assert trio.current_time() - before == pytest.approx(2.0)
    child.close()


async def test_a_new_instance_ends_the_old_ones_stream(running: Fixture) -> None:
    await running.renew("a")
    stream = await running.stream("a")
    await running.renew("a", instance="2")
    await stream.next()
    with pytest.raises(StopAsyncIteration):
        await stream.next()


async def test_a_host_that_does_not_read_loses_its_stream_and_hears_all_on_the_next(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    fixture = Fixture(stream_queue=16)
    await nursery.start(fixture.service.run)
    await fixture.renew("a")
    slow = await fixture.stream("a")
    specs = [TaskSpec(url=f"https://origin.test/{n}") for n in range(20)]
    await fixture.report("a", *(PeerRegistered(s.task_id, s, cluster_only=True) for s in specs))
    assert await slow.rest() <= 17
    assert b"dragonet_scheduler_stream_overflows_total 1.0" in generate_latest(fixture.registry)
    slow.close()
    again = await fixture.stream("a")
    await again.next()
    await fixture.report("a", PeerRegistered(SPEC.task_id, SPEC, cluster_only=True))
    assert (await again.until(TaskFailed)).failure.fault == "request"


async def test_a_stream_for_people_is_lines_of_json(running: Fixture) -> None:
    await running.renew("a")
    answer = await running.call("GET", "/v1/hosts/a/assignments", accept="application/json")
    body: Any = answer.body
    line = await anext(body)
    assert line.endswith(b"\n")
    assert msgspec.json.decode(line) == {"type": "welcome", "scheduler": "here", "version": 1}
    answer.finish()


async def test_listings_show_no_secrets(running: Fixture) -> None:
    spec = TaskSpec(
        url="https://origin.test/x?token=hush", scope="deadbeef" * 4, headers={"user-agent": "hidden"}
    )
    await running.renew("a")
    stream = await running.stream("a")
    await running.report("a", PeerRegistered(spec.task_id, spec))
    listing = await running.json("/v1/tasks")
    detail = await running.json(f"/v1/tasks/{spec.task_id}")
    assert listing["total"] == 1
    (listed,) = listing["tasks"]
    assert (listed["url"], listed["private"]) == ("https://origin.test", True)
    assert spec.task_id.startswith(listed["task_id"])
    assert len(listed["task_id"]) == 12
    assert detail["url"] == "https://origin.test/x?token=***"
    assert detail["private"] is True
    assert detail["readers"] == ["a"]
    assert detail["peers"][0]["state"] == "waiting"
    shown = str(listing) + str(detail) + str(await running.json("/v1/hosts"))
    for secret in ("hush", "deadbeef", "hidden", spec.task_id):
        assert secret not in shown
    assert (await running.json("/v1/tasks?limit=0"))["tasks"] == []
    with pytest.raises(InvalidRequest):
        await running.json("/v1/tasks?limit=many")
    with pytest.raises(TaskNotFound):
        await running.json("/v1/tasks/none")
    stream.close()


async def test_a_private_failure_is_not_listed_in_words(running: Fixture) -> None:
    secret = TaskSpec(url="https://user@origin.test/group/name@sha256:12", scope="ab" * 16)
    for spec in (secret, SPEC):
        await running.renew("a")
        stream = await running.stream("a")
        await running.report("a", PeerRegistered(spec.task_id, spec))
        grant = next(iter(running.service.state.cluster.tasks[spec.task_id].grants))
        await running.report("a", SourceFailed(spec.task_id, grant, Failure(f"no {spec.url}", 404)))
        stream.close()
    listed = {task["private"]: task for task in (await running.json("/v1/tasks"))["tasks"]}
    assert (listed[True]["failure"], listed[True]["failure_status"]) == (None, 404)
    assert listed[True]["url"] == "https://origin.test"
    assert listed[False]["failure"] == f"no {SPEC.url}"
    assert (await running.json(f"/v1/tasks/{secret.task_id}"))["failure"] == f"no {secret.url}"


async def test_metrics(running: Fixture) -> None:
    await running.renew("s", role="seeder")
    await running.renew("a")
    await running.stream("s")
    await running.report("a", PeerRegistered(SPEC.task_id, SPEC))
    text = generate_latest(running.registry).decode()
    for line in (
        'dragonet_scheduler_hosts{role="seeder"} 1.0',
        'dragonet_scheduler_hosts{role="peer"} 1.0',
        "dragonet_scheduler_tasks 1.0",
        "dragonet_scheduler_waiting_peers 1.0",
        "dragonet_scheduler_grants_active 1.0",
        "dragonet_scheduler_grants_total 1.0",
        "dragonet_scheduler_grants_taken_back_total 0.0",
        'dragonet_scheduler_reports_total{type="registered"} 1.0',
        "dragonet_scheduler_stream_overflows_total 0.0",
    ):
        assert line in text
    assert "dragonet_scheduler_decision_seconds_count" in text


async def test_stopping_ends_all_streams(autojump_clock: MockClock) -> None:
    fixture = Fixture()
    async with trio.open_nursery() as nursery:
        await nursery.start(fixture.service.run)
        await fixture.renew("a")
        stream = await fixture.stream("a")
        nursery.cancel_scope.cancel()
    await stream.next()
    with pytest.raises(StopAsyncIteration):
        await stream.next()


async def test_a_message_for_many_is_encoded_once() -> None:
    encoded = []

    def counting(assignment: Assignment) -> bytes:
        encoded.append(assignment)
        return as_frame(assignment)

    hub = Hub(limit=16)
    streams = [hub.open(f"h{n}", counting) for n in range(5)]
    message = ParentsAssigned(SPEC.task_id, [])
    assert hub.send([(f"h{n}", message) for n in range(6)]) == []
    assert len(encoded) == 1
    for stream in streams:
        assert await stream.take() == as_frame(message)
    assert as_line(Beat()) == b'{"type":"beat"}\n'
    hub.close_all()
    assert len(hub) == 0
    assert await streams[0].take() is None
