"""What the engine gets from a plugin's methods, whatever they are and do."""

from __future__ import annotations

import io
import threading
import urllib.error
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
import structlog
import trio

from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.plugins.adapter import KNOWN, PluginClient, adapt, check_methods
from cdn.sources.plugins.calls import STUCK, THREADS, PluginCalls
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import (
    MEMORY,
    PATIENCE,
    SHORT,
    SOON,
    Gives,
    Good,
    gate,
    url,
)

REQUEST = SourceRequest(url("d7yfs"))
INFO = ExpireInfo(etag='"one"')


def adapted(client: Any, timeout: float = PATIENCE, **rest: Any) -> AsyncResourceClient:
    return adapt(client, name="d7yfs", timeout=timeout, memory=MEMORY, **rest)


async def content(answer: SourceResponse, size: int = 70_000) -> bytes:
    buffer, found = memoryview(bytearray(size)), b""
    async with answer:
        while count := await answer.receive_into(buffer):
            found += buffer[:count]
        assert await answer.receive_into(buffer) == 0
    return found


def with_method(name: str, method: Any) -> Good:
    """A good client one of whose methods is another."""
    client = Good(SHORT)
    setattr(client, name, method)
    return client


class Async(AsyncResourceClient):
    async def get_content_length(self, request: SourceRequest) -> int:
        return len(SHORT)

    async def is_support_range(self, request: SourceRequest) -> bool:
        return False

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return False

    async def download(self, request: SourceRequest) -> SourceResponse:
        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(SHORT), 7000):
                await trio.lowlevel.checkpoint()
                yield SHORT[start : start + 7000]

        return SourceResponse(body())

    async def get_last_modified(self, request: SourceRequest) -> int:
        return 5

    async def list(self, request: SourceRequest) -> list[SourceEntry]:
        return [SourceEntry(request.url + "/a")]


class Duck:
    """Derives from nothing; what is plain and what is async is mixed."""

    def get_content_length(self, request: SourceRequest) -> int:
        return len(SHORT)

    async def is_support_range(self, request: SourceRequest) -> bool:
        return False

    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return False

    def download(self, request: SourceRequest) -> Iterator[bytes]:
        yield SHORT[:5]
        yield SHORT[5:]

    def get_last_modified(self, request: SourceRequest) -> Any:
        return self._later()

    async def _later(self) -> int:
        await trio.lowlevel.checkpoint()
        return 5


@pytest.mark.parametrize("kind", [Async, Duck])
async def test_methods_may_be_of_any_kind(kind: type[Any]) -> None:
    client = adapted(kind())
    assert await client.get_content_length(REQUEST) == len(SHORT)
    assert await client.is_support_range(REQUEST) is False
    assert await client.is_expired(REQUEST, INFO) is False
    assert await client.get_last_modified(REQUEST) == 5
    assert await content(await client.download(REQUEST)) == SHORT
    assert client.is_immutable(REQUEST) is False
    assert client.plugin == "d7yfs"
    if kind is Duck:
        with pytest.raises(SourceError, match="cannot be listed"):
            await client.list(REQUEST)
    else:
        assert await client.list(REQUEST) == [SourceEntry(f"{REQUEST.url}/a")]
    await client.close()
    assert repr(client) == "<PluginClient d7yfs of <PluginCalls of d7yfs, 0 stuck>>"


async def test_plain_methods_run_in_named_threads() -> None:
    seen: list[str] = []

    def named(_: object) -> int:
        seen.append(threading.current_thread().name)
        return 1

    assert await adapted(with_method("get_content_length", named)).get_content_length(REQUEST) == 1
    assert seen == ["plugin d7yfs"]


# --- what is missing ------------------------------------------------------------------------------


def test_check_methods() -> None:
    check_methods(Good())
    check_methods(Async())
    check_methods(Duck())

    class Poor:
        download = 5
        list = "x"

        def is_expired(self, request: SourceRequest) -> bool:
            return False

    with pytest.raises(SourceError) as caught:
        check_methods(Poor())
    assert str(caught.value) == (
        "Poor is no resource client: it lacks get_content_length, it lacks is_support_range, its is_expired does "
        "not take 2 arguments, its download is no function but 5 (int), it lacks get_last_modified, its list is "
        "no function but text (str) (see cdn.sources.interface.ResourceClient)"
    )
    with pytest.raises(SourceError, match=r"is the class Good, not an object of it: give Good\(\)"):
        check_methods(Good)
    with pytest.raises(SourceError, match="NoneType is no resource client"):
        adapted(None)


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "value", "words"),
    [
        ("get_content_length", None, "gave None for get_content_length: it takes a number of bytes"),
        ("get_content_length", True, r"gave True \(bool\) for get_content_length"),
        ("get_content_length", 5.0, r"gave 5.0 \(float\) for get_content_length"),
        ("get_content_length", -3, r"gave -3 \(int\) for get_content_length"),
        ("get_content_length", 10**30, "gave an int for get_content_length"),
        ("is_support_range", 1, r"gave 1 \(int\) for is_support_range: it takes True or False"),
        ("is_support_range", "yes", r"gave text \(str\) for is_support_range"),
        (
            "get_last_modified",
            1.7e12,
            r"gave 1700000000000.0 \(float\) for get_last_modified: it takes milli",
        ),
        ("get_last_modified", None, "gave None for get_last_modified"),
        ("list", None, "gave None for list: it takes a list"),
        ("list", "abc", r"gave text \(str\) for list"),
        ("list", [5], r"gave 5 \(int\) for an entry of list"),
        ("list", [""], r"gave text \(str\) for the url of a SourceEntry"),
        ("list", [SourceEntry("a", size=None)], "gave None for the size of a SourceEntry"),  # type: ignore[arg-type]
        ("list", [SourceEntry("a", is_folder=1)], r"gave 1 \(int\) for is_folder of a SourceEntry"),  # type: ignore[arg-type]
        ("list", [SourceEntry("a", version=1)], r"gave 1 \(int\) for the version of a SourceEntry"),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_wrong_results(method: str, value: object, words: str, is_async: bool) -> None:
    async def later(_: object) -> object:
        return value

    client = adapted(with_method(method, later if is_async else lambda _: value))
    with pytest.raises(SourceError, match=f"^the source plugin d7yfs {words}"):
        await getattr(client, method)(REQUEST)


@pytest.mark.parametrize(("given", "expected"), [(0, 0), (7, 7), (-1, UNKNOWN_SOURCE_FILE_LENGTH), (-2, -2)])
async def test_lengths(given: int, expected: int) -> None:
    assert (
        await adapted(with_method("get_content_length", lambda _: given)).get_content_length(REQUEST)
        == expected
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": 204}, r"gave 204 \(int\) for the status of download"),
        ({"status": True}, r"gave True \(bool\) for the status"),
        ({"status": 404}, "answered 404"),
        ({"status": 206}, r"answered with a part \(206\) when the whole was asked for"),
        ({"content_length": None}, "gave None for content_length of download"),
        ({"content_length": "5"}, r"gave text \(str\) for content_length"),
        ({"content_length": -3}, r"gave -3 \(int\) for content_length"),
        ({"etag": None}, "gave None for etag of download"),
        ({"etag": 'x"\r\nset-cookie: a'}, "gave etag of download with characters that it cannot have"),
        ({"last_modified": 1700000000}, r"gave 1700000000 \(int\) for last_modified of download"),
        ({"content_type": "x" * 5000}, "gave content_type of download with characters"),
        ({"digest": "sha256:abc"}, "gave a wrong digest for download: digest 'sha256:abc' is not valid"),
        ({"url": None}, "gave None for url of download"),
        ({"decoded": 1}, r"gave 1 \(int\) for decoded of download"),
        ({"range": (0, 5)}, "gave a tuple for range of download"),
        ({"body": "text"}, r"gave text \(str\) for the body of download: it takes bytes, an iterable"),
        ({"body": 5}, r"gave 5 \(int\) for the body of download"),
    ],
)
async def test_wrong_answers(changes: dict[str, Any], words: str) -> None:
    closed: list[int] = []

    def give(request: SourceRequest) -> SourceResponse:
        answer = SourceResponse(SHORT, close=lambda: closed.append(1))
        for name, value in changes.items():
            setattr(answer, name, value)
        return answer

    with pytest.raises(SourceError, match=f"^the source plugin d7yfs {words}") as caught:
        await adapted(Gives(give)).download(REQUEST)
    assert caught.value.origin_status == {204: None, 404: 404, 206: 206}.get(changes.get("status", 0))
    assert closed == [1]


async def test_a_good_answer_is_passed_on() -> None:
    def give(request: SourceRequest) -> SourceResponse:
        return SourceResponse(
            bytearray(SHORT),  # type: ignore[arg-type]  # bytes by another name
            headers={"a": "b"},
            etag="W/x",
            last_modified="today",
            content_type="a/b",
            digest="sha256:" + "ab" * 32,
            url="d7yfs://other/place",
        )

    answer = await adapted(Gives(give)).download(REQUEST)
    assert (answer.status, answer.content_length, answer.range, answer.decoded) == (
        200,
        len(SHORT),
        None,
        False,
    )
    assert (answer.etag, answer.last_modified, answer.content_type) == ("W/x", "today", "a/b")
    assert (answer.headers, answer.digest) == ({"a": "b"}, "sha256:" + "ab" * 32)
    assert answer.url == "d7yfs://other/place"
    assert await content(answer) == SHORT
    assert (await adapted(Good()).download(REQUEST)).url == REQUEST.url


async def test_a_listing() -> None:
    given = [
        "a b",
        "sub/",
        "d7yfs://other/x",
        "/top?x#y",
        SourceEntry("c", size=5, version="v", hint=7),
        SourceEntry("d7yfs://host:56001/path/d", is_folder=True),
    ]
    expected = [
        SourceEntry("d7yfs://host:56001/path/a b"),
        SourceEntry("d7yfs://host:56001/path/sub/", is_folder=True),
        SourceEntry("d7yfs://other/x"),
        SourceEntry("d7yfs://host:56001/top?x#y"),
        SourceEntry("d7yfs://host:56001/path/c", size=5, version="v", hint=7),
        SourceEntry("d7yfs://host:56001/path/d", is_folder=True),
    ]

    async def later(_: object) -> AsyncIterator[object]:
        for entry in given:
            await trio.lowlevel.checkpoint()
            yield entry

    def generator(_: object) -> Iterator[object]:
        yield from given

    for method in (lambda _: given, lambda _: tuple(given), later, generator):
        for address in (REQUEST.url, REQUEST.url + "/", REQUEST.url + "?query"):
            found = await adapted(with_method("list", method)).list(SourceRequest(address))
            assert found == expected


async def test_what_is_optional() -> None:
    def absent(*_: object) -> Any:
        raise NotImplementedError

    client = Good(SHORT)
    for name in ("is_expired", "get_last_modified", "list"):
        setattr(client, name, absent)
    found = adapted(client)
    assert await found.is_expired(REQUEST, INFO) is False
    assert await found.get_last_modified(REQUEST) == -1
    with pytest.raises(SourceError, match="cannot be listed"):
        await found.list(REQUEST)
    with pytest.raises(SourceError, match="cannot be listed"):
        await adapted(Good()).list(REQUEST)
    with pytest.raises(SourceError, match="plugin d7yfs does not implement get_content_length"):
        await adapted(with_method("get_content_length", absent)).get_content_length(REQUEST)


@pytest.mark.parametrize("value", [True, False])
async def test_expiry(value: bool) -> None:
    assert await adapted(with_method("is_expired", lambda *_: value)).is_expired(REQUEST, INFO) is value
    for wrong in (1, None, "yes"):
        assert (
            await adapted(with_method("is_expired", lambda *_, w=wrong: w)).is_expired(REQUEST, INFO) is False
        )


async def test_immutable() -> None:
    def fails(_: object) -> bool:
        raise ValueError

    async def later(_: object) -> bool:
        return True

    for method, expected in ((lambda _: True, True), (lambda _: 1, False), (fails, False)):
        assert adapted(with_method("is_immutable", method)).is_immutable(REQUEST) is expected
    with pytest.warns(RuntimeWarning, match="never awaited"):
        assert adapted(with_method("is_immutable", later)).is_immutable(REQUEST) is False
    asked: list[int] = []
    with gate() as door:

        def blocks(_: object) -> bool:
            asked.append(1)
            door.wait()
            return True

        client = adapted(with_method("is_immutable", blocks))
        assert client.is_immutable(REQUEST) is False
        assert client.is_immutable(REQUEST) is False
        assert asked == [1], "who blocks is not asked again"


# --- errors ---------------------------------------------------------------------------------------


def _caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "status", "fault", "words"),
    [
        (FileNotFoundError(2, "gone"), 404, "origin", r"FileNotFoundError: \[Errno 2\] gone"),
        (PermissionError("no"), 403, "origin", "PermissionError: no"),
        (ConnectionRefusedError("no"), None, "reader", "ConnectionRefusedError: no"),
        (TimeoutError(), None, "reader", "TimeoutError$"),
        (_caused(urllib.error.URLError("x"), ConnectionRefusedError()), None, "reader", "URLError: "),
        (trio.TooSlowError(), None, "reader", "TooSlowError"),
        (ExceptionGroup("many", [ValueError("one")]), None, "origin", "ValueError: one"),
        (
            BaseExceptionGroup("many", [SystemExit(1), ValueError()]),
            None,
            "origin",
            "BaseExceptionGroup: many",
        ),
        (ValueError("two\nlines\x1b[31m"), None, "origin", r"ValueError: two lines \[31m$"),
        (ValueError("x" * 5000), None, "origin", "ValueError: x{300}…$"),
        (
            MemoryError(),
            None,
            "origin",
            r"there was no memory left for it: it may take 1GiB \(source.plugin_mem",
        ),
        (SystemExit(3), None, "origin", "SystemExit: 3"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_errors(
    error: BaseException, status: int | None, fault: str, words: str, is_async: bool
) -> None:
    def fails(_: object) -> int:
        raise error

    async def fails_later(_: object) -> int:
        raise error

    client = adapted(with_method("get_content_length", fails_later if is_async else fails))
    with pytest.raises(
        SourceError, match=f"^the source plugin d7yfs failed in get_content_length: {words}"
    ) as caught:
        await client.get_content_length(REQUEST)
    assert (caught.value.origin_status, caught.value.fault) == (status, fault)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "nothing holds on to the plugin's frames"


async def test_a_source_error_speaks_for_itself() -> None:
    def fails(_: object) -> SourceResponse:
        raise RangeNotSatisfiable("nothing there", total=5)

    with pytest.raises(RangeNotSatisfiable, match=r"^nothing there$") as caught:
        await adapted(Gives(fails)).download(REQUEST)
    assert caught.value.total == 5


async def test_an_error_whose_text_fails() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def fails(_: object) -> int:
        raise Nasty

    with pytest.raises(SourceError, match=r"failed in get_content_length: Nasty$"):
        await adapted(with_method("get_content_length", fails)).get_content_length(REQUEST)


async def test_no_secret_is_told() -> None:
    secrets = ("tokentoken", "option-secret", "password1", "signed-away")
    request = SourceRequest(
        f"d7yfs://user:{secrets[2]}@host/a?signature={secrets[3]}", {"authorization": f"Bearer {secrets[0]}"}
    )

    def fails(asked: SourceRequest) -> int:
        raise ValueError(f"{asked.url} {asked.headers} {secrets[1]}")

    with structlog.testing.capture_logs() as logs:
        client = adapted(with_method("get_content_length", fails), secrets=[secrets[1]])
        with pytest.raises(SourceError) as caught:
            await client.get_content_length(request)
    for secret in secrets:
        assert secret not in str(caught.value)
        assert secret not in str(logs)
    assert [entry["log_level"] for entry in logs] == ["debug"]
    assert "in fails" in logs[0]["stack"], "the traceback is for who debugs"


async def test_an_answer_whose_attributes_are_code() -> None:
    class Nasty(SourceResponse):
        @property
        def etag(self) -> str:  # type: ignore[override]
            raise SystemExit(5)

        @etag.setter
        def etag(self, value: str) -> None: ...

    with pytest.raises(SourceError, match="failed in download: SystemExit: 5"):
        await adapted(Gives(lambda _: Nasty(SHORT))).download(REQUEST)


async def test_a_plugin_cannot_change_the_request() -> None:
    def changes(request: SourceRequest) -> int:
        request.headers["x"] = "y"  # type: ignore[index]
        return 1

    request = SourceRequest(REQUEST.url, {"a": "b"})
    assert await adapted(with_method("get_content_length", changes)).get_content_length(request) == 1
    assert request.headers == {"a": "b"}


# --- deadlines ------------------------------------------------------------------------------------


async def test_a_method_that_blocks_for_ever() -> None:
    with gate() as door:
        client = adapted(with_method("get_content_length", lambda _: door.wait()), SOON)
        with pytest.raises(SourceError) as caught:
            await client.get_content_length(REQUEST)
    assert str(caught.value) == (
        "the source plugin d7yfs did not answer: get_content_length has run for 0.05 s (source.plugin_timeout)"
    )


async def test_an_async_method_that_never_ends() -> None:
    async def never(_: object) -> int:
        await trio.sleep_forever()
        return 1

    client = adapted(with_method("get_content_length", never), SOON)
    with pytest.raises(SourceError, match=r"get_content_length has run for 0\.05 s"):
        await client.get_content_length(REQUEST)


async def test_a_listing_that_never_ends() -> None:
    def endless(_: object) -> Iterator[str]:
        while True:
            yield "a"

    with pytest.raises(
        SourceError, match=r"did not answer: list has run for|took more than 1GiB of memory in list"
    ):
        await adapted(with_method("list", endless), SOON).list(REQUEST)


async def test_an_endless_loop_is_stopped() -> None:
    ended = threading.Event()

    def endless(_: object) -> int:
        try:
            while True:
                pass
        finally:
            ended.set()

    client = adapted(with_method("get_content_length", endless), SOON)
    with pytest.raises(SourceError, match="did not answer"):
        await client.get_content_length(REQUEST)
    await trio.to_thread.run_sync(ended.wait)


async def test_a_plugin_that_is_stuck_is_not_asked_until_it_returns() -> None:
    with gate() as door:

        def blocks(_: object) -> int:
            door.wait()
            return 1

        calls = PluginCalls("d7yfs", SOON, MEMORY)
        client = PluginClient(with_method("get_content_length", blocks), calls)

        async def ask() -> None:
            with pytest.raises(SourceError, match="did not answer"):
                await client.get_content_length(REQUEST)

        async with trio.open_nursery() as nursery:
            for _ in range(STUCK):
                nursery.start_soon(ask)
        assert calls.stuck == STUCK
        with pytest.raises(
            SourceError, match="is not asked any more: 8 of its calls have not returned"
        ) as caught:
            await client.is_support_range(REQUEST)
        assert caught.value.fault == "reader"
        door.open()
        for _ in range(STUCK):
            await trio.to_thread.run_sync(door.left.acquire)
        while calls.stuck:
            await trio.lowlevel.checkpoint()
        assert await client.is_support_range(REQUEST) is True


async def test_calls_wait_for_a_thread_but_not_for_ever() -> None:
    with gate() as door:

        def blocks(_: object) -> int:
            door.wait()
            return 1

        calls = PluginCalls("d7yfs", SOON, MEMORY, threads=1)
        slow = PluginClient(with_method("get_content_length", blocks), PluginCalls("x", PATIENCE, MEMORY))
        client = PluginClient(with_method("get_content_length", blocks), calls)
        calls.timeout = PATIENCE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get_content_length, REQUEST)
            nursery.start_soon(slow.get_content_length, REQUEST)
            for _ in range(2):
                await trio.to_thread.run_sync(door.entered.acquire)
            calls.timeout = SOON
            with pytest.raises(SourceError, match="is busy: its 1 threads have all been waiting"):
                await client.is_support_range(REQUEST)
            door.open()
        calls.timeout = PATIENCE
        assert await client.is_support_range(REQUEST) is True
    assert THREADS > STUCK


@pytest.mark.parametrize("where", ["download", "body", "get_content_length"])
async def test_cancellation_takes_effect_at_once(where: str) -> None:
    closed = threading.Event()
    with gate() as door:

        def body() -> Iterator[bytes]:
            try:
                door.wait()
                yield SHORT
            finally:
                closed.set()

        def download(_: object) -> SourceResponse:
            if where == "download":
                door.wait()
            return SourceResponse(body() if where == "body" else SHORT, close=closed.set)

        def length(_: object) -> int:
            door.wait()
            closed.set()
            return 1

        client = adapted(with_method("get_content_length", length))
        client._client.download = download  # type: ignore[attr-defined]

        async def use() -> None:
            if where == "get_content_length":
                await client.get_content_length(REQUEST)
            else:
                await content(await client.download(REQUEST))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.to_thread.run_sync(door.entered.acquire)
            nursery.cancel_scope.cancel()
        assert not closed.is_set()
        door.open()
        # what comes when nobody waits any more is let go of
        await trio.to_thread.run_sync(closed.wait)


async def test_a_cancelled_async_method_with_a_nursery() -> None:
    async def never(_: object) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
        return 1

    client = adapted(with_method("get_content_length", never))
    with trio.move_on_after(0) as scope:
        await client.get_content_length(REQUEST)
    assert scope.cancelled_caught
    late = adapted(with_method("get_content_length", never), SOON)
    with pytest.raises(SourceError, match="did not answer"):
        await late.get_content_length(REQUEST)


async def test_a_method_of_another_framework() -> None:
    class Future:
        def __await__(self) -> Generator[object, None, None]:
            yield self

    async def foreign(_: object) -> int:
        await Future()
        return 1

    with pytest.raises(SourceError, match="failed in get_content_length: TypeError"):
        await adapted(with_method("get_content_length", foreign)).get_content_length(REQUEST)


# --- letting go -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "unread", "part"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_answer_is_closed_once(how: str, is_async: bool) -> None:
    closed: list[str] = []

    class File(io.BytesIO):
        def close(self) -> None:
            closed.append("file")
            super().close()

    async def close() -> None:
        closed.append("answer")

    def give(request: SourceRequest) -> SourceResponse:
        return SourceResponse(File(SHORT), close=close if is_async else lambda: closed.append("answer"))

    answer = await adapted(Gives(give)).download(REQUEST)
    if how == "read":
        assert await content(answer) == SHORT
    elif how == "part":
        assert await answer.receive_into(memoryview(bytearray(10))) == 10
    await answer.aclose()
    await answer.aclose()
    assert closed[:2] == ["file", "answer"]
    assert len(closed) == 2 or closed[2:] == ["file"]  # (the last is the garbage collector's)


async def test_generators_are_closed() -> None:
    closed: list[str] = []

    def plain() -> Iterator[bytes]:
        try:
            yield SHORT
            yield SHORT
        finally:
            closed.append(threading.current_thread().name)

    async def later() -> AsyncIterator[bytes]:
        try:
            yield SHORT
            yield SHORT
        finally:
            closed.append("later")

    for body in (plain(), later()):
        answer = await adapted(Gives(lambda _, b=body: SourceResponse(b))).download(REQUEST)
        await answer.receive_into(memoryview(bytearray(10)))
        await answer.aclose()
    assert closed == ["plugin d7yfs", "later"]


async def test_an_answer_whose_close_fails_or_blocks() -> None:
    with gate() as door:

        def fails() -> None:
            raise ValueError

        for close in (fails, door.wait, lambda: 5):
            client = adapted(Gives(lambda _, c=close: SourceResponse(SHORT, close=c)), SOON)
            assert await content(await client.download(REQUEST)) == SHORT


async def test_a_client_whose_close_fails_or_blocks() -> None:
    closed: list[int] = []

    async def later() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(1)

    def fails() -> None:
        raise SystemExit

    with gate() as door:
        for close in (fails, door.wait, later):
            await adapted(with_method("close", close), SOON).close()
    assert closed == [1]
    await adapted(Duck()).close()


async def test_an_answer_gives_nothing_after_an_error() -> None:
    def body() -> Iterator[bytes]:
        yield SHORT
        raise ValueError("no")

    answer = await adapted(Gives(lambda _: SourceResponse(body()))).download(REQUEST)
    buffer = memoryview(bytearray(len(SHORT)))
    assert await answer.receive_into(buffer) == len(SHORT)
    for _ in range(2):
        with pytest.raises(SourceError, match="ValueError: no"):
            await answer.receive_into(buffer)
    await answer.aclose()


async def test_nothing_is_written_to_a_buffer_that_was_taken_back() -> None:
    with gate() as door:

        class File:
            """Holds on to the buffer that it was given."""

            def readinto(self, buffer: memoryview) -> int:
                door.wait()
                buffer[:] = b"x" * len(buffer)
                return len(buffer)

        client = adapted(Gives(lambda _: SourceResponse(File())), SOON)  # type: ignore[arg-type]
        answer = await client.download(REQUEST)
        buffer = memoryview(bytearray(1000))
        with pytest.raises(SourceError, match="no further byte came"):
            await answer.receive_into(buffer)
        door.open()
        await trio.to_thread.run_sync(door.left.acquire)
        await answer.aclose()
        assert bytes(buffer) == bytes(1000)


# --- probes ---------------------------------------------------------------------------------------


async def test_ranges_are_probed_once_for_each_url() -> None:
    good = Good(SHORT)
    client = adapted(good)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(_read_part, client, SourceRequest(REQUEST.url, range=(100, 199)))
    assert good.asked.count((100, 100)) == 1
    assert not client._probing  # type: ignore[attr-defined]
    assert len(good.asked) == 7
    assert await content(await client.download(SourceRequest(REQUEST.url, range=(0, 9)))) == SHORT[:10]
    other = SourceRequest(REQUEST.url + "2", range=(5, 5))
    assert await content(await client.download(other)) == SHORT[5:6]
    assert good.asked.count((5, 5)) == 2
    assert isinstance(client, PluginClient)
    for n in range(KNOWN + 1):
        client._probed[str(n)] = None
    await _read_part(client, SourceRequest(REQUEST.url + "3", range=(100, 199)))
    assert len(client._probed) <= KNOWN + 3


async def _read_part(client: AsyncResourceClient, request: SourceRequest) -> None:
    assert await content(await client.download(request)) == SHORT[100:200]
