"""What this gateway has been told about who may read which repository, and for how long that counts. Pure.

Two tables, both bounded: what registries give to everybody (:class:`Standing`), and the credentials of
clients that registries accepted (:class:`Proofs`). Credentials are known here by a keyed hash only, whose key
ends with the process. All times are those of one clock, in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field

from cdn.sources.oci.descriptor import Descriptor
from shared.errors import DragonetError

MAX_KNOWN = 4096
"""Repositories, and proofs, that are remembered at most; those not used for longest go first."""
MAX_TAGS = 64
"""Tags remembered with one proof."""
TAG_FOR = 60.0
"""Seconds for which a tag of a private repository need not be looked up again."""
DOUBT_FOR = 5.0
"""Seconds for which a refusal or a failure of a registry spares it further questions."""

Repository = tuple[str, str]
"""A registry and a repository of it, both by their canonical names."""


@dataclass(slots=True)
class _Known:
    public_until: float = float("-inf")
    doubt: DragonetError | None = None
    doubt_until: float = float("-inf")
    revoked: bool = False


class Standing:
    """What registries said last of repositories when they were asked without credentials."""

    def __init__(self, public_for: float) -> None:
        self._public_for = public_for
        self._known: OrderedDict[Repository, _Known] = OrderedDict()

    def public(self, repository: Repository, now: float) -> bool:
        """Whether everybody may have it, as was found out lately."""
        known = self._known.get(repository)
        if known is None or now >= known.public_until:
            return False
        self._known.move_to_end(repository)
        return True

    def doubt(self, repository: Repository, now: float) -> DragonetError | None:
        """Why it was not found to be public a moment ago."""
        known = self._known.get(repository)
        return known.doubt if known is not None and now < known.doubt_until else None

    def revoked(self, repository: Repository) -> bool:
        """Whether the last word of its registry was that not everybody may have it."""
        known = self._known.get(repository)
        return known is not None and known.revoked

    def note_public(self, repository: Repository, now: float) -> None:
        """Its registry gave something of it to somebody who showed nothing."""
        known = self._note(repository)
        known.public_until, known.revoked = now + self._public_for, False
        known.doubt, known.doubt_until = None, now

    def note_refused(self, repository: Repository, error: DragonetError, now: float) -> None:
        """Its registry asks for credentials."""
        known = self._note(repository)
        known.public_until, known.revoked = now, True
        known.doubt, known.doubt_until = error, now + DOUBT_FOR

    def note_trouble(self, repository: Repository, error: DragonetError, now: float) -> None:
        """It could not be found out; what was known stays known."""
        known = self._note(repository)
        known.doubt, known.doubt_until = error, now + DOUBT_FOR

    def _note(self, repository: Repository) -> _Known:
        known = self._known.setdefault(repository, _Known())
        self._known.move_to_end(repository)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    def __len__(self) -> int:
        return len(self._known)


@dataclass(frozen=True, slots=True)
class ProofKey:
    """Some credentials, as used for one repository. The credentials cannot be found out from it."""

    repository: Repository
    credentials: bytes = field(repr=False)


@dataclass(slots=True)
class _Proof:
    until: float
    tags: OrderedDict[str, tuple[Descriptor, float]]


class Proofs:
    """Credentials that were good for a repository when its registry was asked. A proof of one repository
    says nothing of any other."""

    def __init__(self, longest: float, secret: bytes) -> None:
        """``longest``: seconds for which a proof counts at most; ``secret`` keys the hashes of credentials."""
        self._longest = longest
        self._secret = secret
        self._proofs: OrderedDict[ProofKey, _Proof] = OrderedDict()

    def key(self, repository: Repository, authorization: str) -> ProofKey:
        """What stands for these credentials here."""
        return ProofKey(repository, hmac.digest(self._secret, authorization.encode(), hashlib.sha256))

    def good(self, key: ProofKey, now: float) -> bool:
        """Whether the credentials are known to be good; what is over is forgotten."""
        return self._proof(key, now) is not None

    def tag(self, key: ProofKey, tag: str, now: float) -> Descriptor | None:
        """What a tag was found to mean a short while ago, by somebody with these credentials."""
        proof = self._proof(key, now)
        found = proof.tags.get(tag) if proof is not None else None
        return found[0] if found is not None and now < found[1] else None

    def last_tag(self, key: ProofKey, tag: str, now: float) -> Descriptor | None:
        """The same, however long ago, under a proof that is still good."""
        proof = self._proof(key, now)
        found = proof.tags.get(tag) if proof is not None else None
        return found[0] if found is not None else None

    def learn(
        self,
        key: ProofKey,
        now: float,
        expires: float,
        *,
        tag: str = "",
        descriptor: Descriptor | None = None,
    ) -> None:
        """The registry accepted the credentials, which are good until ``expires`` at most."""
        proof = self._proof(key, now)
        if proof is None:
            proof = self._proofs[key] = _Proof(now, OrderedDict())
            if len(self._proofs) > MAX_KNOWN:
                self._proofs.popitem(last=False)
        proof.until = min(now + self._longest, expires)
        if tag and descriptor is not None:
            proof.tags[tag] = (descriptor, now + TAG_FOR)
            proof.tags.move_to_end(tag)
            if len(proof.tags) > MAX_TAGS:
                proof.tags.popitem(last=False)

    def forget(self, key: ProofKey) -> None:
        """The registry does not accept the credentials any more."""
        self._proofs.pop(key, None)

    def _proof(self, key: ProofKey, now: float) -> _Proof | None:
        proof = self._proofs.get(key)
        if proof is None:
            return None
        if now >= proof.until:
            del self._proofs[key]
            return None
        self._proofs.move_to_end(key)
        return proof

    def __len__(self) -> int:
        return len(self._proofs)

    def __repr__(self) -> str:
        return f"<{len(self)} Proofs>"
