"""Asking registries: what is shown to be let in, and where redirections lead."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeVar

from cdn.sources.context import CREDENTIAL_PREFIX, SourceContext
from cdn.sources.http import REDIRECTS, Hop, Trail, authority_of, hop_headers, next_hop, parse_retry_after
from cdn.sources.interface import SourceRequest
from cdn.sources.oci.access import Pass, RegistryAccess, refusal
from cdn.sources.oci.challenges import parse_challenges
from cdn.sources.oci.logins import Login
from cdn.sources.oci.names import Kind, PlainRegistries, Reference
from shared.errors import InvalidRequest, SourceError
from shared.http.client import ClientResponse, ClientStream, HttpConnectError, HttpError
from shared.task.identity import redact_url

T = TypeVar("T")
Ask = Callable[[dict[str, str], Trail], Awaitable[T]]
"""Asks with these headers, and puts the head of each answer into the trail. Raises SourceError."""

VIA = "1.1 dragonet"
"""Sent with each question (RFC 9110 §7.6.3), so that one of our own gateways knows when it is asked in a circle."""

_WORDS = 64 * 1024
"""Bytes of the longest body that is kept of an answer that gives nothing."""


class RegistryDoor:
    """Registries, asked with what lets us in. ``access`` gives the passes."""

    def __init__(self, context: SourceContext, access: RegistryAccess, plain: PlainRegistries) -> None:
        self.access = access
        self._client = context.http
        self._config = context.config
        self._policy = context.web_policy()
        self._plain = plain

    def base(self, reference: Reference) -> str:
        """The URL below which a registry has what belongs to a repository."""
        scheme = "http" if reference.server in self._plain else "https"
        return f"{scheme}://{reference.server}/v2/{reference.repository}"

    def place(self, reference: Reference, kind: Kind) -> str:
        """The URL of a manifest or a blob."""
        return f"{self.base(reference)}/{kind}s/{reference.digest or reference.tag}"

    async def let_in(
        self, reference: Reference, login: Login | None, headers: Mapping[str, str], ask: Ask[T]
    ) -> tuple[T, Pass | None]:
        """What ``ask`` gives, and what was shown for it; a 401 of the registry tells what that has to be.

        ``login`` None is the host's own. What is good no more is renewed once. Raises SourceError.
        """
        plain = {
            name.lower(): value
            for name, value in headers.items()
            if not name.lower().startswith(CREDENTIAL_PREFIX)
        } | {"via": VIA}
        plain.pop("authorization", None)
        fixed = Pass(login.header, login=True) if login is not None and login.header else None
        shown = fixed or self.access.held(reference, login)
        trail: Trail = []
        try:
            return await ask(_with(plain, shown), trail), shown
        except SourceError as error:
            if fixed is not None or error.origin_status != 401 or not self._at_registry(trail, reference):
                raise self._in_words(error, trail, reference, login, shown) from error
        challenges = parse_challenges(trail[-1].headers.get_all("www-authenticate"))
        shown = await self.access.obtain(reference, login, challenges, shown)
        trail = []
        try:
            return await ask(_with(plain, shown), trail), shown
        except SourceError as error:
            raise self._in_words(error, trail, reference, login, shown) from error

    def _at_registry(self, trail: Trail, reference: Reference) -> bool:
        return bool(trail) and authority_of(trail[-1].url) == authority_of(self.base(reference))

    def _in_words(
        self, error: SourceError, trail: Trail, reference: Reference, asked: Login | None, shown: Pass | None
    ) -> SourceError:
        refused = error.origin_status in (401, 403) and error.retry_after is None
        if refused and self._at_registry(trail, reference):
            return refusal(reference, error.origin_status or 401, asked, shown)
        return error

    async def exchange(
        self,
        method: Literal["GET", "HEAD"],
        place: str,
        headers: Mapping[str, str],
        trail: Trail,
        *,
        most: int = 0,
        follow: bool = True,
    ) -> ClientResponse:
        """One question, whatever its answer is. Redirections are followed without credentials.

        The body of a good answer is read where ``most`` (bytes) is above zero. Raises SourceError, also for one
        that is longer.
        """
        asked, url = SourceRequest(place, headers), place
        for _ in range(self._config.redirects + 1):
            fields = hop_headers(asked, url) | {"accept-encoding": "identity"}
            answer = await self._hop(method, url, fields, trail, most)
            location = answer.headers.get("location", "")
            if not follow or answer.status not in REDIRECTS or not location:
                return answer
            url = next_hop(asked, url, location)
        raise SourceError(
            f"{redact_url(place)} redirects more than {self._config.redirects} times (source.redirects)"
        )

    async def _hop(
        self, method: str, url: str, headers: dict[str, str], trail: Trail, most: int
    ) -> ClientResponse:
        self._policy.check_url(url)
        try:
            async with self._client.stream(
                method, url, headers=headers, timeout=self._config.header_timeout
            ) as answer:
                trail.append(Hop(url, answer.status, answer.headers))
                # The body of a HEAD is read, too: its end leaves a connection that can be used again.
                return await _whole(answer, most if method == "GET" else _WORDS, url)
        except HttpConnectError as error:
            raise SourceError(
                f"the registry cannot be reached: {error}{_advice(error)}", fault="reader"
            ) from error
        except HttpError as error:
            raise SourceError(f"the registry gave no answer: {error}") from error
        except InvalidRequest as error:
            raise SourceError(str(error), fault="request") from error

    def __repr__(self) -> str:
        return f"<RegistryDoor with {self.access!r}>"


def _advice(error: HttpConnectError) -> str:
    """What an operator can do where a connection failed for its TLS."""
    words = str(error)
    if "TLS failed" not in words:
        return ""
    if "CERTIFICATE" in words:
        return "; source.ca_file names certificates that are trusted besides the system's"
    return "; if the registry has no TLS, name it in source.options.oci insecure"


def refused_answer(reference: Reference, url: str, answer: ClientResponse) -> SourceError:
    """The error for an answer that is not what was asked for; its status and its Retry-After go with it."""
    status = answer.status
    words = {
        401: "it needs credentials",
        403: "access is forbidden",
        404: f"check the repository and the {'digest' if reference.digest else 'tag'}",
        429: "it asks for fewer requests: try again later",
    }.get(status, "it fails: try again later" if status >= 500 else "that is no answer to the question")
    front = f"there is no {reference}" if status == 404 else f"{redact_url(url)} answered {status}"
    return SourceError(
        f"{front}: {words}",
        origin_status=status,
        retry_after=parse_retry_after(answer.headers.get("retry-after", ""), time.time()),
    )


async def _whole(answer: ClientStream, most: int, url: str) -> ClientResponse:
    good = answer.status < 300
    limit = most if good else _WORDS
    body = bytearray()
    while limit and (chunk := await answer.receive()):
        body += chunk
        if len(body) > limit and good:
            raise SourceError(
                f"{redact_url(url)} answered with more than the {limit} bytes that are accepted"
            )
        if len(body) > limit:
            body.clear()
            break
    return ClientResponse(answer.status, answer.headers, bytes(body))


def _with(headers: dict[str, str], shown: Pass | None) -> dict[str, str]:
    return {**headers, "authorization": shown.authorization} if shown is not None else headers
