"""Clients as authors of plugins write them: plain functions and generators, or async ones."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    ResourceClient,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from tests.unit.cdn.sources.examples import CHANGED, CONTENT, OTHER

ROOT = "plain://host/"


class Plain(ResourceClient):
    """Blocking functions; bodies are generators."""

    def __init__(self) -> None:
        self.contents = {"a": CONTENT}

    def _of(self, request: SourceRequest) -> bytes:
        name = request.url.removeprefix(ROOT)
        if name not in self.contents:
            raise SourceError(f"there is no {name}", origin_status=404)
        return self.contents[name]

    def get_content_length(self, request: SourceRequest) -> int:
        return len(self._of(request))

    def is_support_range(self, request: SourceRequest) -> bool:
        return True

    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return info.etag != str(hash(self._of(request)))

    def get_last_modified(self, request: SourceRequest) -> int:
        return CHANGED * 1000

    def download(self, request: SourceRequest) -> SourceResponse:
        content = self._of(request)
        part = None
        if request.range is not None:
            first, last = request.range
            if first >= len(content):
                raise RangeNotSatisfiable("beyond the end", total=len(content))
            part = ContentRange(
                first, min(len(content) if last is None else last, len(content) - 1), len(content)
            )
            content = content[part.first : part.last + 1]
        etag = str(hash(self._of(request)))
        return SourceResponse(
            self._chunks(content),
            status=206 if part else 200,
            range=part,
            etag=etag,
            content_length=len(content),
        )

    def _chunks(self, content: bytes) -> Iterator[bytes]:
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    def list(self, request: SourceRequest) -> list[SourceEntry | str]:
        return [ROOT + "a"]

    def example(self) -> Example:
        def change() -> None:
            self.contents["a"] = OTHER

        return Example(
            self,
            ROOT + "a",
            CONTENT,
            missing=ROOT + "b",
            folder=ROOT,
            children={"a": False},
            change=change,
        )


class Bare(ResourceClient):
    """The least that a plugin can be: no length, no ranges, no versions; its body is an open file."""

    def get_content_length(self, request: SourceRequest) -> int:
        return UNKNOWN_SOURCE_FILE_LENGTH

    def is_support_range(self, request: SourceRequest) -> bool:
        return False

    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return False

    def get_last_modified(self, request: SourceRequest) -> int:
        return -1

    def download(self, request: SourceRequest) -> SourceResponse:
        return SourceResponse(io.BytesIO(CONTENT))

    def example(self) -> Example:
        return Example(self, "bare://host/a", CONTENT)


class Async(ResourceClient):
    """Async functions; bodies are async generators."""

    def __init__(self) -> None:
        self.plain = Plain()

    async def get_content_length(self, request: SourceRequest) -> int:
        return self.plain.get_content_length(request)

    async def is_support_range(self, request: SourceRequest) -> bool:
        return True

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return self.plain.is_expired(request, info)

    async def get_last_modified(self, request: SourceRequest) -> int:
        return -1

    async def download(self, request: SourceRequest) -> SourceResponse:
        response = self.plain.download(request)
        response.body = self._chunks(response.body)  # type: ignore[arg-type]
        return response

    async def _chunks(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def close(self) -> None:
        self.plain.contents.clear()

    def example(self) -> Example:
        async def change() -> None:
            self.plain.contents["a"] = OTHER

        return Example(self, ROOT + "a", CONTENT, missing=ROOT + "b", change=change)


@pytest.mark.parametrize("kind", [Plain, Bare, Async])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, kind: type[Plain | Bare | Async]) -> None:
    await check(kind().example())


AUTHORS_TEST = """
import pytest

from cdn.sources.interface import ResourceClient, SourceResponse
from cdn.sources.testing import Example, SourceConformance


class Mine(ResourceClient):
    def get_content_length(self, request):
        return 12

    def is_support_range(self, request):
        return False

    def is_expired(self, request, info):
        return False

    def get_last_modified(self, request):
        return -1

    def download(self, request):
        return SourceResponse(b"hello world")


class TestMine(SourceConformance):
    @pytest.fixture
    def example(self):
        return Example(Mine(), "mine://host/path", b"hello world")
"""


def test_an_author_needs_pytest_only(tmp_path: Path) -> None:
    """None of the plugins that our own tests use, and nothing of our test folder."""
    (tmp_path / "test_mine.py").write_text(AUTHORS_TEST)
    root = Path(__file__).resolve().parents[5]
    program = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    without = [f"-pno:{name}" for name in ("trio", "xdist", "timeout", "cacheprovider")]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "-q",
            "-Werror",
            "-c/dev/null",
            "--rootdir=.",
            *without,
            "test_mine.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"1 failed, {len(CHECKS) - 1} passed" in done.stdout, done.stdout + done.stderr
    assert "get_content_length gave 12" in done.stdout
    assert done.returncode == 1
