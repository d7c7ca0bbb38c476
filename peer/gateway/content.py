"""What stands in the answers with manifests and blobs: media type, range, header fields. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from cdn.sources.oci.descriptor import media_type_of
from peer.gateway.errors import API_VERSION
from peer.gateway.target import Target
from shared.http.fields import Headers
from shared.http.ranges import Selection, if_range_holds, select

Cache = Literal["hit", "miss", "stale", "none"]
"""How an answer came about: from what was held here, from elsewhere, from what could not be checked when it was
time to; "none" for what is never kept."""

BLOB_TYPE = "application/octet-stream"

_CACHE_STATUS: dict[Cache, str] = {
    "hit": "dragonet; hit",
    "miss": "dragonet; fwd=miss",
    "stale": "dragonet; fwd=stale",
    "none": "dragonet; fwd=bypass",
}
_MANIFEST_TYPE = re.compile(r"application/vnd\.[\w.+-]*(?:\+json|\+prettyjws)", re.ASCII)
_BACKWARDS = re.compile(r"bytes\s*=\s*([0-9]{1,18})-([0-9]{1,18})", re.IGNORECASE)


def is_manifest_type(text: str) -> bool:
    """Whether a media type tells what kind of manifest it is; many servers say only that it is JSON."""
    return _MANIFEST_TYPE.fullmatch(_bare(text)) is not None


def manifest_type(told: list[str], data: bytes) -> str:
    """The media type of a manifest: the first of those that were ``told`` that says what it is, else what its
    own content says, else the first that was told at all."""
    for text in told:
        if is_manifest_type(text):
            return text
    return next((text for text in (media_type_of("", data), *told) if _is_harmless(text)), BLOB_TYPE)


def _bare(text: str) -> str:
    return text.partition(";")[0].strip().lower()


def _is_harmless(text: str) -> bool:
    """Whether a browser that is led to it will not run it."""
    kind = _bare(text)
    return kind.startswith("application/") and kind != BLOB_TYPE and not kind.endswith("xml")


def select_blob(method: str, headers: Headers, length: int, digest: str) -> Selection:
    """Which bytes of a blob to answer with, and how.

    As :func:`shared.http.ranges.select`, but a range that ends before it begins is answered with 416, which
    the conformance suite of the distribution specification asks for (RFC 9110 §14.2 leaves it open).
    """
    etag = f'"{digest}"'
    selection = select(method, headers, length=length, etag=etag)
    match = _BACKWARDS.fullmatch(headers.get("range", "").strip())
    if (
        selection.status == 200
        and method == "GET"
        and match is not None
        and int(match[2]) < int(match[1])
        and if_range_holds(headers.get("if-range"), etag, "")
    ):
        unsatisfied = [*selection.headers, ("content-range", f"bytes */{length}")]
        return replace(selection, status=416, span=None, headers=unsatisfied)
    return selection


def select_whole(method: str, headers: Headers, digest: str) -> Selection:
    """Whether to answer with content that is given whole: not to who has it already."""
    return select(method, headers, length=None, etag=f'"{digest}"')


def content_headers(target: Target, digest: str, cache: Cache) -> list[tuple[str, str]]:
    """The fields of every answer with content, but for those of a :class:`Selection`."""
    return [
        API_VERSION,
        ("docker-content-digest", digest),
        *namespace_headers(target),
        ("cache-status", _CACHE_STATUS[cache]),
    ]


def namespace_headers(target: Target) -> list[tuple[str, str]]:
    """Which registry was asked, for who named one (specification, "Registry Proxying")."""
    return [("oci-namespace", target.registry)] if target.ns else []
