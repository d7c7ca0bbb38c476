"""The conformance suite catches clients that are wrong, and says what is wrong with them."""

from __future__ import annotations

import hashlib
from email.utils import formatdate

import pytest
import trio
import trio.testing

from cdn.sources.interface import (
    AsyncResourceClient,
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.testing import CHECKS, Check, Example, SourceConformance
from shared.errors import SourceError
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.sources.examples import CHANGED, CONTENT

ROOT = "fs://host/"
URL = ROOT + "a"


class Fs(AsyncResourceClient):
    """A source that can do everything, and, by ``fault``, one thing wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.contents = {URL: CONTENT, ROOT + "folder/b": b"b"}
        self.version = 1
        self.open = self.opened = 0
        self.closed = False

    # --- the interface ----------------------------------------------------------------------------

    async def get_content_length(self, request: SourceRequest) -> int:
        if self.fault == "length in words":
            return "300000"  # type: ignore[return-value]
        length = len(await self._content(request))
        return length + 1 if self.fault == "wrong length" else length

    async def is_support_range(self, request: SourceRequest) -> bool:
        await self._content(request)
        if self.fault == "maybe ranges":
            return "yes"  # type: ignore[return-value]
        return not self.fault.startswith("no ranges")

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        if request.url not in self.contents:
            return self.fault == "trouble expires"
        if self.fault in ("always expired", "never expired"):
            return self.fault == "always expired"
        return info != ExpireInfo(self.last_modified, self.etag)

    async def get_last_modified(self, request: SourceRequest) -> int:
        await self._content(request)
        return {
            "seconds": CHANGED,
            "future": CHANGED * 10**6,
            "another time": (CHANGED + 60) * 1000,
            "fraction": CHANGED * 1000.5,
        }.get(self.fault, (CHANGED + (self.fault == "no etag")) * 1000)  # type: ignore[return-value]

    async def list(self, request: SourceRequest) -> list[SourceEntry]:
        if request.url == ROOT + "folder/":
            return [SourceEntry(ROOT + "folder/b", size=1)]
        if request.url != ROOT:
            if self.fault == "lists files":
                return []
            raise SourceError("no folder", fault="request")
        file = SourceEntry(
            URL, size=len(CONTENT) - (self.fault == "wrong size"), is_folder=self.fault == "wrong kind"
        )
        folder = SourceEntry(ROOT + "folder/", is_folder=True)
        return {
            "lists itself": [file, folder, SourceEntry(ROOT, is_folder=True)],
            "lists too little": [file],
            "lists twice": [file, file, folder],
            "lists names": [SourceEntry("a"), folder],
            "lists what is not there": [SourceEntry(ROOT + "x"), folder],
        }.get(self.fault, [file, folder])

    def is_immutable(self, request: SourceRequest) -> bool:
        return self.fault == "immutable"

    async def download(self, request: SourceRequest) -> SourceResponse:
        content = await self._content(request)
        part = self._part(request, len(content))
        data = content if part is None else content[part.first : part.last + 1]
        if part is not None and self.fault == "shifted bytes":
            data = content[part.first + 1 : part.last + 2]
        if part is not None and part.first > 0 and self.fault == "one byte over":
            data = content[part.first - 1 : part.last]
        if part is not None and self.fault == "shifted range":
            part = ContentRange(part.first + 1, part.last + 1, part.total)
        if self.fault == "longer":
            data += b"x"
        if self.fault == "shorter":
            data = data[:-1]
        length = len(data) + (7 if self.fault == "wrong answer length" else 0)
        etag = f'"{self.opened}"' if self.fault == "restless etag" else self.etag
        if part is not None and self.fault == "no etag of parts":
            etag = ""
        if self.fault == "any etag" and request.if_range:
            etag = request.if_range
        self.open += 1
        self.opened += 1
        return Response(
            self,
            Body(data, endless=self.fault == "endless"),
            status=201 if self.fault == "wrong status" else 200 if part is None else 206,
            content_length=length,
            range=part if self.fault != "whole tells a range" else ContentRange(0, len(data) - 1, len(data)),
            etag=etag,
            last_modified=self.last_modified,
            digest="sha256:" + (hashlib.sha256(b"x") if self.fault == "digest" else sha(content)).hexdigest(),
            url=request.url,
        )

    async def close(self) -> None:
        self.closed = True

    # --- how ----------------------------------------------------------------------------------------

    @property
    def last_modified(self) -> str:
        return formatdate(CHANGED + (self.version if self.fault == "no etag" else 0), usegmt=True)

    @property
    def etag(self) -> str:
        return "" if self.fault == "no etag" else f'"{self.version}"'

    async def _content(self, request: SourceRequest) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.fault == "hangs":
            await trio.sleep_forever()
        if self.fault == "one at a time" and self.open:
            raise SourceError("busy", origin_status=503)
        if self.fault in ("leaks when closed", "leaks when cancelled") and self.open >= 3:
            raise SourceError("too many open files")
        if request.url in self.contents:
            return self.contents[request.url]
        match self.fault:
            case "missing is empty":
                return b""
            case "missing is a bug":
                raise KeyError(request.url)
            case "missing without status":
                raise SourceError("not there")
            case "missing with traceback":
                raise SourceError('Traceback (most recent call last):\n  File "x"', origin_status=404)
        raise SourceError(f"there is no {request.url}", origin_status=404)

    def _part(self, request: SourceRequest, total: int) -> ContentRange | None:
        if request.range is None or self.fault in ("no ranges", "ignores ranges"):
            return None
        if request.if_range not in ("", self.etag) and self.fault not in (*SAFE, "any etag"):
            return None
        first, last = request.range
        if first >= total:
            if self.fault == "beyond the end is an error":
                raise SourceError("bad range", origin_status=416)
            if self.fault == "beyond the end is empty":
                return ContentRange(first, first - 1, total)
            raise RangeNotSatisfiable("too far", total=total + (self.fault == "wrong total beyond the end"))
        stop = total if last is None else min(last + 1, total)
        if last is not None and self.fault == "not clamped":
            stop = last + 1
        return ContentRange(first, stop - 1, None if self.fault == "no total" else total)

    def change(self) -> None:
        if self.fault == "change keeps the content":
            self.version += 1
            return
        self.contents[URL] = random_bytes(len(CONTENT), seed=2)
        self.version += self.fault not in ("change keeps the version",)


class Body:
    """Gives its data in a few chunks."""

    def __init__(self, data: bytes, *, endless: bool = False) -> None:
        self.data = data
        self.endless = endless

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.data and not self.endless:
            raise StopAsyncIteration
        chunk, self.data = self.data[:70_000] or b"more", self.data[70_000:]
        return chunk


class Response(SourceResponse):
    def __init__(self, fs: Fs, body: Body, **rest: object) -> None:
        super().__init__(body, **rest)  # type: ignore[arg-type]
        self.fs = fs
        self.received = 0
        self.closed = False

    async def receive_into(self, buffer: memoryview) -> int:
        count = await super().receive_into(buffer)
        fault = self.fs.fault
        if fault == "reads anew at the end" and not count:
            self._chunks = None
            self.body = Body(CONTENT)
        if fault == "loses what does not fit" and len(buffer) < 10:
            self._spare = memoryview(b"")
        if fault == "wrong count" and count:
            return len(buffer) + 1
        self.received += count
        return count

    async def aclose(self) -> None:
        fault = self.fs.fault
        if self.closed and fault == "closes once":
            raise RuntimeError("closed already")
        if fault == "leaks when cancelled":
            await trio.lowlevel.checkpoint()
        if fault != "leaks when closed" or self.received == len(CONTENT):
            self.fs.open -= not self.closed
        self.closed = True


def sha(content: bytes) -> hashlib._Hash:
    return hashlib.sha256(content)


def example_of(fault: str = "") -> Example:
    fs = Fs(fault)
    listed = {} if fault == "lists files" else {"folder": ROOT, "children": {"a": False, "folder": True}}
    return Example(fs, URL, CONTENT, missing=ROOT + "nothing", change=fs.change, **listed)  # type: ignore[arg-type]


SAFE = ("no etag", "no ranges", "ignores if_range")
"""What is no fault: a source need not do it."""

FAULTS = [
    ("longer", "whole_content", "goes on after"),
    ("endless", "whole_content", "goes on after"),
    ("shorter", "whole_content", "one is the beginning of the other"),
    ("wrong status", "whole_content", "status 201"),
    ("whole tells a range", "whole_content", "leave it out"),
    ("wrong count", "whole_content", "the number of bytes"),
    ("wrong length", "length_is_right_or_unknown", "300001"),
    ("length in words", "length_is_right_or_unknown", "'300000'"),
    ("wrong answer length", "answer_length_is_right_or_unknown", "300007"),
    ("digest", "digest_is_right_or_absent", "vouches"),
    ("reads anew at the end", "end_stays_the_end", "again and again"),
    ("loses what does not fit", "tiny_and_huge_buffers", "not what it should be"),
    ("one at a time", "many_at_the_same_time", "busy"),
    ("seconds", "last_modified_is_in_milliseconds", "seconds?"),
    ("future", "last_modified_is_in_milliseconds", "future"),
    ("another time", "last_modified_is_in_milliseconds", "the same change"),
    ("fraction", "last_modified_is_in_milliseconds", "whole milliseconds"),
    ("maybe ranges", "ranges_are_exact", "True or False"),
    ("ignores ranges", "ranges_are_exact", "status 200"),
    ("shifted bytes", "ranges_are_exact", "differ from byte"),
    ("shifted range", "ranges_are_exact", r"ContentRange\(0, 0, 300000\)"),
    ("not clamped", "ranges_are_exact", r"ContentRange\(150000, 299999, 300000\)"),
    ("no total", "ranges_are_exact", "total=None"),
    ("beyond the end is an error", "ranges_beyond_the_end_are_refused", "raise RangeNotSatisfiable"),
    ("beyond the end is empty", "ranges_beyond_the_end_are_refused", "status 206"),
    ("wrong total beyond the end", "ranges_beyond_the_end_are_refused", "total 300001"),
    ("no ranges but parts", "without_ranges_the_whole_comes", "status 206"),
    ("any etag", "a_range_of_another_version_is_not_given", 'there is "1"'),
    ("shifted bytes", "parts_make_the_whole", "five ranges"),
    ("no etag of parts", "answers_tell_the_same_version", "a part tells another version"),
    ("restless etag", "answers_tell_the_same_version", "two versions"),
    ("always expired", "just_read_is_not_expired", "again and again"),
    ("never expired", "another_version_is_expired", "never be noticed"),
    ("trouble expires", "trouble_is_not_expiry", "nothing is"),
    ("immutable", "immutable_is_said_without_waiting", "never be asked for again"),
    ("change keeps the version", "changed_content_is_noticed", "still tell"),
    ("change keeps the content", "changed_content_is_noticed", "still gives the old content"),
    ("never expired", "changed_content_is_noticed", "the old version"),
    ("missing is empty", "missing_is_said_in_words", "raise SourceError"),
    ("missing is a bug", "missing_is_said_in_words", "raised KeyError"),
    ("missing without status", "missing_is_said_in_words", "not there is 404"),
    ("missing with traceback", "missing_is_said_in_words", "in one line"),
    ("leaks when closed", "an_answer_can_be_closed_early", "too many open files"),
    ("closes once", "an_answer_can_be_closed_early", "closing an answer twice raised RuntimeError"),
    ("leaks when cancelled", "cancelled_reads_leave_the_client_usable", "too many open files"),
    ("lists files", "what_cannot_be_listed_says_so", "list gave"),
    ("lists itself", "a_folder_lists_its_children", "not the folder itself"),
    ("lists too little", "a_folder_lists_its_children", "leaves out 'folder'"),
    ("lists twice", "a_folder_lists_its_children", "twice"),
    ("wrong kind", "a_folder_lists_its_children", "'a' is a folder"),
    ("lists names", "what_is_listed_reads_back", "whole URLs"),
    ("lists what is not there", "what_is_listed_reads_back", "failed: there is no"),
    ("wrong size", "what_is_listed_reads_back", "299999 bytes"),
    ("longer", "the_engine_reads_it", "the length for 300001"),
    ("one byte over", "the_engine_reads_parts_at_the_same_time", "piece 1 of 15 is not"),
    ("change keeps the version", "the_engine_reads_what_it_changed_to", "held from before"),
]
CHECK = {check.__name__: check for check in CHECKS}


@pytest.mark.parametrize(("fault", "name", "words"), FAULTS)
async def test_a_fault_is_caught(fault: str, name: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        await CHECK[name](example_of(fault))


def test_every_check_catches_something() -> None:
    assert {name for _, name, _ in FAULTS} == CHECK.keys()


async def test_a_client_that_hangs_is_caught(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AssertionError, match="without a deadline"):
        await CHECK["whole_content"](example_of("hangs"))


@pytest.mark.parametrize("variant", ["", *SAFE])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_what_is_right_passes(check: Check, variant: str) -> None:
    await check(example_of(variant))


def test_plugin_authors_get_a_test_for_each_check() -> None:
    tests = {name: getattr(SourceConformance, name) for name in dir(SourceConformance)}
    for check in CHECKS:
        example = example_of()
        test = tests[f"test_{check.__name__}"]
        assert test.__doc__ == check.__doc__
        test(SourceConformance(), example)
        assert example.client.closed  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="300001"):
        tests["test_length_is_right_or_unknown"](SourceConformance(), example_of("wrong length"))
