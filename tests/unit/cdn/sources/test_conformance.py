"""What every resource client must do, run against each of them, and what only one of them does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import pytest

from cdn.policy import SourcePolicy
from cdn.sources.file import FileSource
from cdn.sources.http import HttpSource, hop_headers, next_hop, parse_content_range, parse_retry_after
from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceCut,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.registry import SourceRegistry
from shared.errors import ConfigError, SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import Behaviour, random_bytes, serving

CONTENT = random_bytes(300_000)
CHANGED = 1_700_000_000


class MemorySource(AsyncResourceClient):
    """The smallest client that is one."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    def _of(self, request: SourceRequest) -> bytes:
        if request.url not in self.contents:
            raise SourceError("no such content", origin_status=404)
        return self.contents[request.url]

    async def get_content_length(self, request: SourceRequest) -> int:
        return len(self._of(request))

    async def is_support_range(self, request: SourceRequest) -> bool:
        self._of(request)
        return False

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        return request.url in self.contents and info.etag != '"one"'

    async def download(self, request: SourceRequest) -> SourceResponse:
        return SourceResponse(
            self._of(request), etag='"one"', last_modified=formatdate(CHANGED, usegmt=True), url=request.url
        )

    async def get_last_modified(self, request: SourceRequest) -> int:
        self._of(request)
        return CHANGED * 1000


@asynccontextmanager
async def memory(tmp_path: Path) -> AsyncIterator[tuple[AsyncResourceClient, str]]:
    yield MemorySource({"memory://a": CONTENT}), "memory://a"


@asynccontextmanager
async def files(tmp_path: Path) -> AsyncIterator[tuple[AsyncResourceClient, str]]:
    path = tmp_path / "ä file"
    path.write_bytes(CONTENT)
    os.utime(path, (CHANGED, CHANGED))
    yield FileSource([tmp_path]), f"file://{quote(str(path))}"


@asynccontextmanager
async def http(tmp_path: Path) -> AsyncIterator[tuple[AsyncResourceClient, str]]:
    async with serving() as origin, HttpClient() as client:
        origin.behaviours["/a"] = Behaviour(CONTENT, last_modified=formatdate(CHANGED, usegmt=True))
        yield HttpSource(client, SourcePolicy(["http"])), origin.url("/a")


every = pytest.mark.parametrize("source", [memory, files, http])


async def read(response: SourceResponse, size: int = 7001) -> bytes:
    buffer, content = memoryview(bytearray(size)), b""
    async with response:
        while count := await response.receive_into(buffer):
            content += buffer[:count]
        assert await response.receive_into(buffer) == 0
    return content


@every
async def test_whole(source: object, tmp_path: Path) -> None:
    async with source(tmp_path) as (client, url):  # type: ignore[operator]
        response = await client.download(SourceRequest(url))
        assert (response.status, response.content_length, response.range) == (200, len(CONTENT), None)
        assert response.url == url
        assert await read(response) == CONTENT
        assert await client.get_content_length(SourceRequest(url)) == len(CONTENT)
        assert await client.get_last_modified(SourceRequest(url)) == CHANGED * 1000


@every
async def test_ranges(source: object, tmp_path: Path) -> None:
    async with source(tmp_path) as (client, url):  # type: ignore[operator]
        if not await client.is_support_range(SourceRequest(url)):
            return
        for first, last in ((0, 0), (5, 9), (100, None), (299_990, 999_999)):
            response = await client.download(SourceRequest(url, range=(first, last)))
            expected = CONTENT[first : len(CONTENT) if last is None else last + 1]
            assert response.status == 206
            assert response.range is not None
            assert (response.range.first, len(response.range), response.range.total) == (
                first,
                len(expected),
                len(CONTENT),
            )
            assert await read(response) == expected
        whole = await client.download(SourceRequest(url, range=(5, 9), if_range='"other"'))
        assert whole.status == 200
        await whole.aclose()
        with pytest.raises(RangeNotSatisfiable) as caught:
            await client.download(SourceRequest(url, range=(len(CONTENT), None)))
        assert caught.value.total == len(CONTENT)


@every
async def test_expiry(source: object, tmp_path: Path) -> None:
    async with source(tmp_path) as (client, url):  # type: ignore[operator]
        async with await client.download(SourceRequest(url)) as response:
            info = ExpireInfo(response.last_modified, response.etag)
        assert not await client.is_expired(SourceRequest(url), info)
        assert await client.is_expired(SourceRequest(url), ExpireInfo(etag='"other"'))
        assert not await client.is_expired(SourceRequest(url + "x"), info), "trouble is not expiry"


@every
async def test_missing(source: object, tmp_path: Path) -> None:
    async with source(tmp_path) as (client, url):  # type: ignore[operator]
        with pytest.raises(SourceError) as caught:
            await client.download(SourceRequest(url + "x"))
        assert caught.value.origin_status == 404
        with pytest.raises(SourceError, match="cannot be listed"):
            await client.list(SourceRequest(url))


# --- files --------------------------------------------------------------------------------------


async def test_nothing_outside_the_folders_is_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_text("secret")
    (root / "link").symlink_to(secret)
    (root / "inside").write_text("fine")
    (root / "good").symlink_to(root / "inside")
    (tmp_path / "rootling").write_text("x")
    os.mkfifo(root / "fifo")
    client = FileSource([root])
    for path in ("link", "../secret", "%2e%2e/secret", "../rootling", "fifo", "."):
        with pytest.raises(SourceError) as caught:
            await client.download(SourceRequest(f"file://{root}/{path}"))
        assert (caught.value.fault, caught.value.origin_status) == ("reader", 403), path
    assert await read(await client.download(SourceRequest(f"file://localhost{root}/good"))) == b"fine"
    for url in (f"file://elsewhere{root}/inside", "file:relative", "file:///a%00b"):
        with pytest.raises(SourceError) as caught:
            await client.download(SourceRequest(url))
        assert caught.value.fault == "request"


async def test_a_file_that_changes_is_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    response = await FileSource([tmp_path]).download(SourceRequest(f"file://{path}"))
    async with response:
        buffer = memoryview(bytearray(10))
        assert await response.receive_into(buffer) == 10
        path.write_bytes(b"b" * 101)
        with pytest.raises(SourceCut, match="changed"):
            await response.receive_into(buffer)


# --- http ---------------------------------------------------------------------------------------


async def test_unknown_lengths_and_dates() -> None:
    async with serving() as origin, HttpClient() as http_client:
        origin.behaviours["/a"] = Behaviour(b"x", framing="chunked", ranges="ignore", last_modified="soon")
        client = HttpSource(http_client, SourcePolicy(["http"]))
        request = SourceRequest(origin.url("/a"))
        assert await client.get_content_length(request) == UNKNOWN_SOURCE_FILE_LENGTH
        assert await client.get_last_modified(request) == -1
        assert not await client.is_support_range(request)
        origin.behaviours["/a"] = Behaviour(b"x", headers={"Content-Encoding": "br"})
        with pytest.raises(SourceError, match="'br'"):
            await client.download(request)


async def test_an_expired_redirection_is_followed_anew() -> None:
    async with serving() as origin, HttpClient() as http_client:
        origin.behaviours["/new"] = Behaviour(b"hello")
        origin.behaviours["/a"] = Behaviour(status=302, headers={"Location": "/new"})
        client = HttpSource(http_client, SourcePolicy(["http"]))
        url = origin.url("/a")
        response = await client.download(SourceRequest(url, resolved_url=origin.url("/old")))
        assert response.url == origin.url("/new")
        assert await read(response) == b"hello"


def test_headers_for_each_hop() -> None:
    request = SourceRequest("http://host/x", {"Authorization": "s", "cookie": "c", "User-Agent": "me"})
    assert hop_headers(request, "http://host:80/y").keys() == {"authorization", "cookie", "user-agent"}
    assert hop_headers(request, "https://host/y").keys() == {"authorization", "cookie", "user-agent"}
    for url in ("http://other/x", "http://host:81/x", "https://host:8443/x"):
        assert hop_headers(request, url).keys() == {"user-agent"}


def test_next_hop() -> None:
    plain = SourceRequest("https://host/a/b", {"user-agent": "me"})
    assert next_hop(plain, plain.url, "../c?d=e#f") == "https://host/c?d=e"
    assert next_hop(plain, plain.url, "http://other/ä") == "http://other/%C3%A4"
    assert next_hop(plain, plain.url, "/ä".encode().decode("latin-1")) == "https://host/%C3%A4"
    assert next_hop(plain, plain.url, "//u:p@other/x") == "https://other/x"
    secret = SourceRequest("https://host/a", {"authorization": "x"})
    with pytest.raises(SourceError, match="https to http"):
        next_hop(secret, secret.url, "http://host/a")
    for location in ("file:///etc/passwd", "http://", "javascript:alert(1)", "http://[x"):
        with pytest.raises(SourceError):
            next_hop(plain, plain.url, location)


def test_content_range() -> None:
    assert parse_content_range("bytes 0-4/5") == ((0, 4), 5)
    assert parse_content_range("Bytes  1-2/*") == ((1, 2), None)
    assert parse_content_range("bytes */7") == (None, 7)
    for wrong in ("", "bytes */*", "bytes 4-3/9", "bytes 0-9/9", "items 0-1/2", "bytes 0-1", "bytes -1-2/3"):
        assert parse_content_range(wrong) is None, wrong


def test_retry_after() -> None:
    assert parse_retry_after("7", 0) == 7
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10) == 50
    assert parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", 10) == 0
    assert parse_retry_after("999999", 0) == 3600
    for wrong in ("", "soon", "-1"):
        assert parse_retry_after(wrong, 0) is None


async def test_registry() -> None:
    registry, one = SourceRegistry(), MemorySource({})
    registry.register("D7YFS", one)
    registry.register("d7yfs", one)
    assert await registry.get("d7yFS") is one
    assert "d7yfs" in registry
    assert registry.schemes() == ["d7yfs"]
    with pytest.raises(ConfigError, match="two sources"):
        registry.register("d7yfs", MemorySource({}))
    with pytest.raises(SourceError, match="cannot read other") as caught:
        await registry.get("other")
    assert caught.value.fault == "reader"
