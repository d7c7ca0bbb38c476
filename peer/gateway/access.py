"""Who may have what through the registry gateway, and in which scope it is then read. Default: nobody, nothing.

What is held in the cluster is given out in one of two scopes, and neither leads to the other:

* **Public** (scope ""). That everybody may have it is learned by reading its *descriptor* through the swarm,
  which whoever reads it asks the registry for without any credentials, and which is checked anew like all content
  that may change. What is known by its digest is read without credentials, too, when its scope is "". So
  nothing is in this scope that its registry did not give to somebody who showed nothing; that is also why,
  when a registry does not answer, what the cluster holds in it may be given out: it was public. (Content of
  this scope is the same task under whatever name it is asked for. That is no way to anything private, since
  asking for it under a wrong name reads it there, without credentials, where it is not.)
* **Private** (the scope of one repository, :func:`cdn.images.specs.repository_scope`). Given to those whose own
  credentials the registry accepted for this repository a short while ago (:mod:`peer.gateway.proofs`). Content
  gets into that scope only by being read from that repository with such credentials, so whatever digest is
  found in it belongs to the repository, and registries let one read a repository or not, never a part.

Whoever is refused is answered with what the registry itself says, and nothing on the way there looks at what
is held in a private scope: neither the answer nor the time that it takes tells whether the cluster has it.
Where the registry last said that not everybody may have a repository, its not answering is no way in either.
"""

from __future__ import annotations

import secrets
from copy import copy
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import trio

from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec, repository_scope
from cdn.sources.oci.client import Proven, RegistryClient
from cdn.sources.oci.descriptor import Descriptor, parse_descriptor
from cdn.sources.oci.logins import ANONYMOUS, Login, login_of
from cdn.sources.oci.names import Kind, Reference, canonical_registry
from peer.gateway.asking import HOLD, Asking
from peer.gateway.challenges import asked_for_credentials
from peer.gateway.config import RegistryConfig
from peer.gateway.proofs import ProofKey, Proofs, Repository, Standing
from peer.gateway.target import Target
from shared.errors import DragonetError, InvalidRequest, SourceError
from shared.http.client import ClientResponse
from shared.http.messages import Response
from shared.swarm.host import Host
from shared.swarm.reading import ReadOrder, open_reading, read_whole

log = structlog.get_logger()

DESCRIPTOR_LIMIT = 64 * 1024
DESCRIPTOR_PATIENCE = 12.0
"""Seconds that the cluster may take, at most, to find out what is public; then it counts as trouble."""
HELD_PATIENCE = 5.0
"""Seconds that the cluster may take to say whether it holds something."""


@dataclass(frozen=True, slots=True)
class Granted:
    """It may be had. ``scope`` and ``headers`` are those of the tasks to read; ``descriptor`` is there for tags.

    ``stale``: it could not be checked when it was time to. ``cluster_only``: its registry is in trouble, and
    the cluster holds the content. ``hit``: nobody had to be asked now.
    """

    scope: str = field(default="", repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    descriptor: Descriptor | None = None
    stale: bool = False
    cluster_only: bool = False
    hit: bool = True


@dataclass(frozen=True, slots=True)
class Passed:
    """It may not be had; this is the answer."""

    response: Response


Verdict = Granted | Passed


class HasRegistryClient(Protocol):
    """Where the client for registries comes from: the reader of sources."""

    async def registry_client(self) -> RegistryClient:
        """The client. Raises SourceError where this machine may not talk to registries."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose credentials count: the client's own, or this machine's where they are shared."""

    login: Login
    authorization: str = field(repr=False)
    key: ProofKey
    shared: bool = False


class Access:
    """Judges requests for manifests and blobs. ``asking`` are its questions to registries."""

    def __init__(self, host: Host, reader: HasRegistryClient, config: RegistryConfig) -> None:
        self._host = host
        self._reader = reader
        self._sharing = frozenset(map(canonical_registry, config.share_login))
        self._patience = min(DESCRIPTOR_PATIENCE, config.first_byte / 2)
        self.asking = Asking()
        self._standing = Standing(config.public_for)
        self._proofs = Proofs(config.proof_for, secrets.token_bytes(32))

    async def check(self, target: Target, authorization: str) -> Verdict:
        """May a request with this Authorization ("" for none) have what ``target`` names?

        Raises what the registry says against it (SourceError), InvalidRequest, and other DragonetErrors of the
        way there.
        """
        asker = await self.asker(target, authorization)
        if asker is not None:
            proven = self._proven(target, asker)
            if proven is not None:
                return proven
        public = await self._public(target)
        if isinstance(public, Granted):
            return public
        against = public
        if asker is not None:
            private = await self._private(target, asker)
            if isinstance(private, Granted):
                return private
            against = private
        if _is_trouble(public) and await self._held(target):
            return Granted(stale=True, cluster_only=True, hit=False)
        final = asker is not None and not asker.shared and not _wants_other_credentials(against)
        if final or _is_trouble(against):
            raise copy(against)
        return await self._refused(target, against)

    def forget(self, target: Target, authorization: str) -> None:
        """The registry refused what was read with these credentials: they must be proven anew."""
        self._proofs.forget(self._key(target, authorization))

    # --- in public -------------------------------------------------------------------------------------

    async def _public(self, target: Target) -> Granted | DragonetError:
        """What everybody may have, or why not. Raises InvalidRequest."""
        repository, now = _repository(target), trio.current_time()
        if target.digest and self._standing.public(repository, now):
            return Granted()
        doubt = self._standing.doubt(repository, now)
        if doubt is not None and (target.digest or not _is_trouble(doubt)):
            return doubt
        spec = descriptor_spec(
            target.registry, target.repository, target.reference, blob=target.kind == "blobs"
        )
        try:
            whole = await read_whole(self._host, ReadOrder(spec, patience=self._patience), DESCRIPTOR_LIMIT)
            descriptor = _descriptor(whole.data, target)
        except InvalidRequest:
            raise
        except DragonetError as error:
            self._note(repository, error)
            return error
        if not whole.stale:
            self._standing.note_public(repository, trio.current_time())
        elif self._standing.revoked(repository):
            return SourceError(f"{target.registry} cannot be asked who may read {target.repository} now")
        return Granted(descriptor=descriptor, stale=whole.stale, hit=whole.hit)

    def _note(self, repository: Repository, error: DragonetError) -> None:
        now = trio.current_time()
        if _is_refusal(error):
            self._standing.note_refused(repository, error, now)
        elif _is_trouble(error):
            self._standing.note_trouble(repository, error, now)

    async def _held(self, target: Target) -> bool:
        """Whether the cluster holds what a digest names in public, so that it was public once; never for what
        is known to be so no more."""
        if not target.digest or self._standing.revoked(_repository(target)):
            return False
        make = blob_spec if target.kind == "blobs" else manifest_spec
        spec = make(target.registry, target.repository, target.digest)
        order = ReadOrder(spec, cluster_only=True, patience=HELD_PATIENCE)
        try:
            reading = await open_reading(self._host, order)
        except DragonetError:
            return False
        await reading.aclose()
        return True

    # --- with credentials ------------------------------------------------------------------------------

    async def asker(self, target: Target, authorization: str) -> Asker | None:
        """Whose credentials count for a request with this Authorization; None: nobody's. Raises InvalidRequest."""
        if not (authorization.isascii() and authorization.isprintable()):
            raise InvalidRequest("the Authorization field may hold printable ASCII characters only")
        key = self._key(target, authorization)
        login = login_of(authorization)
        if login != ANONYMOUS:
            return Asker(login, authorization, key)
        if target.registry not in self._sharing:
            return None
        try:
            client = await self._reader.registry_client()
            own = await client.own_login(_reference(target))
        except SourceError as error:
            log.warning("this machine's login is not known", registry=target.registry, cause=str(error))
            return None
        return None if own is None else Asker(own, own.authorization, key, shared=True)

    def _key(self, target: Target, authorization: str) -> ProofKey:
        """What stands for a client's credentials, or, where it has none, for this machine's own."""
        shown = authorization if login_of(authorization) != ANONYMOUS else ""
        return self._proofs.key(_repository(target), shown)

    def _proven(self, target: Target, asker: Asker) -> Granted | None:
        """What a proof that is still good allows, without asking anybody."""
        now = trio.current_time()
        if not self._proofs.good(asker.key, now):
            return None
        if target.digest:
            return self._grant(target, asker, None)
        descriptor = self._proofs.tag(asker.key, target.tag, now)
        return None if descriptor is None else self._grant(target, asker, descriptor)

    async def _private(self, target: Target, asker: Asker) -> Granted | DragonetError:
        """What the registry gives to these credentials, or why not."""
        reference, kind = _reference(target), _kind(target)

        async def ask() -> Proven | SourceError:
            try:
                client = await self._reader.registry_client()
                return await client.head(reference, kind, asker.login)
            except SourceError as error:
                return error

        key = (asker.key, target.reference, kind)
        found = await self.asking.once(target.registry, key, ask, _holds)
        now = trio.current_time()
        if isinstance(found, Proven):
            self._proofs.learn(asker.key, now, found.expires, tag=target.tag, descriptor=found.descriptor)
            return self._grant(target, asker, found.descriptor, hit=False)
        if _is_refusal(found):
            self._proofs.forget(asker.key)
        descriptor = self._proofs.last_tag(asker.key, target.tag, now) if _is_trouble(found) else None
        if descriptor is not None:
            return self._grant(target, asker, descriptor, stale=True)
        return found

    def _grant(
        self,
        target: Target,
        asker: Asker,
        descriptor: Descriptor | None,
        *,
        stale: bool = False,
        hit: bool = True,
    ) -> Granted:
        scope = repository_scope(self._host.scope_secret, target.registry, target.repository)
        headers = {"authorization": asker.authorization}
        return Granted(scope, headers, descriptor, stale=stale, hit=hit)

    # --- no --------------------------------------------------------------------------------------------

    async def _refused(self, target: Target, error: DragonetError) -> Passed:
        """What the registry wants to be shown. Raises ``error`` where it does not tell."""
        reference, kind = _reference(target), _kind(target)

        async def ask() -> ClientResponse | None:
            try:
                client = await self._reader.registry_client()
                return await client.unauthenticated(reference, kind)
            except SourceError:
                return None

        answer = await self.asking.once(target.registry, _repository(target), ask)
        if answer is None or answer.status != 401:
            raise copy(error)
        return Passed(asked_for_credentials(answer, target))


def _repository(target: Target) -> Repository:
    return target.registry, target.repository


def _reference(target: Target) -> Reference:
    return Reference(target.registry, target.repository, target.tag, target.digest)


def _kind(target: Target) -> Kind:
    return "blob" if target.kind == "blobs" else "manifest"


def _descriptor(data: bytes, target: Target) -> Descriptor:
    """What the cluster tells of the target. Raises SourceError when that cannot be."""
    descriptor = parse_descriptor(data)
    if target.digest not in ("", descriptor.digest):
        raise SourceError(f"the descriptor of {target.digest} is that of {descriptor.digest}")
    return descriptor


def _holds(found: Proven | SourceError) -> float:
    """For how many seconds an answer is given to others with the same credentials."""
    return HOLD if isinstance(found, SourceError) else min(HOLD, found.expires - trio.current_time())


def _is_trouble(error: DragonetError) -> bool:
    """Whether it says nothing about who may have what: the registry may answer later, or others may."""
    if not isinstance(error, SourceError):
        return True
    status = error.origin_status
    if status is None:
        return error.fault != "request"
    return status in (408, 425, 429) or status >= 500 or (status == 403 and error.retry_after is not None)


def _wants_other_credentials(error: DragonetError) -> bool:
    return isinstance(error, SourceError) and error.origin_status == 401


def _is_refusal(error: DragonetError) -> bool:
    """Whether the registry does not let these credentials, or nobody's, in."""
    return isinstance(error, SourceError) and error.origin_status in (401, 403) and not _is_trouble(error)
