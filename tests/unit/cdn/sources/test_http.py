"""What only the sources behind http:// and https:// do."""

from __future__ import annotations

import pytest

from cdn.policy import SourcePolicy
from cdn.sources.http import HttpSource, hop_headers, next_hop, parse_content_range, parse_retry_after
from cdn.sources.interface import UNKNOWN_SOURCE_FILE_LENGTH, SourceRequest
from shared.errors import SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import Behaviour, serving
from tests.unit.cdn.sources.examples import read


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
