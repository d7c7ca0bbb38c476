"""The scheduler that a host embeds for the ring: its routes, who is heard of, who is forgotten, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs
from trio.testing import MockClock

from scheduler.config import SchedulerConfig, ring_config
from scheduler.errors import NO_SCHEDULER
from scheduler.service import MAX_TOLD, SchedulerService
from shared.errors import DragonetError, InvalidRequest
from shared.http.messages import Request, error_response
from shared.http.router import Router
from shared.protocol import (
    Beat,
    HostLease,
    PeerHolding,
    PeerRegistered,
    SourceGranted,
    Welcome,
    decode_lease_granted,
    encode,
)
from shared.task.bitmap import Bitmap
from tests.unit.scheduler.driver import SPEC, digests, meta
from tests.unit.scheduler.test_service import Fixture


@pytest.fixture
async def ring(nursery: trio.Nursery) -> Fixture:
    fixture = Fixture(lease=120.0, beat=1.2)
    await nursery.start(fixture.service.run)
    return fixture


async def lease(fixture: Fixture, host: str, *, peer: str, instance: str = "1", **fields: Any) -> int:
    """The status of a renewal from an address."""
    message = HostLease(host, instance, "peer", fields.pop("address", f"{host}:1"), **fields)
    try:
        return (await fixture.call("PUT", f"/v1/hosts/{host}", encode(message), peer=peer)).status
    except DragonetError as error:
        return error_response(error).status


async def test_the_control_routes_are_no_listings() -> None:
    service = SchedulerService(ring_config(SchedulerConfig()), CollectorRegistry(), name="here")
    router = Router()
    service.control_routes(router)

    async def status(method: str, path: str, body: bytes = b"") -> int:
        try:
            return (await router(Request.make(method, path, [], body, peer="10.0.0.1:1"))).status
        except DragonetError as error:
            return error.status

    assert await status("PUT", "/v1/hosts/a", encode(HostLease("a", "1", "peer", "a:1"))) == 200
    assert await status("HEAD", "/v1/hosts/a/assignments") == 200
    with pytest.raises(InvalidRequest):
        await router(Request.make("POST", "/v1/hosts/a/reports", [], b"", peer="10.0.0.1:1"))
    assert await status("DELETE", "/v1/hosts/a") == 204
    for path in ("/v1/hosts", "/v1/tasks", f"/v1/tasks/{SPEC.task_id}", "/v1/preheats", "/healthy"):
        assert await status("GET", path) == 404
    assert await status("POST", "/preheats") == 404


async def test_leases_are_told_of_with_the_address_where_the_host_is(ring: Fixture) -> None:
    told: list[HostLease] = []
    ring.service.on_lease.append(told.append)
    await lease(ring, "a", peer="10.0.0.1:5000", address="*:65002")
    await lease(ring, "a", peer="[fe80::1%eth0]:5000", address="*:65002")
    await lease(ring, "a", peer="[::ffff:10.0.0.2]:5000", address="*:65002")
    assert [(x.host, x.address) for x in told] == [
        ("a", "10.0.0.1:65002"),
        ("a", "[fe80::1%eth0]:65002"),
        ("a", "10.0.0.2:65002"),
    ]


async def test_a_lease_callback_may_be_given_at_once() -> None:
    told: list[HostLease] = []
    service = SchedulerService(SchedulerConfig(), CollectorRegistry(), on_lease=told.append)
    service.renew(HostLease("a", "1", "peer", "a:1"))
    assert [x.host for x in told] == ["a"]


async def test_the_ring_beats_often(ring: Fixture, autojump_clock: MockClock) -> None:
    answer = await ring.call("PUT", "/v1/hosts/a", encode(HostLease("a", "1", "peer", "a:1")))
    assert isinstance(answer.body, bytes)
    assert decode_lease_granted(answer.body).beat == 1.2
    stream = await ring.stream("a")
    assert isinstance(await stream.next(), Welcome)
    before = trio.current_time()
    assert isinstance(await stream.next(), Beat)
    assert trio.current_time() - before == pytest.approx(1.2)
    stream.close()


async def test_a_host_that_is_known_to_be_gone_is_forgotten_and_comes_back_by_itself(ring: Fixture) -> None:
    for host in "ab":
        await ring.renew(host)
    frozen, other = await ring.stream("a"), await ring.stream("b")
    await ring.report("a", PeerRegistered(SPEC.task_id, SPEC))
    await frozen.until(SourceGranted)
    await ring.report("b", PeerRegistered(SPEC.task_id, SPEC))
    ring.service.leave("a")
    assert (await other.until(SourceGranted)).spec == SPEC
    assert not ring.service.state.knows("a")
    assert await frozen.rest() == 0, "what it was to be told is dropped, and its stream is ended"
    frozen.close()
    assert not await ring.report("a", PeerRegistered(SPEC.task_id, SPEC, begun=True))
    with pytest.raises(DragonetError, match="no lease"):
        await ring.call("GET", "/v1/hosts/a/assignments?instance=1")
    assert not await ring.renew("a"), "it is to tell everything anew"
    again = await ring.stream("a")
    held = Bitmap([0]).to_bytes()
    await ring.report("a", PeerHolding(SPEC.task_id, SPEC, meta(), held, digests([0])))
    assert "a" in ring.service.state.cluster.tasks[SPEC.task_id].holders
    again.close()
    other.close()


async def test_leaving_twice_or_without_a_lease_is_harmless(ring: Fixture) -> None:
    ring.service.leave("nobody")
    await ring.renew("a")
    ring.service.leave("a")
    ring.service.leave("a")
    assert not await ring.renew("a")


async def test_a_second_process_with_the_same_id_is_refused_in_words(ring: Fixture) -> None:
    told: list[HostLease] = []
    ring.service.on_lease.append(told.append)
    with capture_logs() as logs:
        assert await lease(ring, "a", peer="10.0.0.1:5000") == 200
        stream = await ring.stream("a")
        for port in range(3):
            assert await lease(ring, "a", instance="2", peer=f"10.0.0.2:{port}") == 409
    refused = [entry["log_level"] for entry in logs if entry["event"] == "a lease was refused"]
    assert refused == ["warning", "debug", "debug"]
    assert len(told) == 1
    assert await lease(ring, "a", peer="10.0.0.1:5001") == 200
    with pytest.raises(DragonetError):
        await ring.call("GET", "/v1/hosts/a/assignments?instance=2")
    await ring.call("DELETE", "/v1/hosts/a?instance=2")
    assert ring.service.state.knows("a", "1"), "who was refused has nothing to give up"
    assert "dragonet_scheduler_same_host_total 3.0" in generate_latest(ring.registry).decode()
    stream.close()
    assert await lease(ring, "a", instance="2", peer="10.0.0.2:9") == 200
    await ring.call("DELETE", "/v1/hosts/a?instance=2")
    assert not ring.service.state.knows("a")


async def test_refused_processes_are_remembered_in_bounds(ring: Fixture) -> None:
    await lease(ring, "a", peer="10.0.0.1:1")
    stream = await ring.stream("a")
    for number in range(MAX_TOLD + 10):
        assert await lease(ring, "a", instance="2", peer=f"10.1.{number // 256}.{number % 256}:1") == 409
    assert len(ring.service._told_same) <= MAX_TOLD
    stream.close()


async def test_preheats_are_refused_while_there_is_no_scheduler() -> None:
    fixture = Fixture(preheat_token="token")
    refusals = [NO_SCHEDULER]
    fixture.service.refuse_preheats = lambda: refusals[0]
    image = {"image": "r.test/a:1"}
    harbor = {"type": "preheat", "args": {"type": "image", "url": "https://r.test/v2/a/manifests/1"}}
    old = {"type": "image", "url": "https://r.test/v2/a/manifests/1", "headers": {}}
    asked = (("/v1/preheats", image), ("/oapi/v1/jobs", harbor), ("/preheats", old))
    for path, body in asked:
        with pytest.raises(DragonetError, match="dragonet scheduler") as caught:
            await fixture.call("POST", path, json.dumps(body).encode(), authorization="Bearer token")
        assert caught.value.status == 409
    assert not list(fixture.service.state.cluster.preheats)
    refusals[0] = ""
    for path, body in asked:
        answer = await fixture.call("POST", path, json.dumps(body).encode(), authorization="Bearer token")
        assert answer.status in (200, 201)
