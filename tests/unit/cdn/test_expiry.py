"""Whether a source has other content now: what is asked, and what every kind of answer means."""

from __future__ import annotations

import pytest
import trio

from cdn.sources.http import differs
from cdn.sources.interface import AsyncResourceClient, ExpireInfo, SourceRequest, SourceResponse
from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.task.identity import TaskSpec
from tests.unit.cdn.fakes import PIECE, Behaviour, random_bytes, reading, serving

CONTENT = random_bytes(3 * PIECE)
DATE, LATER = "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:01 GMT"


def meta(etag: str = "", last_modified: str = "") -> TaskMeta:
    return TaskMeta("v", PIECE, len(CONTENT), etag=etag, last_modified=last_modified)


CASES = [
    # what was read, what the source says now, whether that is other content (None: it cannot be found out)
    (meta('"one"'), Behaviour(CONTENT), False),
    (meta('"one"', DATE), Behaviour(CONTENT, last_modified=LATER), False),
    (meta('"two"'), Behaviour(CONTENT), True),
    (meta('W/"one"'), Behaviour(CONTENT), False),
    (meta('"one"'), Behaviour(CONTENT, etag='W/"one"'), False),
    (meta('W/"one"'), Behaviour(CONTENT, etag='W/"two"'), True),
    (meta(last_modified=DATE), Behaviour(CONTENT, etag="", last_modified=DATE), False),
    (meta(last_modified=DATE), Behaviour(CONTENT, etag="", last_modified=LATER), True),
    (meta('"two"', DATE), Behaviour(CONTENT, etag="", last_modified=DATE), False),
    (meta(last_modified=DATE), Behaviour(CONTENT, last_modified=DATE), False),
    (meta('"two"'), Behaviour(CONTENT, ranges="ignore"), True),
    (meta('"one"'), Behaviour(CONTENT, ranges="shifted"), False),
    (meta('"one"'), Behaviour(CONTENT, etag=""), True),
    (meta(), Behaviour(CONTENT, etag=""), True),
    (meta(), Behaviour(CONTENT), True),
    (meta('"two"'), Behaviour(b"", empty_is_416=True), True),
    (meta('"one"'), Behaviour(CONTENT, status=500, etag='"two"'), None),
    (meta('"one"'), Behaviour(CONTENT, status=503, etag='"two"'), None),
    (meta('"one"'), Behaviour(CONTENT, status=404, etag='"two"'), None),
    (meta('"one"'), Behaviour(CONTENT, status=401, etag='"two"'), None),
    (meta(), Behaviour(CONTENT, status=500, etag=""), None),
    (meta('"one"'), Behaviour(status=302, etag="", headers={"Location": "/file"}), None),
]


@pytest.mark.parametrize(("known", "now", "expired"), CASES, ids=range(len(CASES)))
async def test_every_kind_of_answer(known: TaskMeta, now: Behaviour, expired: bool | None) -> None:
    async with serving() as origin, reading() as (reader, registry):
        origin.behaviours["/file"] = now
        assert await reader.is_expired(TaskSpec(origin.url()), {}, known) is expired
        assert sum(seen.body for seen in origin.seen) <= (len(CONTENT) if now.ranges == "ignore" else 100)
        result = {True: "expired", False: "valid", None: "error"}[expired]
        assert registry.get_sample_value("dragonet_origin_checks_total", {"result": result}) == 1
        assert registry.get_sample_value("dragonet_origin_reads_total") == 0


async def test_a_question_is_conditional_and_wants_no_more_than_a_byte() -> None:
    async with serving() as origin, reading() as (reader, _):
        origin.behaviours["/file"] = Behaviour(CONTENT, last_modified=DATE)
        spec = TaskSpec(origin.url(), headers={"user-agent": "me"})
        assert not await reader.is_expired(spec, {"cookie": "c"}, meta('"one"', DATE))
        (seen,) = origin.seen
        assert seen.status == 304
        assert seen.headers["if-none-match"] == '"one"'
        assert seen.headers["if-modified-since"] == DATE
        assert seen.headers["range"] == "bytes=0-0"
        assert (seen.headers["cookie"], seen.headers["user-agent"]) == ("c", "me")


async def test_after_a_redirection_the_answer_is_compared() -> None:
    async with serving() as origin, reading() as (reader, _):
        other = origin.url("/new").replace("127.0.0.1", "localhost")
        origin.behaviours["/file"] = Behaviour(status=302, etag="", headers={"Location": other})
        origin.behaviours["/new"] = Behaviour(CONTENT)
        spec = TaskSpec(origin.url())
        assert not await reader.is_expired(spec, {"authorization": "secret"}, meta('"one"'))
        assert await reader.is_expired(spec, {"authorization": "secret"}, meta('"two"'))
        assert "authorization" not in origin.seen[-1].headers


async def test_an_origin_that_is_not_there_cannot_be_asked() -> None:
    async with serving() as origin:
        url = origin.url()
    async with reading() as (reader, _):
        assert await reader.is_expired(TaskSpec(url), {}, meta('"one"')) is None
        assert await reader.is_expired(TaskSpec(url), {}, meta()) is None


class Script(AsyncResourceClient):
    """A source whose answer to ``is_expired`` is made up."""

    def __init__(self, immutable: bool = False) -> None:
        self.immutable = immutable
        self.asked: list[ExpireInfo] = []
        self.error: Exception | None = None

    async def get_content_length(self, request: SourceRequest) -> int:
        raise NotImplementedError

    async def is_support_range(self, request: SourceRequest) -> bool:
        raise NotImplementedError

    async def get_last_modified(self, request: SourceRequest) -> int:
        raise NotImplementedError

    async def download(self, request: SourceRequest) -> SourceResponse:
        raise NotImplementedError

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        self.asked.append(info)
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()
        raise AssertionError

    def is_immutable(self, request: SourceRequest) -> bool:
        return self.immutable


async def test_content_addressed_sources_are_not_asked() -> None:
    async with reading() as (reader, _):
        source = Script(immutable=True)
        reader.registry.register("cas", source)
        assert await reader.is_expired(TaskSpec("cas://host/sha256"), {}, meta()) is False
        assert source.asked == []


async def test_errors_and_silence_mean_that_it_cannot_be_found_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with reading(header_timeout=7.0) as (reader, registry):
        source = Script()
        reader.registry.register("cas", source)
        spec = TaskSpec("cas://host/file")
        began = trio.current_time()
        assert await reader.is_expired(spec, {}, meta('"one"', DATE)) is None
        assert trio.current_time() - began == 7
        source.error = SourceError("it is broken")
        assert await reader.is_expired(spec, {}, meta()) is None
        assert source.asked == [ExpireInfo(DATE, '"one"'), ExpireInfo()]
        assert await reader.is_expired(TaskSpec("none://host/file"), {}, meta()) is None
        assert registry.get_sample_value("dragonet_origin_checks_total", {"result": "error"}) == 3


def test_versions_that_cannot_be_compared_differ() -> None:
    assert differs(ExpireInfo(), ExpireInfo())
    assert differs(ExpireInfo(etag='"a"'), ExpireInfo(last_modified=DATE))
    assert not differs(ExpireInfo(DATE, '"a"'), ExpireInfo(LATER, '"a"'))
