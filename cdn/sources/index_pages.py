"""What lies in a folder, from the page that an HTTP server makes of it. Pure.

Understood are pages of links, as nginx, Apache, Caddy, Python and others make them, and nginx's JSON
(``autoindex_format json``). A page of links is nobody's standard: what counts as an entry is a link that leads
exactly one name below the folder, however it is written. Sizes in such a page are text for people, so they
are hints; together with the date beside them they tell one version of a file from another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec

from cdn.sources.interface import SourceEntry
from shared.errors import SourceError

MAX_PAGE = 16 * 1024 * 1024
"""Longest page that is read, in bytes."""

MAX_ENTRIES = 200_000
"""Most links of a page that are looked at."""

_HTML = frozenset({"text/html", "application/xhtml+xml"})
_NGINX_ROW = re.compile(r'<a href="([^"<>&]++)">[^<>]*+</a>[ ]++([^ <>]++ [^ <>]++)[ ]++([0-9]{1,15}|-)\r?\n')
_OPENING = re.compile(r"<(?:(!--)|(script|style|textarea|template)(?=[\s/>])|a(?=[\s/]))", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>="'][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>][^\s>]*+)))?"""
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_~%!$'()*,;=+@-][A-Za-z0-9._~%!$'()*,;=+@-]*+/?")
_ROW_END = re.compile(r"</?(?:tr|pre|table|ul|li|hr|address|footer)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*+>")
_SIZE = re.compile(r"(?:^|\s)(\d{1,15})(?: ?bytes| ?B)?$")
_ROUND_SIZE = re.compile(r"(?:^|\s)(\d{1,6}(?:\.\d{1,3})?) ?([KMGT])(?:i?B)?$", re.IGNORECASE)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SAFE = "%!$&'()*+,:;=@~"
_BEHIND = 1000
"""Characters behind a link that are looked at."""


def read_index(body: bytes, content_type: str, place: str, folder: str) -> list[SourceEntry]:
    """The entries of a page that came from ``place`` for ``folder`` (both end with a slash).

    ``place`` is another URL where a redirection led; the entries are named below ``folder``. Raises SourceError
    (fault "request") when the page is of no kind that lists.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/json":
        found = _json_entries(body)
    elif kind in _HTML:
        charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", parameters, re.IGNORECASE)
        found = _html_entries(_decoded(body, charset[1] if charset else "utf-8"), place)
    else:
        raise not_an_index(f"it is of type {kind or 'unknown'}, not a page of links")
    entries: dict[str, SourceEntry] = {}
    for name, size, hint, version in found:
        if name not in entries or (version and not entries[name].version):  # a first link may be an icon
            entries[name] = SourceEntry(folder + name, name.endswith("/"), size, version, hint)
            if len(entries) > MAX_ENTRIES:
                raise not_an_index(f"it lists more than {MAX_ENTRIES} names")
    return list(entries.values())


def not_an_index(why: str) -> SourceError:
    """The error for what is no listing; the caller adds which URL."""
    return SourceError(why, fault="request")


_Found = tuple[str, int, int, str]
"""Name as in a URL (ending with "/" for a folder), size, hint, version."""


# --- JSON ---------------------------------------------------------------------------------------------


class _Item(msgspec.Struct):
    name: str
    type: str
    mtime: str = ""
    size: int = -1


def _json_entries(body: bytes) -> Iterator[_Found]:
    try:
        items = msgspec.json.decode(body, type=list[_Item])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise not_an_index("it is JSON, but not a list of files") from None
    for item in items:
        name = quote(item.name, safe=_SAFE.replace("%", ""))
        if item.type == "directory":
            yield name + "/", -1, -1, item.mtime
        elif item.type == "file":
            yield name, item.size, item.size, f"{item.mtime} {item.size}" if item.mtime else ""


# --- pages of links -----------------------------------------------------------------------------------


def _html_entries(page: str, place: str) -> Iterator[_Found]:
    rows = _NGINX_ROW.findall(page)
    # every link of the page but the one that leads up, and nothing that hides one
    if rows and page.count("<a") == len(rows) + 1 and "<A" not in page and "<!--" not in page:
        for href, moment, size in rows:
            name = _child(href, place)
            if name is not None:
                folder = name.endswith("/")
                yield name, -1, -1 if folder or size == "-" else int(size), f"{moment} {size}"
        return
    links = list(_links(page))
    for number, (href, _, end) in enumerate(links):
        name = _child(unescape(href) if "&" in href else href, place)
        if name is None:
            continue
        stop = links[number + 1][1] if number + 1 < len(links) else len(page)
        version, hint = _row(page[end : min(stop, end + _BEHIND)])
        yield name, -1, -1 if name.endswith("/") else hint, version


def _links(page: str) -> Iterator[tuple[str, int, int]]:
    """The links as (href, where its tag begins, where it ends). One pass: work grows with the page only."""
    position = 0
    while found := _OPENING.search(page, position):
        position = found.end()
        if found[1] or found[2]:
            closing = "-->" if found[1] else f"</{found[2]}"
            end = re.compile(closing, re.IGNORECASE).search(page, position)
            if end is None:
                return
            position = end.end()
            continue
        href: str | None = None
        while attribute := _ATTRIBUTE.match(page, position):
            position = attribute.end()
            if href is None and attribute[1].lower() == "href":
                href = attribute[2] or attribute[3] or attribute[4]
        if href:
            yield href, found.start(), position


def _row(text: str) -> tuple[str, int]:
    """What stands behind a link up to the end of its row: as a version ("" without a digit), and the size that
    it seems to tell (-1: none)."""
    text = text[text.lower().find("</a") + 3 :] if "</a" in text.lower() else ""
    end = _ROW_END.search(text.partition(">")[2])
    inner = text.partition(">")[2]
    text = inner[: end.start()] if end else inner
    text = " ".join(unescape(_TAG.sub(" ", text)).split())
    hint = -1
    if exact := _SIZE.search(text):
        hint = int(exact[1])
    elif rounded := _ROUND_SIZE.search(text):
        hint = int(float(rounded[1]) * _UNITS[rounded[2].upper()])
    return (text if any(c.isdigit() for c in text) else ""), hint


def _child(href: str, place: str) -> str | None:
    """The name of the entry that a link leads to, percent-encoded, with "/" behind a folder; None for a link to
    anywhere else."""
    if _PLAIN_NAME.fullmatch(href):
        return href
    href = href.strip().replace("\t", "").replace("\n", "").replace("\r", "")
    try:
        target, base = urlsplit(urljoin(place, href)), urlsplit(place)
        same = (target.scheme, target.hostname, target.port) == (base.scheme, base.hostname, base.port)
    except ValueError:
        return None
    if not same or "?" in href or "#" in href:
        return None
    above, parts = base.path.split("/")[:-1], target.path.split("/")
    if [unquote(part) for part in parts[: len(above)]] != [unquote(part) for part in above]:
        return None
    rest = parts[len(above) :]
    folder = len(rest) == 2 and not rest[1]
    if not rest or not rest[0] or (len(rest) != 1 and not folder):
        return None
    return quote(rest[0], safe=_SAFE, errors="surrogateescape") + ("/" if folder else "")


def _decoded(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset, "surrogateescape")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "surrogateescape")
