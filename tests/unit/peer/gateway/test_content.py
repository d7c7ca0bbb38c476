"""Media types, ranges and header fields of answers."""

from __future__ import annotations

import pytest

from peer.gateway.content import (
    BLOB_TYPE,
    content_headers,
    is_manifest_type,
    manifest_type,
    select_blob,
    select_whole,
)
from peer.gateway.target import Target
from shared.http.fields import Headers
from shared.http.ranges import Span

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("text", [OCI, INDEX, DOCKER, SIGNED, f"{OCI}; charset=utf-8", OCI.upper()])
def test_types_that_tell(text: str) -> None:
    assert is_manifest_type(text)
    assert manifest_type(["application/json", text], b"not looked at") == text


@pytest.mark.parametrize(
    "text",
    ["", "application/json", "text/html", "text/html; application/vnd.x+json", "application/vnd.x\r\n+json"],
)
def test_types_that_do_not(text: str) -> None:
    assert not is_manifest_type(text)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"schemaVersion": 2, "mediaType": "%s"}' % DOCKER.encode(), DOCKER),
        (b'{"schemaVersion": 2, "config": {}, "layers": []}', OCI),
        (b'{"schemaVersion": 2, "manifests": []}', INDEX),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/vnd.docker.distribution.manifest.v1+json"),
        (b'{"mediaType": "text/html", "layers": 7}', "application/json"),
        (b'{"mediaType": 5}', "application/json"),
        (b"<html>", "application/json"),
        (b"", "application/json"),
    ],
)
def test_what_a_manifest_says_itself(data: bytes, kind: str) -> None:
    assert manifest_type(["text/plain", "application/json"], data) == kind


def test_nothing_that_a_browser_would_run() -> None:
    page = b'{"mediaType": "text/html"}'
    assert manifest_type(["text/html", "application/xhtml+xml"], page) == BLOB_TYPE


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=500-1499", 206, Span(500, 1500)),
        ("bytes=500-", 206, Span(500, 3000)),
        ("bytes=-500", 206, Span(2500, 3000)),
        ("bytes=-5000", 206, Span(0, 3000)),
        ("bytes=2000-5000", 206, Span(2000, 3000)),
        ("bytes=0-", 206, Span(0, 3000)),
        ("bytes=3000-", 416, None),
        ("bytes=5000-10000", 416, None),
        ("bytes=500-0", 416, None),
        ("Bytes = 500-0", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=a-b", 200, Span(0, 3000)),
        ("lines=1-2", 200, Span(0, 3000)),
    ],
)
def test_ranges(wanted: str, status: int, span: Span | None) -> None:
    selection = select_blob("GET", Headers([("range", wanted)]), 3000, DIGEST)
    assert (selection.status, selection.span) == (status, span)
    fields = dict(selection.headers)
    assert fields["etag"] == f'"{DIGEST}"'
    assert fields["accept-ranges"] == "bytes"
    assert (
        fields.get("content-range")
        == {
            200: None,
            206: span and f"bytes {span.start}-{span.stop - 1}/3000",
            416: "bytes */3000",
        }[status]
    )


def test_a_backward_range_of_another_version_is_ignored() -> None:
    headers = Headers([("range", "bytes=5-0"), ("if-range", '"other"')])
    assert select_blob("GET", headers, 3000, DIGEST).status == 200


def test_conditions() -> None:
    same = Headers([("if-none-match", f'"{DIGEST}"')])
    other = Headers([("if-none-match", '"x"')])
    for method in ("GET", "HEAD"):
        assert select_blob(method, same, 3000, DIGEST).status == 304
        assert select_whole(method, same, DIGEST).status == 304
        assert select_blob(method, other, 3000, DIGEST).status == 200
    assert select_whole("GET", Headers([("range", "bytes=1-2")]), DIGEST).status == 200
    assert select_blob("HEAD", Headers([("range", "bytes=1-2")]), 3000, DIGEST).status == 200


def test_fields() -> None:
    target = Target("blobs", "docker.io", "library/a", digest=DIGEST, ns="index.docker.io")
    assert dict(content_headers(target, DIGEST, "stale")) == {
        "docker-distribution-api-version": "registry/2.0",
        "docker-content-digest": DIGEST,
        "oci-namespace": "docker.io",
        "cache-status": "dragonet; fwd=stale",
    }
    bare = Target("blobs", "docker.io", "library/a", digest=DIGEST)
    assert "oci-namespace" not in dict(content_headers(bare, DIGEST, "hit"))
