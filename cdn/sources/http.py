"""Sources behind http:// and https://.

Every probe is a GET, since HEAD is refused or answered wrongly by too many origins; a body that is not
wanted is not read. Redirections are followed here, hop by hop, so that each is held against the policy and
no credential reaches a host that it was not given for.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import trio

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.decoding import DECODABLE, DecodedBody
from cdn.sources.http_bulk import HttpBulkReader
from cdn.sources.index_pages import MAX_PAGE, not_an_index, read_index
from cdn.sources.interface import (
    ContentRange,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceCut,
    SourceEntry,
    SourceRequest,
    SourceResponse,
    read_whole,
)
from cdn.sources.probing import ProbingClient
from shared.errors import InvalidRequest, SourceError
from shared.http.client import (
    ClientStream,
    HttpClient,
    HttpConnectError,
    HttpConnectionLost,
    HttpError,
)
from shared.http.fields import Headers
from shared.task.identity import NEUTRAL_HEADERS, normalize_url, redact_url

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.IGNORECASE)
_MOVED_AWAY = frozenset({400, 401, 403, 404, 410})
"""Answers of a place that was redirected to which may mean no more than that the redirection has expired
(object stores say 403, Google's says 400)."""

_ANYWHERE = NEUTRAL_HEADERS | {"accept", "via"}
"""Headers that a place which was redirected to may see, whoever it is."""

MAX_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Hop:
    """The head of one answer on the way to the content, redirections and refusals included."""

    url: str = field(repr=False)
    status: int
    headers: Headers


Trail = list[Hop]


class HttpSource(ProbingClient):
    """One client for both schemes. ``client`` is closed by whoever made it."""

    def __init__(
        self,
        client: HttpClient,
        policy: SourcePolicy,
        config: SourceConfig = SourceConfig(),  # noqa: B008 - frozen
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._policy = policy
        self._config = config
        self._clock = clock

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Asks conditionally, for one byte; 304 or equal validators mean that nothing changed.

        A source that gives neither ETag nor Last-Modified cannot be compared with what it was: it has expired
        whenever it answers, as for any cache.
        """
        conditions = {"if-none-match": info.etag, "if-modified-since": info.last_modified}
        headers = {**request.headers, **{name: value for name, value in conditions.items() if value}}
        try:
            found = await self._validators(SourceRequest(request.url, headers, (0, 0)))
            if found == ExpireInfo() != info:
                found = await self._validators(SourceRequest(request.url, headers))
        except SourceError as error:
            if error.origin_status == 304:
                return False
            raise
        return differs(info, found)

    async def _validators(self, request: SourceRequest) -> ExpireInfo:
        try:
            async with await self.download(request) as response:
                return ExpireInfo(response.last_modified, response.etag)
        except RangeNotSatisfiable:
            return ExpireInfo()

    async def download(self, request: SourceRequest, trail: Trail | None = None) -> SourceResponse:
        """Follows redirections; 200 and 206 are answers, everything else is a SourceError with its status.

        ``trail`` collects the head of each answer on the way, for sources that tell something there.
        """
        trail = [] if trail is None else trail
        start = request.resolved_url or request.url
        stream, url = await self._follow(request, start, trail)
        if start != request.url and stream.status in _MOVED_AWAY:
            await stream.aclose()
            stream, url = await self._follow(request, request.url, trail)
        try:
            return self._response(request, stream, url)
        except BaseException:
            await stream.aclose()
            raise

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """What the server's index page of the folder names; see ``index_pages``."""
        folder = urlsplit(request.url)._replace(query="", fragment="")
        if not folder.path.endswith("/"):
            folder = folder._replace(path=folder.path + "/")
        asked = folder._replace(query=urlsplit(request.url).query)
        try:
            async with await self.download(SourceRequest(urlunsplit(asked), request.headers)) as response:
                place = urlsplit(response.url)._replace(query="", fragment="")
                if not place.path.endswith("/"):
                    raise not_an_index("it leads to a file")
                page = await read_whole(response, MAX_PAGE)
                if page is None:
                    raise not_an_index(f"its page is longer than {MAX_PAGE >> 20} MiB")
            return await trio.to_thread.run_sync(
                read_index, page, response.content_type, urlunsplit(place), urlunsplit(folder)
            )
        except SourceError as error:
            if error.fault != "request" or error.origin_status is not None:
                raise
            raise SourceError(
                f"{redact_url(request.url)} cannot be listed: {error}", fault="request"
            ) from None

    def bulk_reader(self, folder: SourceRequest) -> HttpBulkReader | None:
        """A pipelined reader; None where a proxy stands between."""
        if self._config.proxy:
            return None
        self._policy.check_url(folder.url)
        parts = urlsplit(folder.url)
        headers = hop_headers(folder, folder.url) | {"accept-encoding": "identity"}
        return HttpBulkReader(self._client, f"{parts.scheme}://{parts.netloc}", headers, self._config)

    async def _follow(self, request: SourceRequest, url: str, trail: Trail) -> tuple[ClientStream, str]:
        for _ in range(self._config.redirects + 1):
            self._policy.check_url(url)
            stream = await self._get(request, url)
            trail.append(Hop(url, stream.status, stream.headers))
            location = stream.headers.get("location", "")
            if stream.status not in REDIRECTS or not location:
                return stream, url
            await stream.aclose()
            url = next_hop(request, url, location)
        raise SourceError(
            f"{redact_url(request.url)} redirects more than {self._config.redirects} times "
            "(source.redirects)",
            origin_status=stream.status,
        )

    async def _get(self, request: SourceRequest, url: str) -> ClientStream:
        headers = hop_headers(request, url)
        headers["accept-encoding"] = "identity"
        if request.range is not None:
            first, last = request.range
            headers["range"] = f"bytes={first}-{'' if last is None else last}"
            if request.if_range:
                headers["if-range"] = request.if_range
        try:
            return await self._client.open(
                "GET",
                url,
                headers=headers,
                timeout=self._config.header_timeout,
                read_timeout=self._config.idle_timeout,
            )
        except HttpConnectError as error:
            raise SourceError(f"the origin cannot be reached: {error}", fault="reader") from error
        except HttpConnectionLost as error:
            raise SourceCut(f"the origin gave no answer: {error}") from error
        except HttpError as error:
            raise SourceError(f"the origin gave no answer: {error}") from error
        except InvalidRequest as error:
            raise SourceError(str(error), fault="request") from error

    def _response(self, request: SourceRequest, stream: ClientStream, url: str) -> SourceResponse:
        headers = stream.headers
        found = parse_content_range(headers.get("content-range", ""))
        if stream.status == 416:
            raise RangeNotSatisfiable(
                f"{redact_url(url)} has no bytes in the range that was asked for",
                total=found[1] if found is not None and found[0] is None else None,
                etag=headers.get("etag", ""),
                last_modified=headers.get("last-modified", ""),
            )
        if stream.status not in (200, 206):
            raise self._refusal(stream, url)
        coding = headers.get("content-encoding", "").strip().lower()
        decoded = coding not in ("", "identity")
        if decoded and coding not in DECODABLE:
            raise SourceError(
                f"{redact_url(url)} sends its content encoded as {coding!r}, which was not asked for",
                origin_status=stream.status,
            )
        body = _Body(stream)
        length = stream.content_length
        return _HttpResponse(
            DecodedBody(body, coding, self._config.decode_ratio) if decoded else body,
            stream=None if decoded else stream,
            status=stream.status,
            headers=dict(headers.items()),
            content_length=-1 if decoded or length is None else length,
            range=_as_range(found) if stream.status == 206 else None,
            etag=headers.get("etag", "").strip(),
            last_modified=headers.get("last-modified", "").strip(),
            content_type=headers.get("content-type", ""),
            url=url,
            decoded=decoded,
            close=stream.aclose,
        )

    def _refusal(self, stream: ClientStream, url: str) -> SourceError:
        status, shown = stream.status, redact_url(url)
        words = {
            401: "it needs credentials: give them with --header 'Authorization: …'",
            403: "access is forbidden: check the credentials",
            404: "there is no such content: check the URL",
            410: "the content is gone",
            429: "it asks for fewer requests: try again later",
            503: "it is overloaded or down: try again later",
        }.get(status, "the origin fails: try again later" if status >= 500 else "check the request")
        return SourceError(
            f"{shown} answered {status}: {words}",
            origin_status=status,
            retry_after=parse_retry_after(stream.headers.get("retry-after", ""), self._clock()),
        )

    def __repr__(self) -> str:
        return f"<HttpSource through {self._client!r}>"


class _Body:
    """The bytes of an answer, foreign errors mapped."""

    def __init__(self, stream: ClientStream) -> None:
        self._chunks = stream.chunks()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except HttpError as error:
            raise _broken(error) from error


class _HttpResponse(SourceResponse):
    """An answer whose plain body goes from the socket to the caller's buffer."""

    def __init__(self, body: AsyncIterator[bytes], *, stream: ClientStream | None, **rest: object) -> None:
        super().__init__(body, **rest)  # type: ignore[arg-type]  # passed through as they are
        self._stream = stream

    async def receive_into(self, buffer: memoryview) -> int:
        if self._stream is None:
            return await super().receive_into(buffer)
        try:
            return await self._stream.receive_into(buffer)
        except HttpError as error:
            raise _broken(error) from error


def _broken(error: HttpError) -> SourceError:
    kind = SourceCut if isinstance(error, HttpConnectionLost) else SourceError
    return kind(f"the origin's answer broke off: {error}")


# --- decisions ------------------------------------------------------------------------------------


def hop_headers(request: SourceRequest, url: str) -> dict[str, str]:
    """The caller's headers as the place at ``url`` may see them: elsewhere go only those without secrets."""
    same = authority_of(url) == authority_of(request.url) or _upgraded(request.url, url)
    return {
        name.lower(): value for name, value in request.headers.items() if same or name.lower() in _ANYWHERE
    }


def next_hop(request: SourceRequest, url: str, location: str) -> str:
    """Where a redirection of ``url`` leads. Raises SourceError when it may not be followed."""
    try:
        # Header values were read as Latin-1; what is not ASCII is mostly meant as UTF-8. Credentials that
        # the redirection itself holds are not used.
        with contextlib.suppress(UnicodeError):
            location = location.encode("latin-1").decode()
        target, _ = normalize_url(urljoin(url, location))
    except (InvalidRequest, ValueError) as error:
        raise SourceError(f"{redact_url(url)} redirects to nowhere: {error}") from error
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https"):
        raise SourceError(f"{redact_url(url)} redirects to {scheme}://, which is not followed")
    if urlsplit(url).scheme == "https" and scheme == "http" and _private(request.headers):
        raise SourceError(
            f"{redact_url(url)} redirects from https to http, which is not followed with credentials"
        )
    return target


def differs(known: ExpireInfo, found: ExpireInfo) -> bool:
    """Whether these are of two versions (RFC 9110 §13.1: ETags first, compared weakly), or cannot be compared."""
    if known.etag and found.etag:
        return known.etag.removeprefix("W/") != found.etag.removeprefix("W/")
    if known.last_modified and found.last_modified:
        return known.last_modified != found.last_modified
    return True


def parse_content_range(value: str) -> tuple[tuple[int, int] | None, int | None] | None:
    """Content-Range (RFC 9110 §14.4) as ((first, last) or None for ``*``, total or None); None: not valid."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return (None, total) if total is not None else None
    first, last = int(match[1]), int(match[2])
    if last < first or (total is not None and last >= total):
        return None
    return (first, last), total


def parse_retry_after(value: str, now: float) -> float | None:
    """Retry-After (RFC 9110 §10.2.3) in seconds from ``now`` (Unix time), at most an hour."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _as_range(found: tuple[tuple[int, int] | None, int | None] | None) -> ContentRange | None:
    if found is None or found[0] is None:
        return None
    return ContentRange(found[0][0], found[0][1], found[1])


def _private(headers: Mapping[str, str]) -> bool:
    return any(name.lower() not in NEUTRAL_HEADERS and name.lower() != "via" for name in headers)


def authority_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a server: equal for URLs that lead to the same one."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _upgraded(before: str, after: str) -> bool:
    """Whether ``after`` is the same host by https that ``before`` names by http, both on default ports."""
    return authority_of(before) == ("http", authority_of(after)[1], 80) and authority_of(after)[::2] == (
        "https",
        443,
    )
