"""Being let in by a registry: what it asks for with 401, and tokens kept while they are good.

Where a registry names a service that gives out tokens (its *realm*), the credentials for the registry go to
that service: that is how registries work, whose services are mostly on other hosts. It gives away nothing that
the registry could not have asked for itself (by a Basic challenge), as long as nobody on the way can write
the challenge; so a registry spoken to by TLS may name a service with TLS only. One without TLS, which an
operator has named insecure or which is this very machine, may also name a service of that kind.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

import msgspec
import trio

from cdn.sources.context import SourceContext
from cdn.sources.http import parse_retry_after
from cdn.sources.oci.challenges import Challenge
from cdn.sources.oci.flights import Flights
from cdn.sources.oci.logins import ANONYMOUS, Login, Logins
from cdn.sources.oci.names import PlainRegistries, Reference
from shared.errors import Fault, InvalidRequest, SourceError
from shared.http.client import ClientResponse, HttpConnectError, HttpError
from shared.task.identity import MAX_URL_LENGTH, normalize_url, redact_url

MAX_KEPT = 256
"""Repositories (for each login) whose way in is kept; the one not used for longest is forgotten."""

DEFAULT_LIFETIME = 60.0
LONGEST_LIFETIME = 3600.0
_FILE_PATIENCE = 10.0
_TOKEN_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pass:
    """What lets us in. ``login``: it was had with credentials. ``helper`` might have had some."""

    authorization: str = field(default="", repr=False)
    expires: float = 0.0
    login: bool = False
    helper: str = ""


class _Slot:
    def __init__(self) -> None:
        self.held: Pass | None = None


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


_Key = tuple[str, str, Login | None]


class RegistryAccess:
    """Passes for repositories. Each belongs to one login: no one is given what another's credentials got.

    Where a login is asked for, None stands for the host's own (nobody, where it has none), ``ANONYMOUS`` for
    nobody. ``longest`` is for how many seconds a token is used at most, whatever its service says.
    """

    def __init__(
        self,
        context: SourceContext,
        logins: Logins,
        plain: PlainRegistries,
        longest: float = LONGEST_LIFETIME,
    ) -> None:
        self._context = context
        self._policy = context.web_policy()
        self._logins = logins
        self._plain = plain
        self._longest = longest
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()
        self._flights: Flights[Pass] = Flights()

    def held(self, reference: Reference, login: Login | None) -> Pass | None:
        """A pass that was good lately, for this repository and whoever asks."""
        held = self._slot(reference, login).held
        return held if held is not None and trio.current_time() < held.expires else None

    async def obtain(
        self, reference: Reference, login: Login | None, challenges: Sequence[Challenge], refused: Pass | None
    ) -> Pass:
        """A new pass, as one of the ``challenges`` asks for; another than the one that was ``refused``.

        Several that ask at the same time share one. Raises SourceError.
        """
        slot = self._slot(reference, login)
        if slot.held is not None and slot.held is not refused and trio.current_time() < slot.held.expires:
            return slot.held
        key = (reference.registry, reference.repository, login)
        return await self._flights.join(key, partial(self._renew, slot, reference, login, challenges))

    async def _renew(
        self, slot: _Slot, reference: Reference, login: Login | None, challenges: Sequence[Challenge]
    ) -> Pass:
        slot.held = None
        slot.held = await self._new(reference, login, challenges)
        return slot.held

    async def own(self, reference: Reference) -> tuple[Login | None, str]:
        """The host's own login for a repository, and the credential helper that might know another ("" for
        none). Raises SourceError."""
        with trio.move_on_after(_FILE_PATIENCE):
            return await trio.to_thread.run_sync(self._logins.of, reference, abandon_on_cancel=True)
        raise SourceError("docker's credentials cannot be read in time", fault="reader")

    def _slot(self, reference: Reference, login: Login | None) -> _Slot:
        key = (reference.registry, reference.repository, login)
        slot = self._slots.setdefault(key, _Slot())
        self._slots.move_to_end(key)
        if len(self._slots) > MAX_KEPT:
            self._slots.popitem(last=False)
        return slot

    async def _new(self, reference: Reference, login: Login | None, challenges: Sequence[Challenge]) -> Pass:
        asked, helper = login, ""
        if login is None:
            login, helper = await self.own(reference)
        elif login == ANONYMOUS:
            login = None
        kept = trio.current_time() + LONGEST_LIFETIME
        if login is not None and login.header:
            return Pass(login.header, kept, login=True)
        ways = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in ways:
            return await self._token(reference, asked, login, ways["bearer"], helper)
        if "basic" in ways and login is not None:
            return Pass(login.basic, kept, login=True)
        if "basic" in ways:
            raise refusal(reference, 401, asked, Pass(helper=helper))
        raise SourceError(
            f"{reference.registry} asks for credentials in a way that is not known "
            f"({', '.join(ways) or 'it does not tell which'})",
            origin_status=401,
        )

    async def _token(
        self,
        reference: Reference,
        asked: Login | None,
        login: Login | None,
        challenge: Challenge,
        helper: str,
    ) -> Pass:
        realm = self._checked(reference, challenge.parameters.get("realm", ""))
        scopes = challenge.parameters.get("scope", "").split() or [f"repository:{reference.repository}:pull"]
        query = [("service", challenge.parameters.get("service", "")), *(("scope", each) for each in scopes)]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode([item for item in query if item[1]])}"
        if len(url) > MAX_URL_LENGTH:
            raise SourceError(
                f"{reference.registry} asks for a token in {len(url)} characters, which is too many"
            )
        headers = {"accept": "application/json"} | ({"authorization": login.basic} if login else {})
        self._policy.check_url(url)
        try:
            answer = await self._context.http.request(
                "GET", url, headers=headers, timeout=self._context.config.header_timeout, limit=_TOKEN_LIMIT
            )
        except HttpError as error:
            fault: Fault = "reader" if isinstance(error, HttpConnectError) else "origin"
            words = f"the token service of {reference.registry} gives no answer: {error}"
            raise SourceError(words, fault=fault) from error
        if answer.status != 200:
            self._refused(reference, asked, answer, Pass(login=login is not None, helper=helper))
        token, told = _read(answer, realm)
        lifetime = min(told, self._longest)
        # Given back a little early, so that it does not expire on its way.
        expires = trio.current_time() + lifetime - min(5.0, lifetime / 10)
        return Pass(f"Bearer {token}", expires, login is not None, helper)

    def _checked(self, reference: Reference, realm: str) -> str:
        try:
            url, _ = normalize_url(realm)
        except InvalidRequest:
            url = ""
        parts = urlsplit(url)
        both_plain = reference.server in self._plain and parts.netloc in self._plain
        if parts.scheme == "https" or (parts.scheme == "http" and both_plain):
            return url
        raise SourceError(
            f"{reference.registry} names {redact_url(realm) or 'nothing'} as its token service, which is not "
            "asked: credentials go to https:// only (source.options.oci insecure names exceptions)"
        )

    @staticmethod
    def _refused(reference: Reference, asked: Login | None, answer: ClientResponse, shown: Pass) -> NoReturn:
        if answer.status in (400, 401, 403) and "retry-after" not in answer.headers:
            raise refusal(reference, 401, asked, shown)
        busy = answer.status in (403, 429) or answer.status >= 500
        raise SourceError(
            f"the token service of {reference.registry} answered {answer.status}: "
            f"{'try again later' if busy else 'it gives no token this way'}",
            origin_status=answer.status,
            retry_after=parse_retry_after(answer.headers.get("retry-after", ""), time.time()),
        )

    def __repr__(self) -> str:
        return f"<RegistryAccess to {len(self._slots)} repositories>"


def refusal(reference: Reference, status: int, asked: Login | None, shown: Pass | None) -> SourceError:
    """The error where a registry, or its token service, does not let in whoever ``asked``. Another host may have
    the credentials that this one has not."""
    login = shown is not None and shown.login
    words = (
        "may not be read with these credentials" if login else "may not be read by everybody, or is not there"
    )
    if asked == ANONYMOUS:
        return SourceError(f"{reference} {words}", origin_status=status)
    how = f"source.options.oci 'auth.{reference.registry}' = 'user:password', or --source-option username=…"
    helper = "" if shown is None or not shown.helper else f"; docker-credential-{shown.helper} is not run"
    return SourceError(
        f"{reference} {words}: check its name and the credentials ({how}{helper})",
        origin_status=status,
        fault="origin" if login else "reader",
    )


def _read(answer: ClientResponse, realm: str) -> tuple[str, float]:
    """The token in an answer, and for how many seconds it is good."""
    try:
        read = msgspec.json.decode(answer.body, type=_Answer)
    except msgspec.DecodeError:
        read = _Answer()
    token = read.token or read.access_token
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SourceError(f"the token service {redact_url(realm)} answered without a token")
    lifetime = DEFAULT_LIFETIME if read.expires_in is None else read.expires_in
    return token, min(max(lifetime, 0.0), LONGEST_LIFETIME)
