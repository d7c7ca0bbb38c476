"""What is told of what a plugin raises: who, where, and no secret."""

from __future__ import annotations

import urllib.error
from typing import Any

import pytest
import structlog
import trio

from cdn.sources.interface import (
    RangeNotSatisfiable,
    SourceCut,
    SourceRequest,
    SourceResponse,
)
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import (
    REQUEST,
    SHORT,
    Gives,
    adapted,
    with_method,
)


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


@pytest.mark.parametrize(
    "error",
    [
        RangeNotSatisfiable("nothing there", total=5, etag='"x"', last_modified="today"),
        SourceCut("it broke off", fault="reader"),
        SourceError("ask later", origin_status=503, retry_after=7.0),
        SourceError("it was wrong to ask", fault="request"),
    ],
    ids=str,
)
async def test_a_source_error_speaks_for_itself(error: SourceError) -> None:
    def fails(_: object) -> SourceResponse:
        raise error

    with pytest.raises(SourceError) as caught:
        await adapted(Gives(fails)).download(REQUEST)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


async def test_a_source_error_that_is_none() -> None:
    """Whatever stands in it, the engine can work with what it gets."""
    error: Any = RangeNotSatisfiable("")
    error.total = error.etag = error.last_modified = []

    other: Any = SourceError("two\nlines")
    other.origin_status = other.retry_after = other.fault = []

    def fails(_: object) -> SourceResponse:
        raise error

    def fails_otherwise(_: object) -> SourceResponse:
        raise other

    with pytest.raises(RangeNotSatisfiable, match=r"^the source plugin d7yfs failed in download$") as caught:
        await adapted(Gives(fails)).download(REQUEST)
    assert (caught.value.total, caught.value.etag, caught.value.last_modified) == (None, "", "")
    with pytest.raises(SourceError, match=r"^two lines$") as caught_too:
        await adapted(Gives(fails_otherwise)).download(REQUEST)
    found = caught_too.value
    assert (found.origin_status, found.retry_after, found.fault) == (None, None, "origin")


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
