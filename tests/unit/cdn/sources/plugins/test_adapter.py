"""What the engine gets from a plugin's methods, whatever they are and do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    ExpireInfo,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.plugins import adapter
from cdn.sources.plugins.adapter import KNOWN, PluginClient, check_methods
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import (
    INFO,
    REQUEST,
    SHORT,
    Gives,
    Good,
    adapted,
    content,
    gate,
    with_method,
)


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
        with pytest.raises(SourceError, match="is_expired"):
            await adapted(with_method("is_expired", lambda *_, w=wrong: w)).is_expired(REQUEST, INFO)


async def test_immutable(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = adapter.PATIENCE
    monkeypatch.setattr(
        adapter, "PATIENCE", 60.0
    )  # a loaded machine is not to be taken for a plugin that blocks

    def fails(_: object) -> bool:
        raise ValueError

    async def later(_: object) -> bool:
        return True

    for method, expected in ((lambda _: True, True), (lambda _: 1, False), (fails, False)):
        assert adapted(with_method("is_immutable", method)).is_immutable(REQUEST) is expected
    with pytest.warns(RuntimeWarning, match="never awaited"):
        assert adapted(with_method("is_immutable", later)).is_immutable(REQUEST) is False
    monkeypatch.setattr(adapter, "PATIENCE", patience)
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
