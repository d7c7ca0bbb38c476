"""The answers of a hub's tree API: what lies directly below a folder, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin

import msgspec

from cdn.sources.huggingface.places import HubPlace
from cdn.sources.interface import SourceEntry, SourceResponse
from shared.errors import SourceError

PAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of the longest page that is taken; one of a thousand entries has a few hundred KiB."""

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[a-zA-Z*]+\s*=\s*(?:\"[^\"]*\"|[^\s,;\"]+))*)")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|$)", re.IGNORECASE)


class _Pointer(msgspec.Struct):
    oid: str = ""
    size: int = -1


class _Item(msgspec.Struct):
    type: str
    path: str
    size: int = -1
    oid: str = ""
    lfs: _Pointer | None = None


async def read_page(answer: SourceResponse, place: HubPlace) -> list[_Item]:
    """The items of a page. Raises SourceError when it is too long, or not what a hub answers."""
    body = bytearray()
    buffer = memoryview(bytearray(64 * 1024))
    while count := await answer.receive_into(buffer):
        body += buffer[:count]
        if len(body) > PAGE_LIMIT:
            raise SourceError(f"{place}: a page of its listing is longer than {PAGE_LIMIT} bytes")
    try:
        return msgspec.json.decode(body, type=list[_Item])
    except msgspec.DecodeError as error:
        raise SourceError(f"{place}: its listing is not what a hub answers ({error})") from None


def entries_of(place: HubPlace, items: list[_Item]) -> Iterator[SourceEntry]:
    """The files and folders directly below ``place``; whatever else a page names is left out."""
    front = f"{place.path}/" if place.path else ""
    for item in items:
        name = item.path.removeprefix(front)
        below = item.path.startswith(front) and name not in ("", ".", "..") and "/" not in name
        if not below or item.type not in ("file", "directory"):
            continue
        if item.type == "directory":
            yield SourceEntry(place.child_url(item.path, is_folder=True), is_folder=True)
            continue
        held = item.lfs or _Pointer(item.oid, item.size)
        url = place.child_url(item.path, is_folder=False)
        yield SourceEntry(url, size=max(held.size, -1), version=held.oid or item.oid)


def next_page(link: str, url: str) -> str:
    """Where a listing goes on, from the Link field (RFC 8288 §3) of the page at ``url``; "" at its end."""
    for found in _LINK.finditer(link):
        if _NEXT.search(found[2]):
            try:
                return str(urljoin(url, found[1]))
            except ValueError:
                return ""
    return ""
