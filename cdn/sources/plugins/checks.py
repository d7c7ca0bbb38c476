"""What a plugin gives is held against what the interface promises. Pure; nothing here waits.

Every check raises the SourceError that its ``words`` make: the plugin's name, what it gave, what was wanted.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import TypeGuard, cast
from urllib.parse import urljoin, urlsplit

from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    Body,
    ContentRange,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.plugins.words import Words, describe
from shared.errors import InvalidRequest, SourceError
from shared.task.digest import parse_content_digest

METHODS = {
    "get_content_length": 1,
    "is_support_range": 1,
    "is_expired": 2,
    "download": 1,
    "get_last_modified": 1,
}
"""What every client has, and the number of arguments of each."""
OPTIONAL = {"list": 1, "is_immutable": 1, "close": 0}
"""What a client may have."""
MAX_NUMBER = 2**63 - 1
MAX_FIELD = 4096
"""Characters of a field of an answer."""

_FIELD = re.compile(r"[\x20-\x7e\x80-\xff]*")


def check_methods(client: object) -> None:
    """Whether ``client`` has the methods of a ResourceClient; it need not derive from it.

    Raises SourceError that names what is missing, not callable, or takes other arguments.
    """
    if inspect.isclass(client):
        raise SourceError(
            f"its client is the class {client.__name__}, not an object of it: give {client.__name__}()"
        )
    wrong = []
    for name, count in {**METHODS, **OPTIONAL}.items():
        method = getattr(client, name, None)
        if method is None:
            if name in METHODS:
                wrong.append(f"it lacks {name}")
        elif not callable(method):
            wrong.append(f"its {name} is no function but {describe(method)}")
        elif not _takes(method, count):
            wrong.append(f"its {name} does not take {count} argument{'s' * (count != 1)}")
    if wrong:
        raise SourceError(
            f"{type(client).__name__} is no resource client: {', '.join(wrong)} "
            "(see cdn.sources.interface.ResourceClient)"
        )


def _takes(method: object, count: int) -> bool:
    try:
        inspect.signature(method).bind(*range(count))  # type: ignore[arg-type]  # it is callable
    except TypeError:
        return False
    except ValueError:
        return True  # a function of C that does not tell
    return True


def check_length(words: Words, value: object) -> int:
    """Of ``get_content_length``: bytes, or ``UNKNOWN_SOURCE_FILE_LENGTH`` (-1 says the same)."""
    if _is_number(value) and UNKNOWN_SOURCE_FILE_LENGTH <= value <= MAX_NUMBER:
        return UNKNOWN_SOURCE_FILE_LENGTH if value < 0 else value
    raise words.gave(
        value, "get_content_length", "it takes a number of bytes, or UNKNOWN_SOURCE_FILE_LENGTH (int)"
    )


def check_moment(words: Words, value: object) -> int:
    """Of ``get_last_modified``: milliseconds since 1970, -1 when unknown."""
    if _is_number(value) and UNKNOWN_SOURCE_FILE_LENGTH <= value <= MAX_NUMBER:
        return max(-1, value)
    raise words.gave(value, "get_last_modified", "it takes milliseconds since 1970, or -1 (int)")


def check_truth(words: Words, value: object, what: str) -> bool:
    """Of ``is_support_range`` and its like."""
    if isinstance(value, bool):
        return value
    raise words.gave(value, what, "it takes True or False (bool)")


def check_entries(words: Words, values: object, folder: str) -> list[SourceEntry]:
    """Of ``list``: entries, or URLs as text, which may be relative to the folder's.

    Takes what the plugin's iterable gives, so it belongs where the plugin's functions run.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise words.gave(values, "list", "it takes a list of SourceEntry or of URLs (str)")
    return [check_entry(words, value, folder) for value in values]


def check_entry(words: Words, value: object, folder: str) -> SourceEntry:
    """One of them."""
    if isinstance(value, str):
        value = SourceEntry(value, is_folder=value.endswith("/"))
    if not isinstance(value, SourceEntry):
        raise words.gave(value, "an entry of list", "it takes SourceEntry or a URL (str)")
    if not isinstance(value.url, str) or not value.url:
        raise words.gave(value.url, "the url of a SourceEntry", "it takes a URL (str)")
    if not isinstance(value.version, str):
        raise words.gave(value.version, "the version of a SourceEntry", "it takes text (str)")
    for name, size in (("size", value.size), ("hint", value.hint)):
        if not _is_number(size) or not -1 <= size <= MAX_NUMBER:
            raise words.gave(size, f"the {name} of a SourceEntry", "it takes a number of bytes, or -1 (int)")
    check_truth(words, value.is_folder, "is_folder of a SourceEntry")
    return dataclasses.replace(value, url=join(folder, value.url))


def join(folder: str, url: str) -> str:
    """``url`` as seen from the folder's URL, whatever its scheme (RFC 3986 §5.2)."""
    if urlsplit(url).scheme:
        return url
    scheme, colon, rest = folder.partition(":")
    base = rest if rest.partition("?")[0].endswith("/") else f"{rest.partition('?')[0]}/"
    return scheme + colon + urljoin("http:" + base, url).removeprefix("http:")


def check_answer(words: Words, given: object, request: SourceRequest) -> SourceResponse:
    """Of ``download``: an answer whose fields are what they should be.

    The generator of a ``download`` that is one itself is a whole answer of unknown length. What a 206 says
    of its range is for the engine (cdn.reading.plan), which reads such a source without ranges instead.
    """
    if inspect.isgenerator(given) or inspect.isasyncgen(given):
        return SourceResponse(cast(Body, given))
    if not isinstance(given, SourceResponse):
        raise words.gave(given, "download", "it takes a SourceResponse")
    status = given.status
    if not _is_number(status) or status not in (200, 206):
        if _is_number(status) and 400 <= status < 600:
            raise words.error(f"answered {status}", origin_status=status)
        raise words.gave(status, "the status of download", "it takes 200 (the whole) or 206 (a part)")
    if status == 206 and request.range is None:
        raise words.error("answered with a part (206) when the whole was asked for", origin_status=206)
    length = given.content_length
    if not _is_number(length) or not UNKNOWN_SOURCE_FILE_LENGTH <= length <= MAX_NUMBER:
        raise words.gave(length, "content_length of download", "it takes a number of bytes, or -1 (int)")
    for name in ("etag", "last_modified", "content_type", "digest", "url"):
        _check_field(words, getattr(given, name), name)
    check_truth(words, given.decoded, "decoded of download")
    _check_range(words, given.range)
    if given.digest:
        try:
            parse_content_digest(given.digest)
        except InvalidRequest as error:
            raise words.error(f"gave a wrong digest for download: {error}") from None
    return given


def _check_field(words: Words, value: object, name: str) -> None:
    if not isinstance(value, str):
        raise words.gave(value, f"{name} of download", 'it takes text (str), "" for none')
    if len(value) > MAX_FIELD or (name != "url" and not _FIELD.fullmatch(value)):
        raise words.error(
            f"gave {name} of download with characters that it cannot have (line breaks, say), or more than "
            f"{MAX_FIELD} of them"
        )


def _check_range(words: Words, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, ContentRange):
        raise words.gave(value, "range of download", "it takes a ContentRange(first, last, total)")
    numbers = (value.first, value.last, 0 if value.total is None else value.total)
    if not all(_is_number(number) and 0 <= number <= MAX_NUMBER for number in numbers):
        raise words.error("gave a range of download whose bounds are no numbers of bytes (int)")
    if value.last < value.first or (value.total is not None and value.last >= value.total):
        raise words.error(
            f"gave the range {value.first}-{value.last} of {value.total} for download, which is none: both are "
            "inclusive"
        )


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
