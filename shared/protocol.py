"""Every message of dragonet's protocols, on one page. MessagePack on the wire, JSON on request.

Control protocol (host to scheduler, HTTP/1.1; hosts call, the scheduler never does):

* ``PUT /v1/hosts/{host}``             HostLease -> LeaseGranted; renewed every ``ttl / 3`` seconds
* ``GET /v1/hosts/{host}/assignments`` a stream of frames, each one Assignment, until either side hangs up
* ``POST /v1/hosts/{host}/reports``    Reports -> ReportsTaken
* ``DELETE /v1/hosts/{host}``          the lease is given up

Data protocol (host to host, HTTP/1.1):

* ``GET /v1/tasks/{task}/pieces/{number}``  the bytes
* ``GET /v1/tasks/{task}/availability``     a stream of frames, each one AvailabilityEvent

A frame is a 4-byte big-endian length and so many bytes of MessagePack (``shared.http.frames``).
Unknown fields are ignored, so fields may be added; a message whose ``version`` is not
``PROTOCOL_VERSION`` is refused in words. Task ids are 64 hex digits; times and durations are seconds,
lengths and rates bytes and bytes per second; digests are 32 bytes of BLAKE3.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shared.errors import Fault, InvalidRequest
from shared.task.identity import TaskSpec

PROTOCOL_VERSION = 1
VERSION_HEADER = "Dragonet-Version"
"""On piece requests and answers: the task's content version (TaskMeta.version), so versions never mix."""
MAX_PLACES = 8
"""Places that are kept for content known by its digest (``TaskSpec.digest``), which can be read at several."""

KEY_HEADER = "Dragonet-Key"
"""On piece and availability requests for content that not everybody may have: ``TaskSpec.piece_key``."""

MSGPACK = "application/vnd.msgpack"
SECRET_SIZE = 32
"""Bytes of the secret that the hosts of a cluster have in common (see HostLease)."""

Role = Literal["peer", "seeder"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """Base of all messages."""


# --- values -------------------------------------------------------------------------------------


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
    with ``number % count == index`` from this parent first, so that first copies are disjoint.
    """

    host: str
    address: str
    role: Role = "peer"
    complete: bool = False
    stripe: tuple[int, int] | None = None


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
    """

    host: str
    instance: str
    role: Role
    address: str
    version: int = PROTOCOL_VERSION
    location: str = ""
    upload_slots: int = 8
    uploads: int = 0
    draining: bool = False
    resuming: bool = False
    schemes: tuple[str, ...] = ()
    preheats: bool = False
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"<HostLease of {self.host}, a {self.role} at {self.address}>"


class LeaseGranted(Message, frozen=True, tag="lease_granted"):
    """``known`` is False when the scheduler knows nothing of what the host holds: it must report all.
    ``secret`` is the one of the cluster: the host is to have it from now on.
    """

    scheduler: str
    ttl: float
    known: bool
    version: int = PROTOCOL_VERSION
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"<LeaseGranted by {self.scheduler} for {self.ttl} s>"


# --- reports: host to scheduler -----------------------------------------------------------------


class PeerRegistered(Message, frozen=True, tag="registered"):
    """The host wants this content. ``may_read``: it could go back to source itself; ``cluster_only``:
    the origin is not to be read on its account. ``begun``: it goes on with a download that was admitted
    before, so it is not to be moved to a newer generation.

    ``spec.url`` names a place where the content can be read. Of content that is known by its digest a host
    may name several, each with a report of its own, until it is refused, leaves or has finished.
    """

    task: str
    spec: TaskSpec
    may_read: bool = True
    cluster_only: bool = False
    begun: bool = False


class PeerHolding(Message, frozen=True, tag="holding"):
    """All that the host holds of a task (after registering, and after the scheduler forgot).

    ``fresh``: seconds for which the content need not be checked against its source, as the host was told;
    ``stale``: because it could not be.
    """

    task: str
    spec: TaskSpec
    meta: TaskMeta
    held: bytes = b""
    digests: dict[int, bytes] = {}
    complete: bool = False
    fresh: float = 0.0
    stale: bool = False


class FreshWanted(Message, frozen=True, tag="fresh_wanted"):
    """The host is asked for content that it holds, and it is time to check that against its source.

    Answered with TaskFresh or TaskMoved. ``may_read``: the host could do the check itself.
    """

    task: str
    spec: TaskSpec
    meta: TaskMeta
    may_read: bool = True


class SourceChecked(Message, frozen=True, tag="source_checked"):
    """The answer to CheckGranted. ``expired``: the source has other content now; None: this host cannot ask.
    ``failed``: it was asked, and could not be found out."""

    task: str
    grant: str
    expired: bool | None
    failed: bool = False


class PiecesHeld(Message, frozen=True, tag="held"):
    """Pieces newly held (received from parents and verified)."""

    task: str
    version: str
    pieces: list[int]


class SourceOpened(Message, frozen=True, tag="source_opened"):
    """The origin answered: this is the content's metadata. A new ``meta.version`` ends the old version."""

    task: str
    grant: str
    meta: TaskMeta


class SourcePieces(Message, frozen=True, tag="source_pieces"):
    """Pieces read at the origin, held by the reader from now on, with their digests."""

    task: str
    grant: str
    version: str
    digests: dict[int, bytes]


class SourceProgress(Message, frozen=True, tag="source_progress"):
    """Bytes received from the origin so far under this grant: the read is alive, however slow."""

    task: str
    grant: str
    received: int


class SourceFinished(Message, frozen=True, tag="source_finished"):
    """The origin was read to its end: ``meta.length`` is final."""

    task: str
    grant: str
    meta: TaskMeta


class SourceFailed(Message, frozen=True, tag="source_failed"):
    """The read failed for good. ``wrong``: what was read does not have the digest by which the content is
    known, so that none of it is what it should be."""

    task: str
    grant: str
    failure: Failure
    wrong: bool = False


class ParentFailed(Message, frozen=True, tag="parent_failed"):
    """A parent gave no piece, or a wrong one. ``reason`` is TransferError.reason."""

    task: str
    parent: str
    reason: str


class ParentsWanted(Message, frozen=True, tag="parents_wanted"):
    """The host is short of parents that have pieces it lacks."""

    task: str


class PeerFinished(Message, frozen=True, tag="finished"):
    """The host holds the whole task, verified."""

    task: str
    version: str


class PeerLeft(Message, frozen=True, tag="left"):
    """The host no longer wants the task; it still holds and serves the pieces it has."""

    task: str


class TaskRemoved(Message, frozen=True, tag="removed"):
    """The host no longer holds anything of the task (evicted, removed, or the wrong version)."""

    task: str


class Resolved(Message, frozen=True, tag="resolved"):
    """The answer to ResolveWanted: what there is to bring, or why that cannot be told.

    ``image`` is its whole name. ``private``: not everybody may have it; ``own_login``: the seeders' own
    credentials were good for it. ``notes`` are sentences for whoever asked.
    """

    job: int
    image: str = ""
    items: list[PreheatItem] = []
    private: bool = False
    own_login: bool = False
    notes: list[str] = []
    failure: Failure | None = None


class Preheated(Message, frozen=True, tag="preheated"):
    """The host holds all of a content that it was to bring (``bytes``: by where they came from), or why not.

    ``task`` is the id of the item's ``spec``, whatever generation of it is there now.
    """

    job: int
    task: str
    length: int = 0
    bytes: dict[str, int] = {}
    failure: Failure | None = None


Report = (
    PeerRegistered
    | PeerHolding
    | FreshWanted
    | SourceChecked
    | PiecesHeld
    | SourceOpened
    | SourcePieces
    | SourceProgress
    | SourceFinished
    | SourceFailed
    | ParentFailed
    | ParentsWanted
    | PeerFinished
    | PeerLeft
    | TaskRemoved
    | Resolved
    | Preheated
)


class Reports(Message, frozen=True, tag="reports"):
    """A batch of reports, in the order in which things happened."""

    instance: str
    items: list[Report]
    version: int = PROTOCOL_VERSION


class ReportsTaken(Message, frozen=True, tag="reports_taken"):
    """``known`` False: the scheduler has no lease for this instance; renew it and report all again."""

    known: bool
    version: int = PROTOCOL_VERSION


# --- assignments: scheduler to host -------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """The first frame of an assignment stream."""

    scheduler: str
    version: int = PROTOCOL_VERSION


class Beat(Message, frozen=True, tag="beat"):
    """Nothing new; the stream is alive. Also sent on availability streams."""


class TaskDescribed(Message, frozen=True, tag="described"):
    """The task's metadata, when first known and whenever it changes."""

    task: str
    meta: TaskMeta


class PieceDigests(Message, frozen=True, tag="digests"):
    """Digests of pieces that were read at the origin."""

    task: str
    version: str
    digests: dict[int, bytes]


class ParentsAssigned(Message, frozen=True, tag="parents"):
    """The whole list of parents for this task, best first; it replaces the one before."""

    task: str
    parents: list[Parent]


class SourceGranted(Message, frozen=True, tag="source_granted"):
    """Go back to source. ``pieces``: the (first, count) runs to read; None: all that the host lacks.

    ``spec.url`` is where: one of the places that this host named, if it named any and they have not failed.
    ``meta`` and ``digests`` are what the cluster knows already.
    """

    task: str
    grant: str
    spec: TaskSpec
    meta: TaskMeta | None = None
    pieces: list[tuple[int, int]] | None = None
    digests: dict[int, bytes] = {}


class SourceRevoked(Message, frozen=True, tag="source_revoked"):
    """Stop reading under this grant; another host does."""

    task: str
    grant: str


class CheckGranted(Message, frozen=True, tag="check_granted"):
    """Ask the source whether it still has the content that ``meta`` describes; once for the whole cluster.

    The answer (SourceChecked) must come within ``patience`` seconds.
    """

    task: str
    grant: str
    spec: TaskSpec
    meta: TaskMeta
    patience: float


class TaskFresh(Message, frozen=True, tag="fresh"):
    """The content may be given out, and need not be checked again for so many seconds. ``stale``: it could
    not be found out whether it is still what its source has."""

    task: str
    seconds: float
    stale: bool = False


class TaskMoved(Message, frozen=True, tag="moved"):
    """The source has other content now: a task of its own, ``TaskSpec.generation`` being this one."""

    task: str
    generation: str


class TaskFailed(Message, frozen=True, tag="failed"):
    """The task cannot be had now; whoever waits for it is to be told.

    ``places``, of content that is known by its digest: what became of each place that the host named, by URL.
    One that is missing was named too late to be tried, and still counts; {}: nothing is tried any more.
    """

    task: str
    failure: Failure
    places: dict[str, Failure] = {}


class ResolveWanted(Message, frozen=True, tag="resolve"):
    """Find out what an image is made of, within ``patience`` seconds; answered with Resolved.

    ``platforms`` as "os/architecture[/variant]", none for all. ``headers`` are the credentials for it: they
    are never listed, logged or stored.
    """

    job: int
    image: str
    patience: float
    platforms: tuple[str, ...] = ()
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<ResolveWanted {self.job} {self.image}>"


class PreheatWanted(Message, frozen=True, tag="preheat"):
    """Bring all of these contents, within ``patience`` seconds; each is answered with Preheated.

    ``may_read``: this host may be told to read their origins, with these ``headers`` (or with its
    own credentials, where ``own_login``); the others get them from the swarm.
    """

    job: int
    items: list[PreheatItem]
    patience: float
    may_read: bool = True
    own_login: bool = False
    headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<PreheatWanted {self.job}, {len(self.items)} contents>"


class PreheatOver(Message, frozen=True, tag="preheat_over"):
    """Nothing more is to be done for this preheat; its credentials are forgotten."""

    job: int


Assignment = (
    Welcome
    | Beat
    | TaskDescribed
    | PieceDigests
    | ParentsAssigned
    | SourceGranted
    | SourceRevoked
    | CheckGranted
    | TaskFresh
    | TaskMoved
    | TaskFailed
    | ResolveWanted
    | PreheatWanted
    | PreheatOver
)


# --- availability: parent to child --------------------------------------------------------------


class Availability(Message, frozen=True, tag="availability"):
    """The first frame: the version that is held here, and which pieces."""

    version: str
    held: bytes


class PiecesAdded(Message, frozen=True, tag="added"):
    """Pieces newly held."""

    pieces: list[int]


class AvailabilityEnded(Message, frozen=True, tag="ended"):
    """The last frame: the task is gone or has a new version here."""


AvailabilityEvent = Availability | PiecesAdded | AvailabilityEnded | Beat


# --- codecs -------------------------------------------------------------------------------------

encode = msgspec.msgpack.Encoder().encode
decode_lease = msgspec.msgpack.Decoder(HostLease).decode
decode_lease_granted = msgspec.msgpack.Decoder(LeaseGranted).decode
decode_reports = msgspec.msgpack.Decoder(Reports).decode
decode_reports_taken = msgspec.msgpack.Decoder(ReportsTaken).decode
decode_assignment = msgspec.msgpack.Decoder(Assignment).decode
decode_availability = msgspec.msgpack.Decoder(AvailabilityEvent).decode


def check_version(version: int) -> None:
    """Raises InvalidRequest, in words, when the other side speaks another protocol version."""
    if version != PROTOCOL_VERSION:
        raise InvalidRequest(
            f"the other side speaks dragonet protocol {version}, this side {PROTOCOL_VERSION}: "
            "run the same dragonet release on all hosts"
        )
