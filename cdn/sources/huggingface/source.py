"""Reading and listing the repositories of one hub."""

from __future__ import annotations

from collections.abc import Sequence

from cdn.sources.context import CREDENTIAL_PREFIX, request_credentials
from cdn.sources.http import HttpSource, Trail, differs
from cdn.sources.huggingface.listing import entries_of, next_page, read_page
from cdn.sources.huggingface.places import HubPlace, parse_place
from cdn.sources.huggingface.refusals import refusal
from cdn.sources.huggingface.told import Told, at_hub
from cdn.sources.interface import (
    ExpireInfo,
    RangeNotSatisfiable,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.probing import ProbingClient
from shared.errors import SourceError
from shared.task.identity import redact_url

MAX_PAGES = 1000
"""Of one folder; a page of a hub has up to a thousand entries."""


class HuggingFaceSource(ProbingClient):
    """Reads ``hf://`` URLs from the hub at ``endpoint`` (no "/" at its end), with ``token`` where a request
    brings no credentials of its own."""

    def __init__(self, http: HttpSource, endpoint: str, token: str = "") -> None:
        self._http = http
        self._endpoint = endpoint
        self._token = token

    async def download(self, request: SourceRequest) -> SourceResponse:
        """The content of a file. Its ETag and digest are those that the hub tells; If-Range is not sent, as
        the storage has other ETags: a part of another version is known by the ETag that it comes with."""
        place = parse_place(request.url)
        if not place.path:
            raise SourceError(f"{redact_url(request.url)} names {place} and no file in it", fault="request")
        known = Told.from_url(request.resolved_url)
        if known is not None:
            # The commit of the first range, as long as there is one: the branch may have moved on since.
            pinned = place.at(known.commit)
            for told in (known, None):
                try:
                    answer = await self._ask(request, pinned, told)
                except SourceError as error:
                    if error.origin_status != 404:
                        raise
                    break
                if answer is not None:
                    return answer
        answer = await self._ask(request, place, None)
        assert answer is not None, "without anything known, every answer is taken"
        return answer

    async def _ask(
        self, request: SourceRequest, place: HubPlace, known: Told | None
    ) -> SourceResponse | None:
        """One download; None when what is known is no longer what the place gives."""
        trail: Trail = []
        headers = self._headers(request)
        inner = SourceRequest(
            place.content_url(self._endpoint),
            headers,
            request.range,
            resolved_url="" if known is None else known.url,
        )
        try:
            answer = await self._http.download(inner, trail)
        except RangeNotSatisfiable as error:
            told = Told.by(trail, self._endpoint, known)
            raise RangeNotSatisfiable(
                f"{redact_url(request.url)} has no bytes in the range that was asked for",
                total=error.total,
                etag=told.etag if told else "",
                last_modified=error.last_modified,
            ) from None
        except SourceError as error:
            raise self._in_words(error, trail, place, headers) from error
        told = Told.by(trail, self._endpoint, known)
        if told is None:
            await answer.aclose()
            return None
        if at_hub(told.url, self._endpoint):
            told = told.at(place.at(told.commit).content_url(self._endpoint))
        answer.etag, answer.digest, answer.url = told.etag, told.digest, told.to_url()
        return answer

    def _headers(self, request: SourceRequest) -> dict[str, str]:
        """What the hub is sent: credentials of the request, or else our own."""
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if not name.lower().startswith(CREDENTIAL_PREFIX)
        }
        token = request_credentials(request, ("token",)).get("token", "")
        if not token and "authorization" not in headers:
            token = self._token
        if token:
            headers["authorization"] = f"Bearer {token}"
        return headers

    def _in_words(
        self, error: SourceError, trail: Trail, place: HubPlace, headers: dict[str, str]
    ) -> SourceError:
        refused = error.origin_status in (401, 403, 404)
        if not refused or not trail or not at_hub(trail[-1].url, self._endpoint):
            return error
        return refusal(error, trail[-1], place, self._endpoint, credentials="authorization" in headers)

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """By the ETag that the hub tells now; never for a commit."""
        if self.is_immutable(request):
            return False
        try:
            async with await self.download(SourceRequest(request.url, request.headers, (0, 0))) as answer:
                found = ExpireInfo(answer.last_modified, answer.etag)
        except RangeNotSatisfiable as error:  # an empty file
            found = ExpireInfo(error.last_modified, error.etag)
        return differs(info, found)

    def is_immutable(self, request: SourceRequest) -> bool:
        """True for a revision that is a full commit hash."""
        try:
            return parse_place(request.url).pinned
        except SourceError:
            return False

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """What lies in a folder of a repository, or at its root; versions are the hashes of the files."""
        place = parse_place(request.url)
        headers = self._headers(request)
        entries: list[SourceEntry] = []
        url = place.tree_url(self._endpoint)
        for _ in range(MAX_PAGES):
            trail: Trail = []
            try:
                async with await self._http.download(SourceRequest(url, headers), trail) as answer:
                    entries += entries_of(place, await read_page(answer, place))
                    following = next_page(answer.headers.get("link", ""), url)
            except SourceError as error:
                raise self._in_words(error, trail, place, headers) from error
            if not following:
                return entries
            if not at_hub(following, self._endpoint):
                raise SourceError(f"{place}: its listing goes on at another server, which is not followed")
            url = following
        raise SourceError(f"{place}: the folder {place.path or '/'} is too long to list: name its files")

    def __repr__(self) -> str:
        return f"<HuggingFaceSource at {redact_url(self._endpoint)}>"
