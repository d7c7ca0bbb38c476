"""Reading the blobs and manifests of registries."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cdn.sources.context import CREDENTIAL_PREFIX, SourceContext
from cdn.sources.http import Hop, Trail, authority_of, differs
from cdn.sources.interface import ExpireInfo, RangeNotSatisfiable, SourceRequest, SourceResponse
from cdn.sources.oci.access import Pass, RegistryAccess, refusal
from cdn.sources.oci.challenges import parse_challenges
from cdn.sources.oci.logins import request_login
from cdn.sources.oci.names import PlainRegistries, Reference, parse_reference
from cdn.sources.probing import ProbingClient
from shared.errors import InvalidRequest, SourceError
from shared.http.client import HttpError
from shared.http.fields import Headers
from shared.task.digest import parse_content_digest
from shared.task.identity import redact_url

_DIGEST = "docker-content-digest"

_T = TypeVar("_T")
_Ask = Callable[[dict[str, str], Trail], Awaitable[_T]]

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "*/*",
)
"""Media types to accept for a manifest: without them a registry may rewrite it into an older one."""


class OciSource(ProbingClient):
    """Reads ``oci://`` URLs. What a digest names has it as ETag and as digest; the manifest of a tag has the
    digest that the registry tells."""

    def __init__(self, context: SourceContext, access: RegistryAccess, plain: PlainRegistries) -> None:
        self._client = context.http
        self._patience = context.config.header_timeout
        self._policy = context.web_policy()
        self._http = context.web_source()
        self._access = access
        self._plain = plain

    async def download(self, request: SourceRequest) -> SourceResponse:
        """A blob, or a manifest where there is no such blob; the manifest of a tag.

        If-Range is not sent: storages behind registries have ETags of their own, and a digest has one version.
        """
        reference = parse_reference(request.url)
        answer = await self._find(reference, request)
        digest = reference.digest or _told_digest(answer.headers.get(_DIGEST, ""))
        if digest:
            answer.etag, answer.digest = f'"{digest}"', digest
        return answer

    async def _find(self, reference: Reference, request: SourceRequest) -> SourceResponse:
        manifest = self._url(reference, "manifests")
        if reference.digest and request.resolved_url != manifest:
            try:
                return await self._read(reference, request, self._url(reference, "blobs"))
            except SourceError as error:
                if error.origin_status != 404:
                    raise
            request = dataclasses.replace(request, resolved_url="")
        try:
            return await self._read(reference, request, manifest)
        except SourceError as error:
            if error.origin_status != 404:
                raise
            raise SourceError(
                f"there is no {reference}: check the repository and the {'digest' if reference.digest else 'tag'}",
                origin_status=404,
            ) from error

    async def _read(self, reference: Reference, request: SourceRequest, place: str) -> SourceResponse:
        async def ask(headers: dict[str, str], trail: Trail) -> SourceResponse:
            inner = SourceRequest(place, headers, request.range, resolved_url=request.resolved_url)
            return await self._http.download(inner, trail)

        accept = "" if "/blobs/" in place else ", ".join(MANIFESTS)
        try:
            return await self._let_in(reference, request, accept, ask)
        except RangeNotSatisfiable as error:
            raise RangeNotSatisfiable(
                f"{redact_url(request.url)} has no bytes in the range that was asked for",
                total=error.total,
                etag=f'"{reference.digest}"' if reference.digest else error.etag,
                last_modified=error.last_modified,
            ) from None

    async def _let_in(self, reference: Reference, request: SourceRequest, accept: str, ask: _Ask[_T]) -> _T:
        """Ask with what lets us in; a 401 of the registry tells what that is."""
        login = request_login(request)
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if not name.lower().startswith(CREDENTIAL_PREFIX)
        }
        headers.pop("authorization", None)
        if accept:
            headers.setdefault("accept", accept)
        fixed = Pass(login.header, login=True) if login is not None and login.header else None
        shown = fixed or self._access.held(reference, login)
        trail: Trail = []
        try:
            return await ask(_with(headers, shown), trail)
        except SourceError as error:
            if fixed is not None or error.origin_status != 401 or not self._at_registry(trail, reference):
                raise self._in_words(error, trail, reference, shown) from error
        challenges = parse_challenges(trail[-1].headers.get_all("www-authenticate"))
        shown = await self._access.obtain(reference, login, challenges, shown)
        trail = []
        try:
            return await ask(_with(headers, shown), trail)
        except SourceError as error:
            raise self._in_words(error, trail, reference, shown) from error

    def _at_registry(self, trail: Trail, reference: Reference) -> bool:
        return bool(trail) and authority_of(trail[-1].url) == authority_of(self._base(reference))

    def _in_words(
        self, error: SourceError, trail: Trail, reference: Reference, shown: Pass | None
    ) -> SourceError:
        if error.origin_status in (401, 403) and self._at_registry(trail, reference):
            return refusal(reference, error.origin_status, shown)
        return error

    def _base(self, reference: Reference) -> str:
        scheme = "http" if reference.server in self._plain else "https"
        return f"{scheme}://{reference.server}/v2/{reference.repository}"

    def _url(self, reference: Reference, kind: str) -> str:
        return f"{self._base(reference)}/{kind}/{reference.digest or reference.tag}"

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Never for a digest; for a tag, by the digest that a HEAD tells (which registries do not count)."""
        if self.is_immutable(request):
            return False
        try:
            reference = parse_reference(request.url)
            headers = await self._head(reference, request)
            digest = _told_digest(headers.get(_DIGEST, ""))
            etag = f'"{digest}"' if digest else headers.get("etag", "")
            return differs(info, ExpireInfo(headers.get("last-modified", ""), etag))
        except (SourceError, HttpError):
            return False

    async def _head(self, reference: Reference, request: SourceRequest) -> Headers:
        place = self._url(reference, "manifests")

        async def ask(headers: dict[str, str], trail: Trail) -> Headers:
            self._policy.check_url(place)
            answer = await self._client.request("HEAD", place, headers=headers, timeout=self._patience)
            trail.append(Hop(place, answer.status, answer.headers))
            if answer.status != 200:
                raise SourceError(
                    f"{reference.registry} answered {answer.status}", origin_status=answer.status
                )
            return answer.headers

        return await self._let_in(reference, request, ", ".join(MANIFESTS), ask)

    def is_immutable(self, request: SourceRequest) -> bool:
        """True for a digest."""
        try:
            return bool(parse_reference(request.url).digest)
        except SourceError:
            return False

    def __repr__(self) -> str:
        return f"<OciSource with {self._access!r}>"


def _told_digest(text: str) -> str:
    """A digest that a registry tells, "" when it is not one that can be checked."""
    try:
        return ":".join(parse_content_digest(text)) if text else ""
    except InvalidRequest:
        return ""


def _with(headers: dict[str, str], shown: Pass | None) -> dict[str, str]:
    return {**headers, "authorization": shown.authorization} if shown is not None else headers
