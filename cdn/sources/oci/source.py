"""Reading the blobs and manifests of registries."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cdn.sources.context import SourceContext
from cdn.sources.http import Trail, differs
from cdn.sources.interface import (
    ExpireInfo,
    RangeNotSatisfiable,
    SourceRequest,
    SourceResponse,
    read_whole,
)
from cdn.sources.oci.descriptor import MANIFESTS, MAX_MANIFEST, told, told_digest
from cdn.sources.oci.door import RegistryDoor, refused_answer
from cdn.sources.oci.logins import ANONYMOUS, Login, request_login
from cdn.sources.oci.names import Kind, Reference, parse_reference
from cdn.sources.probing import ProbingClient
from shared.errors import SourceError
from shared.http.fields import Headers
from shared.task.identity import redact_url

_GONE = frozenset({401, 403, 404})


def is_gone(error: SourceError) -> bool:
    """Whether a registry says for sure that something is not there, or may not be read. One that is asked too
    often may say 403 too, and then tells how long to wait."""
    return error.origin_status in _GONE and error.retry_after is None and error.fault == "origin"


class OciSource(ProbingClient):
    """Reads ``oci://`` URLs. What a digest names has it as ETag and as digest; the manifest of a tag has the
    digest that the registry tells."""

    def __init__(self, context: SourceContext, door: RegistryDoor) -> None:
        self._http = context.web_source()
        self._door = door

    async def download(self, request: SourceRequest) -> SourceResponse:
        """A blob, or a manifest where there is no such blob; the manifest of a tag. Only the one or the other
        where the URL tells the kind.

        If-Range is not sent: storages behind registries have ETags of their own, and a digest has one version.
        """
        reference = parse_reference(request.url)
        answer = await self._find(reference, request)
        digest = reference.digest or told_digest(Headers(answer.headers.items()))
        if digest:
            answer.etag, answer.digest = f'"{digest}"', digest
        return answer

    async def _find(self, reference: Reference, request: SourceRequest) -> SourceResponse:
        kinds: tuple[Kind, ...] = ("blob", "manifest") if reference.digest else ("manifest",)
        if reference.kind is not None:
            kinds = (reference.kind,)
        elif request.resolved_url == self._door.place(reference, "manifest"):
            kinds = ("manifest",)
        for kind in kinds:
            try:
                return await self._read(reference, request, kind)
            except SourceError as error:
                if error.origin_status != 404:
                    raise
                missing = error
            request = dataclasses.replace(request, resolved_url="")
        raise SourceError(
            f"there is no {reference}: check the repository and the {'digest' if reference.digest else 'tag'}",
            origin_status=404,
        ) from missing

    async def _read(self, reference: Reference, request: SourceRequest, kind: Kind) -> SourceResponse:
        place = self._door.place(reference, kind)

        async def ask(headers: dict[str, str], trail: Trail) -> SourceResponse:
            inner = SourceRequest(place, headers, request.range, resolved_url=request.resolved_url)
            return await self._http.download(inner, trail)

        headers = dict(request.headers)
        if kind == "manifest":
            headers.setdefault("accept", ", ".join(MANIFESTS))
        try:
            answer = (await self._door.let_in(reference, _login(reference, request), headers, ask))[0]
            if kind == "manifest":
                return await _bounded(answer, reference)
            if reference.kind == "blob" and answer.content_length < 0 and not answer.decoded:
                async with _closed_on_error(answer):
                    answer.content_length = await self._length(reference, request)
            return answer
        except RangeNotSatisfiable as error:
            raise RangeNotSatisfiable(
                f"{redact_url(request.url)} has no bytes in the range that was asked for",
                total=error.total,
                etag=f'"{reference.digest}"' if reference.digest else error.etag,
                last_modified=error.last_modified,
            ) from None

    async def _length(self, reference: Reference, request: SourceRequest) -> int:
        """That of a blob whose answer does not tell it, -1 where its head does not either. Without it nobody is
        given anything before all of it is there, and there would be no end to what a registry can send."""

        async def ask(headers: dict[str, str], trail: Trail) -> Headers | None:
            answer = await self._door.exchange("HEAD", self._door.place(reference, "blob"), headers, trail)
            return answer.headers if answer.status == 200 else None

        try:
            head, _ = await self._door.let_in(
                reference, _login(reference, request), dict(request.headers), ask
            )
        except SourceError:
            return -1
        descriptor = None if head is None else told(reference, "blob", head)
        return -1 if descriptor is None else descriptor.size or -1

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """Never for a digest; for a tag, by the digest that a HEAD tells (which registries do not count).

        A tag that is not there, or that may not be read any more, has expired. Raises SourceError where that
        cannot be found out, which it cannot without credentials that another host may have.
        """
        if self.is_immutable(request):
            return False
        try:
            return differs(info, await self._now(parse_reference(request.url), request))
        except SourceError as error:
            if is_gone(error):
                return True
            raise

    async def _now(self, reference: Reference, request: SourceRequest) -> ExpireInfo:
        place = self._door.place(reference, "manifest")

        async def ask(headers: dict[str, str], trail: Trail) -> Headers | None:
            answer = await self._door.exchange("HEAD", place, headers, trail)
            if answer.status in (405, 501):
                return None
            if answer.status != 200:
                raise refused_answer(reference, trail[-1].url, answer)
            return answer.headers

        headers = {"accept": ", ".join(MANIFESTS)} | dict(request.headers)
        told, _ = await self._door.let_in(reference, _login(reference, request), headers, ask)
        if told is None:
            async with await self.download(SourceRequest(request.url, request.headers)) as answer:
                return ExpireInfo(answer.last_modified, answer.etag)
        digest = told_digest(told)
        return ExpireInfo(told.get("last-modified", ""), f'"{digest}"' if digest else told.get("etag", ""))

    def is_immutable(self, request: SourceRequest) -> bool:
        """True for a digest."""
        try:
            return bool(parse_reference(request.url).digest)
        except SourceError:
            return False

    def __repr__(self) -> str:
        return f"<OciSource through {self._door!r}>"


@asynccontextmanager
async def _closed_on_error(answer: SourceResponse) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await answer.aclose()
        raise


async def _bounded(answer: SourceResponse, reference: Reference) -> SourceResponse:
    """A manifest, of known length, and not longer than any is: one that a registry sends without an end would fill
    the disks of the whole cluster. Raises SourceError."""
    if 0 <= answer.content_length <= MAX_MANIFEST:
        return answer
    async with answer:
        content = await read_whole(answer, MAX_MANIFEST)
        if content is None:
            raise SourceError(
                f"{reference.registry} answered for {reference} with more than {MAX_MANIFEST} bytes, which no "
                "manifest has"
            )
        return SourceResponse(
            content,
            status=answer.status,
            headers=answer.headers,
            range=answer.range,
            etag=answer.etag,
            last_modified=answer.last_modified,
            content_type=answer.content_type,
            url=answer.url,
            decoded=answer.decoded,
        )


def _login(reference: Reference, request: SourceRequest) -> Login | None:
    """Whose credentials are shown. A URL that tells the kind is one of an image's, whose content everybody may
    have unless the request itself brings credentials: the host's own would let in whoever asks the host."""
    login = request_login(request)
    return ANONYMOUS if login is None and reference.kind is not None else login
