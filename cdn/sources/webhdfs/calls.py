"""Calls to name nodes and data nodes.

The name node that answered last is asked first; one that is on standby, or gives no answer, is followed by
the others of its HDFS. A data node that a name node sent us to and that fails is named when the name node is
asked again, so that it sends us to another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import trio

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.http import hop_headers, next_hop
from cdn.sources.interface import SourceCut, SourceRequest
from cdn.sources.webhdfs.credentials import Credentials
from cdn.sources.webhdfs.places import Service
from cdn.sources.webhdfs.protocol import (
    BatchAnswer,
    FileStatus,
    ListAnswer,
    Refused,
    StatusAnswer,
    refusal,
)
from shared.errors import InvalidRequest, SourceError
from shared.http.client import ClientStream, HttpClient, HttpConnectError, HttpConnectionLost, HttpError
from shared.offline import is_offline
from shared.task.identity import redact_url

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer in JSON: some 250 000 files of a folder that is not listed in parts."""

MAX_ENTRIES = 2_000_000
"""Files in one folder; beyond it a listing is taken for endless."""

MAX_TRIES = 4
"""Times that one read is begun at a data node: one for each of three replicas, and one more."""

_Answer = TypeVar("_Answer")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSAL_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One file or folder that a request is about: where, as whom."""

    request: SourceRequest
    service: Service
    path: str
    credentials: Credentials = field(repr=False)

    @property
    def shown(self) -> str:
        """The URL as people may see it."""
        return redact_url(self.request.url)

    @property
    def scheme(self) -> str:
        """Whose options apply."""
        return urlsplit(self.request.url).scheme


class _DatanodeFailed(Exception):
    """The data node at ``authority`` is not to be asked again by this read."""

    def __init__(self, authority: str, error: SourceError) -> None:
        super().__init__(str(error))
        self.authority = authority
        self.error = error


class WebHdfsCalls:
    """The operations that reading needs. ``client`` is closed by whoever made it.

    Every call ends within ``header_timeout`` seconds of silence. All raise SourceError in words.
    """

    def __init__(self, client: HttpClient, config: SourceConfig) -> None:
        self._client = client
        self._config = config
        # Any scheme: whether this host may read hdfs:// is decided where the read begins.
        self._policy = SourcePolicy((), config.denied_addresses)
        self._active: dict[tuple[str, ...], str] = {}

    async def status(self, asked: Asked) -> FileStatus:
        """What the file or folder is now."""
        body = await self._document(asked, "GETFILESTATUS", {})
        return _decoded(asked, body, StatusAnswer).status

    async def children(self, asked: Asked) -> list[FileStatus]:
        """What lies directly in a folder; for a file, itself with no name."""
        found: list[FileStatus] = []
        while True:
            start = {"startAfter": found[-1].path_suffix} if found else {}
            try:
                body = await self._document(asked, "LISTSTATUS_BATCH", start)
            except Refused as error:
                if found or not error.not_understood:
                    raise
                body = await self._document(asked, "LISTSTATUS", {})  # Hadoop 2 knows nothing better
                return _decoded(asked, body, ListAnswer).statuses.entries
            answer = _decoded(asked, body, BatchAnswer)
            found += answer.entries
            if answer.listing.remaining_entries <= 0:
                return found
            if not answer.entries or len(found) > MAX_ENTRIES:
                raise SourceError(f"the listing of {asked.shown} does not end")

    async def open(self, asked: Asked, offset: int, length: int) -> ClientStream:
        """Begin to read ``length`` bytes from ``offset`` on, at whatever data node the name node says."""
        parameters = {"offset": str(offset), "length": str(length)}
        dead: list[str] = []
        last: SourceError | None = None
        while True:
            try:
                stream, url = await self._call(asked, "OPEN", parameters)
                return await self._at_datanode(asked, stream, url)
            except _DatanodeFailed as failure:
                dead.append(failure.authority)
                last = failure.error
                if len(dead) == MAX_TRIES:
                    raise last from None
            except Refused as error:
                if last is None or not error.passing:
                    raise
                raise last from None  # the name node knows no further data node
            # A name node knows data nodes by host, or by the port of another protocol than this one; what
            # it does not know does not count, and it may well name the same one again.
            hosts = [authority.rpartition(":")[0] for authority in dead]
            parameters["excludedatanodes"] = ",".join(dict.fromkeys([*dead, *hosts]))

    async def _at_datanode(self, asked: Asked, stream: ClientStream, url: str) -> ClientStream:
        named = url
        try:
            stream, url = await self._follow(asked, stream, url)
        except _Unanswered as failure:
            raise _DatanodeFailed(urlsplit(failure.url).netloc, failure.error) from None
        if stream.status == 200:
            return stream
        error = await self._refusal(asked, stream)
        if error.passing and url != named:
            raise _DatanodeFailed(urlsplit(url).netloc, error)
        raise error

    async def _document(self, asked: Asked, op: str, parameters: Mapping[str, str]) -> bytes:
        """A whole answer."""
        # Each name node may be silent for that long, and the answer of one may take that long to come.
        limit = self._config.header_timeout * (1 + len(asked.service.authorities))
        with trio.move_on_after(limit):
            stream, url = await self._call(asked, op, parameters)
            try:
                stream, _ = await self._follow(asked, stream, url)
            except _Unanswered as failure:
                raise failure.error from None
            if stream.status != 200:
                raise await self._refusal(asked, stream)
            try:
                return await _read(stream, MAX_ANSWER)
            except HttpError as error:
                raise mapped(error) from error
            finally:
                await stream.aclose()
        raise SourceError(
            f"the name node of {asked.shown} did not end its answer within {limit:g} s", fault="reader"
        )

    async def _call(self, asked: Asked, op: str, parameters: Mapping[str, str]) -> tuple[ClientStream, str]:
        """The active name node's answer, which is no refusal, and the URL of the call."""
        authorities = asked.service.authorities
        first = self._active.get(authorities, authorities[0])
        lost: SourceError | None = None
        refused: SourceError | None = None
        for authority in sorted(authorities, key=lambda each: each != first):
            url = asked.service.url(
                authority, asked.path, {"op": op, **parameters, **asked.credentials.parameters}
            )
            try:
                stream = await self._get(asked, url, url)
            except _Unanswered as failure:
                lost = failure.error
                continue
            if stream.status < 400:
                if len(authorities) > 1:
                    self._active[authorities] = authority
                return stream, url
            error = await self._refusal(asked, stream)
            if not error.on_standby:
                raise error
            refused = error
        raise lost or refused or AssertionError

    async def _follow(self, asked: Asked, stream: ClientStream, url: str) -> tuple[ClientStream, str]:
        home = url
        for _ in range(self._config.redirects + 1):
            location = stream.headers.get("location", "")
            if stream.status not in _REDIRECTS or not location:
                return stream, url
            await stream.aclose()
            target = next_hop(replace(asked.request, headers={}), url, location)
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                # The query says who reads, and holds the token.
                raise SourceError(
                    f"the name node of {asked.shown} sends readers from https to http, which is not "
                    "followed: have its data nodes speak HTTPS (dfs.http.policy)"
                )
            url = target
            stream = await self._get(asked, url, home)
        await stream.aclose()
        raise SourceError(
            f"{asked.shown} redirects more than {self._config.redirects} times (source.redirects)"
        )

    async def _get(self, asked: Asked, url: str, home: str) -> ClientStream:
        """Raises _Unanswered where another place may be tried, SourceError where it may not."""
        self._policy.check_url(url)
        headers = hop_headers(SourceRequest(home, asked.credentials.headers), url)
        headers["accept-encoding"] = "identity"
        try:
            return await self._client.open(
                "GET",
                url,
                headers=headers,
                timeout=self._config.header_timeout,
                read_timeout=self._config.idle_timeout,
            )
        except HttpError as error:
            raise _Unanswered(url, mapped(error)) from error
        except InvalidRequest as error:
            raise SourceError(str(error), fault="request") from error

    async def _refusal(self, asked: Asked, stream: ClientStream) -> Refused:
        body = b""
        try:
            with contextlib.suppress(HttpError), trio.move_on_after(self._config.idle_timeout):
                body = await _read(stream, _REFUSAL_SIZE)
        finally:
            await stream.aclose()
        return refusal(
            asked.shown, asked.scheme, stream.status, body, dict(stream.headers.items()), asked.credentials
        )

    def __repr__(self) -> str:
        return f"<WebHdfsCalls through {self._client!r}>"


class _Unanswered(Exception):
    """There was no answer from ``url``."""

    def __init__(self, url: str, error: SourceError) -> None:
        super().__init__(str(error))
        self.url = url
        self.error = error


def mapped(error: HttpError) -> SourceError:
    """An error of the HTTP client as one of a source."""
    if isinstance(error, HttpConnectError):
        return SourceError(f"HDFS cannot be reached: {error}", fault="reader", offline=is_offline(error))
    if isinstance(error, HttpConnectionLost):
        return SourceCut(f"HDFS broke off: {error}", offline=is_offline(error))
    return SourceError(f"HDFS gave no answer: {error}")


async def _read(stream: ClientStream, limit: int) -> bytes:
    """The body, or its first bytes when it is longer than ``limit``. Raises HttpError."""
    body = bytearray()
    while len(body) <= limit and (chunk := await stream.receive()):
        body += chunk
    return bytes(body)


def _decoded(asked: Asked, body: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        long = "too long" if len(body) > MAX_ANSWER else str(error)
        raise SourceError(
            f"the name node of {asked.shown} gave an answer that is not WebHDFS ({long}): check its address"
        ) from None
