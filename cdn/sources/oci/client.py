"""Questions to registries whose answers are no content: what a reference stands for, and who may know it."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from cdn.sources.http import Trail
from cdn.sources.oci.access import Pass
from cdn.sources.oci.descriptor import MANIFESTS, MAX_MANIFEST, Descriptor, found, told
from cdn.sources.oci.door import VIA, RegistryDoor, refused_answer
from cdn.sources.oci.flights import Flights
from cdn.sources.oci.logins import ANONYMOUS, Login, login_of
from cdn.sources.oci.names import Kind, Reference
from cdn.sources.oci.tokens import token_end
from shared.errors import SourceError
from shared.http.client import ClientResponse

OPAQUE_LIFETIME = 60.0
"""Seconds for which a token that does not tell its end counts as good after it was accepted."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of the longest answer of :meth:`RegistryClient.get`."""

_GRACE = 1.0
"""Seconds after which those who wait give up later than the one who asks, whose error is theirs too."""

_OWN_FIELDS = frozenset(
    {"authorization", "host", "connection", "content-length", "transfer-encoding", "cookie"}
)
_NO_HEAD = frozenset({405, 501})


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Proven:
    """A descriptor, and until when (trio's time) what was shown for it is known to be good."""

    descriptor: Descriptor
    expires: float


class RegistryClient:
    """Asks registries on behalf of whoever shows a login; the login itself is shown to nobody else.

    Every call ends after ``patience`` seconds. Many that ask for the same at the same time, with the same login,
    make one request.
    """

    def __init__(
        self, door: RegistryDoor, patience: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._door = door
        self._patience = patience
        self._clock = clock
        self._heads: Flights[Proven] = Flights()
        self._answers: Flights[ClientResponse] = Flights()

    async def head(self, reference: Reference, kind: Kind, login: Login | None) -> Proven:
        """What a manifest or blob is, which proves that it may be read with ``login``; None: by everybody.

        Never with the host's own credentials. Raises SourceError with the registry's status and Retry-After.
        """
        login = ANONYMOUS if login is None else login
        key = (str(reference), kind, login)
        return await self._once(self._heads, key, reference, partial(self._head, reference, kind, login))

    async def _head(self, reference: Reference, kind: Kind, login: Login) -> Proven:
        ask = partial(self._describe, reference, kind)
        descriptor, shown = await self._door.let_in(reference, login, _accepted(kind), ask)
        return Proven(descriptor, self._end(shown))

    async def _describe(
        self, reference: Reference, kind: Kind, headers: dict[str, str], trail: Trail
    ) -> Descriptor:
        place = self._door.place(reference, kind)
        answer = await self._door.exchange("HEAD", place, headers, trail)
        redirected = len(trail) > 1  # to a storage whose signed URLs may be good for GET only
        if answer.status != 200 and not redirected and answer.status not in _NO_HEAD:
            raise refused_answer(reference, trail[-1].url, answer)
        descriptor = told(reference, kind, answer.headers) if answer.status == 200 else None
        if descriptor is not None:
            return descriptor
        most = MAX_MANIFEST if kind == "manifest" else 0
        answer = await self._door.exchange("GET", place, headers, trail, most=most)
        if answer.status != 200:
            raise refused_answer(reference, trail[-1].url, answer)
        if kind == "manifest":
            return found(reference, answer.headers, answer.body)
        descriptor = told(reference, kind, answer.headers)
        if descriptor is None:
            raise SourceError(f"{reference.registry} does not tell how long {reference} is")
        return descriptor

    def _end(self, shown: Pass | None) -> float:
        if shown is None or shown.authorization.startswith("Basic "):
            return math.inf
        if shown.expires:
            return shown.expires
        end = token_end(shown.authorization.partition(" ")[2].strip())
        lifetime = OPAQUE_LIFETIME if end is None else end - self._clock()
        return trio.current_time() + lifetime

    async def own_login(self, reference: Reference) -> Login | None:
        """The host's own credentials for a repository; None where it has none. Raises SourceError."""
        return (await self._door.access.own(reference))[0]

    async def get(
        self,
        registry: str,
        repository: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        login: Login | None,
    ) -> ClientResponse:
        """What lies at ``path`` below a repository ("tags/list"); every status is an answer.

        ``login`` None: as everybody. Redirections are followed. Raises SourceError when there is no answer.
        """
        reference = Reference(registry, repository, "", "")
        if ".." in path.split("/") or set("?#%\\") & set(path):
            raise SourceError(f"{path!r} is no place below a repository", fault="request")
        place = f"{self._door.base(reference)}/{path}{'?' if query else ''}{query}"
        kept = {name.lower(): value for name, value in headers.items() if name.lower() not in _OWN_FIELDS}
        login = ANONYMOUS if login is None else login
        key = (place, tuple(sorted(kept.items())), login)
        work = partial(self._get, reference, place, kept, login)
        return await self._once(self._answers, key, reference, work)

    async def _get(
        self, reference: Reference, place: str, given: Mapping[str, str], login: Login
    ) -> ClientResponse:
        refused: list[ClientResponse] = []

        async def ask(headers: dict[str, str], trail: Trail) -> ClientResponse:
            answer = await self._door.exchange("GET", place, headers, trail, most=MAX_ANSWER)
            if answer.status == 401:
                refused.append(answer)
                raise refused_answer(reference, place, answer)
            return answer

        try:
            return (await self._door.let_in(reference, login, given, ask))[0]
        except SourceError as error:
            if error.origin_status == 401 and refused:
                return refused[-1]
            raise

    async def unauthenticated(self, reference: Reference, kind: Kind) -> ClientResponse:
        """What the registry answers to a request that shows nothing, its WWW-Authenticate with it; nothing is
        followed, and only the body of a refusal is read. Raises SourceError when there is no answer."""
        place = self._door.place(reference, kind)
        headers = _accepted(kind) | {"via": VIA}
        work: Callable[[], Awaitable[ClientResponse]] = partial(
            self._door.exchange, "GET", place, headers, [], follow=False
        )
        return await self._once(self._answers, ("unauthenticated", place), reference, work)

    @staticmethod
    def login_of(authorization: str) -> Login:
        """Whom a value of the Authorization field stands for."""
        return login_of(authorization)

    async def _once(
        self, flights: Flights[T], key: Hashable, reference: Reference, work: Callable[[], Awaitable[T]]
    ) -> T:
        async def bounded() -> T:
            with self._deadline(reference, 0.0):
                return await work()

        with self._deadline(reference, _GRACE):
            return await flights.join(key, bounded)

    @contextmanager
    def _deadline(self, reference: Reference, grace: float) -> Iterator[None]:
        try:
            with trio.fail_after(self._patience + grace):
                yield
        except trio.TooSlowError:
            raise SourceError(f"{reference.registry} did not answer within {self._patience:g} s") from None

    def __repr__(self) -> str:
        return f"<RegistryClient: {self._heads!r}>"


def _accepted(kind: Kind) -> dict[str, str]:
    return {"accept": ", ".join(MANIFESTS)} if kind == "manifest" else {}
