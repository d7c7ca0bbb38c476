import json
import os
import signal
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from shared.errors import ConfigError
from shared.http.limits import ServerLimits
from shared.http.messages import Request, Response
from shared.service import Readiness, Service, notify, run_process


def make_service(**options) -> Service:
    return Service("peer", limits=ServerLimits(), **options)


async def exchange(stream: trio.abc.Stream, path: str) -> tuple[int, bytes]:
    """GET on a connection that is closed afterwards."""
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = b""
    async for chunk in stream:
        received += bytes(chunk)
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def get(address: str, path: str) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        return await exchange(stream, path)


async def test_readiness_names_what_is_missing() -> None:
    readiness = Readiness()
    assert readiness.ready
    readiness.wait_for("scheduler", "the scheduler does not answer")
    readiness.wait_for("store", "the store is being opened")
    assert readiness.reasons == {
        "scheduler": "the scheduler does not answer",
        "store": "the store is being opened",
    }
    readiness.done("store")
    readiness.done("never named")
    assert not readiness.ready
    readiness.done("scheduler")
    assert readiness.ready


async def test_readiness_is_waited_for(nursery: trio.Nursery) -> None:
    readiness = Readiness()
    await readiness.wait()
    readiness.wait_for("a", "b")
    done = trio.Event()

    async def wait() -> None:
        await readiness.wait()
        done.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    readiness.done("a")
    await done.wait()


async def test_health_readiness_and_metrics_are_served(nursery: trio.Nursery) -> None:
    async with make_service() as service:
        service.readiness.wait_for("scheduler", "the scheduler does not answer")
        address = await service.listen("127.0.0.1:0")
        stopping = trio.Event()
        await nursery.start(service.run, stopping)
        assert await get(address, "/healthz") == (200, b"ok\n")
        status, body = await get(address, "/readyz")
        assert status == 503
        assert json.loads(body)["reasons"] == {"scheduler": "the scheduler does not answer"}
        service.readiness.done("scheduler")
        assert (await get(address, "/readyz"))[0] == 200
        status, body = await get(address, "/metrics")
        assert status == 200
        assert b"dragonet_build_info" in body
        assert b'dragonet_http_connections{server="peer"} 1.0' in body
        assert (await get(address, "/nothing"))[0] == 404
        stopping.set()


async def test_who_is_not_admitted_is_counted(nursery: trio.Nursery) -> None:
    async with make_service() as service:
        address = await service.listen("*:0", admit=lambda ip: False)
        assert address.startswith("*:")
        open_to_all = await service.listen("127.0.0.1:0", service.new_router())
        stopping = trio.Event()
        await nursery.start(service.run, stopping)
        async with await trio.open_tcp_stream("127.0.0.1", int(address[2:])) as stream:
            assert await stream.receive_some() == b""
        _, body = await get(open_to_all, "/metrics")
        assert b'dragonet_http_unwelcome_total{server="peer"} 1.0' in body
        stopping.set()


async def test_every_listener_has_its_own_routes(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "run" / "d.sock"
    async with make_service() as service:

        async def hello(_request: Request) -> Response:
            return Response.text("hello")

        service.router.add("GET", "/hello", hello)
        address = await service.listen("127.0.0.1:0")
        other = await service.listen("127.0.0.1:0", service.new_router())
        await service.listen_unix(path, service.new_router())
        stopping = trio.Event()
        await nursery.start(service.run, stopping)
        assert (await get(address, "/hello"))[1] == b"hello"
        assert (await get(other, "/hello"))[0] == 404
        async with await trio.open_unix_socket(str(path)) as stream:
            assert (await exchange(stream, "/healthz"))[0] == 200
        assert path.parent.stat().st_mode & 0o777 == 0o700
        stopping.set()
    assert not path.exists()


async def test_an_address_in_use_is_a_sentence() -> None:
    async with make_service() as service, make_service() as other:
        address = await service.listen("127.0.0.1:0")
        with pytest.raises(ConfigError, match="in use"):
            await other.listen(address)
        with pytest.raises(ConfigError, match=r"^peer\.gateway: cannot listen on .* in use"):
            await other.listen(address, setting="peer.gateway")


async def test_a_socket_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with make_service() as service:
        with pytest.raises(ConfigError, match="give another --socket"):
            await service.listen_unix(tmp_path / "file" / "d.sock", service.new_router())


async def test_running_responses_finish_when_the_end_comes(nursery: trio.Nursery) -> None:
    async with make_service() as service:
        begun, go_on, told = trio.Event(), trio.Event(), trio.Event()

        async def slow(_request: Request) -> Response:
            begun.set()
            await go_on.wait()
            return Response.text("finished")

        async def callback() -> None:
            told.set()

        service.router.add("GET", "/slow", slow)
        service.on_stopping.append(callback)
        address = await service.listen("127.0.0.1:0")
        stopping, ended = trio.Event(), trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await service.run(stopping, task_status=task_status)
            ended.set()

        async def ask() -> None:
            answers.append(await get(address, "/slow"))

        answers: list[tuple[int, bytes]] = []
        await nursery.start(run)
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            await begun.wait()
            stopping.set()
            await told.wait()
            assert "stopping" in service.readiness.reasons
            assert not ended.is_set()
            go_on.set()
        assert answers == [(200, b"finished")]
        await ended.wait()


async def test_what_outlives_the_grace_period_is_cut(nursery: trio.Nursery) -> None:
    async with make_service(grace=0.0) as service:
        begun = trio.Event()

        async def endless(_request: Request) -> Response:
            begun.set()
            await trio.sleep_forever()
            return Response.text("never")

        service.router.add("GET", "/endless", endless)
        address = await service.listen("127.0.0.1:0")
        stopping = trio.Event()
        async with trio.open_nursery() as running:
            await running.start(service.run, stopping)
            host, _, port = address.rpartition(":")
            stream = await trio.open_tcp_stream(host, int(port))
            await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            stopping.set()
        await stream.aclose()


async def test_the_first_signal_stops_in_good_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    steps: list[str] = []

    async def main(
        stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()
        steps.append("ended in good order")

    with trio.fail_after(10):
        await run_process(main)
    assert steps == ["ended in good order"]
    with manager:
        assert sorted([manager.recv(100), manager.recv(100)]) == [b"READY=1", b"STOPPING=1"]


async def test_the_second_signal_ends_at_once() -> None:
    async def main(
        stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    with trio.fail_after(10):
        await run_process(main)


async def test_a_main_that_fails_before_it_serves_is_heard() -> None:
    async def main(
        stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        raise ConfigError("the address is taken")

    with pytest.raises(BaseExceptionGroup) as caught:
        await run_process(main)
    assert caught.value.subgroup(ConfigError)


def test_a_service_manager_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
