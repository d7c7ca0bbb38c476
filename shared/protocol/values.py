"""What the messages are made of: a task and its parents, a host and its lease."""

from __future__ import annotations

from typing import Literal

import msgspec

from shared.errors import Fault
from shared.task.identity import TaskSpec

PROTOCOL_VERSION = 1


def _own_version() -> int:
    return PROTOCOL_VERSION


def sent_version() -> int:
    """The field ``version`` of a message: this side's, and never left out, as a plain default would be; the release
    that speaks another one must not take it for its own."""
    return msgspec.field(default_factory=_own_version)


VERSION_HEADER = "Dragonet-Version"
"""On piece requests and answers: the task's content version (TaskMeta.version), so versions never mix."""
MAX_PLACES = 8
"""Places that are kept for content known by its digest (``TaskSpec.digest``), which can be read at several."""

CLASSES = 64
"""Into so many classes pieces are cut when the hosts of a zone divide among them what comes from another zone."""

KEY_HEADER = "Dragonet-Key"
"""On piece and availability requests for content that not everybody may have: ``TaskSpec.piece_key``."""

MSGPACK = "application/vnd.msgpack"
SECRET_SIZE = 32
"""Bytes of the secret that the hosts of a cluster have in common (see HostLease)."""

MAX_KNOWS = 16
"""Addresses of others that a Hello tells at most."""

Role = Literal["peer", "seeder"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """Base of all messages."""


class TaskMeta(Message, frozen=True, tag="meta"):
    """What reading the origin told about a task.

    ``version`` changes whenever the content may have changed; pieces of two versions are never mixed.
    ``length`` is None until it is known. ``etag`` and ``last_modified`` are the origin's own words.
    ``sha256`` (hexadecimal) is that of the whole content, "" until a reader of the origin has it.
    ``digest`` ("sha256:HEX") is the one that the source promises, "" for none: content without it is given
    to nobody. ``revalidate`` is the age in seconds at which the content is checked against its source,
    None for never.
    """

    version: str
    piece_length: int
    length: int | None = None
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    sha256: str = ""
    digest: str = ""
    revalidate: float | None = None


class Failure(Message, frozen=True, tag="failure"):
    """Why a source read failed, for everyone who waits: the origin's status, one sentence, whose fault."""

    words: str
    status: int | None = None
    retry_after: float | None = None
    fault: Fault = "origin"


class Parent(Message, frozen=True, tag="parent"):
    """A host to fetch pieces from.

    ``complete``: it held everything when assigned. ``stripe`` (index, count): the child takes pieces
    with ``number % count == index`` from this parent first, so that first copies are disjoint. ``far``: it stands
    in another zone than the child, and each piece is to cross once: the child takes those from it for which bit
    ``number % CLASSES`` of ``carries`` is set; all others are left to the children near by.
    """

    host: str
    address: str
    role: Role = "peer"
    complete: bool = False
    stripe: tuple[int, int] | None = None
    far: bool = False
    carries: int = 0


class PreheatItem(Message, frozen=True, tag="preheat_item"):
    """A content that a preheat brings. ``what`` names it for people ("layer sha256:…"); ``length`` is None
    while it is not known."""

    spec: TaskSpec
    what: str
    length: int | None = None


class HostLease(Message, frozen=True, tag="lease"):
    """A host announces or renews its presence. ``instance`` is new at every process start. ``secret`` is what
    the host derives scopes from that nobody outside the cluster can guess; it is never shown.

    ``resuming``: this process had a lease before, so a scheduler that does not know it was restarted.
    ``schemes`` are those whose origins the host can read. ``preheats``: it takes PreheatWanted.
    ``network`` is the subnet of ``address`` ("10.1.2.0/24"), "" where it is not known. ``secret_since`` (Unix
    seconds) is when ``secret`` was made: of two, the older one becomes the cluster's.
    """

    host: str
    instance: str
    role: Role
    address: str
    version: int = sent_version()
    location: str = ""
    upload_slots: int = 8
    uploads: int = 0
    draining: bool = False
    resuming: bool = False
    schemes: tuple[str, ...] = ()
    preheats: bool = False
    secret: bytes = b""
    secret_since: float = 0.0
    network: str = ""

    def __repr__(self) -> str:
        return f"<HostLease of {self.host}, a {self.role} at {self.address}>"


class LeaseGranted(Message, frozen=True, tag="lease_granted"):
    """``known`` is False when the scheduler knows nothing of what the host holds: it must report all.
    ``secret``, made at ``secret_since``, is the one of the cluster: the host is to have it from now on. ``beat`` is
    the silence, in seconds, after which the assignment stream gives a sign of life.
    """

    scheduler: str
    ttl: float
    known: bool
    version: int = sent_version()
    secret: bytes = b""
    secret_since: float = 0.0
    beat: float = 5.0

    def __repr__(self) -> str:
        return f"<LeaseGranted by {self.scheduler} for {self.ttl} s>"


class Hello(Message, frozen=True, tag="hello"):
    """Who answers at an address (``GET /v1/hello``): a host, or a scheduler (``role`` "scheduler").

    ``schedules``: leases are granted at this address, too. ``instance`` is new at every process start, ``started``
    (Unix seconds) when that was. ``tasks`` and ``held`` (bytes) are what a host holds. ``release`` is dragonet's.
    ``knows`` are addresses of others that are there, "IP:PORT", up to MAX_KNOWS, other ones each time: hints for
    networks on which nobody can be heard.
    """

    id: str
    instance: str
    role: Literal["peer", "seeder", "scheduler"]
    cluster: str = "default"
    version: int = sent_version()
    release: str = ""
    name: str = ""
    location: str = ""
    schedules: bool = False
    started: float = 0.0
    tasks: int = 0
    held: int = 0
    knows: tuple[str, ...] = ()
