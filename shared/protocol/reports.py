"""Reports: host to scheduler."""

from __future__ import annotations

from shared.protocol.values import Failure, Message, PreheatItem, TaskMeta, sent_version
from shared.task.identity import TaskSpec


class PeerRegistered(Message, frozen=True, tag="registered"):
    """The host wants this content. ``may_read``: it could go back to source itself; ``cluster_only``:
    the origin is not to be read on its account. ``begun``: it goes on with a download that was admitted
    before, so it is not to be moved to a newer generation. ``taken_over``: another scheduler was told before, so
    others may have told that one, too, and be reading.

    ``spec.url`` names a place where the content can be read. Of content that is known by its digest a host
    may name several, each with a report of its own, until it is refused, leaves or has finished.
    """

    task: str
    spec: TaskSpec
    may_read: bool = True
    cluster_only: bool = False
    begun: bool = False
    taken_over: bool = False


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
    known, so that none of it is what it should be. ``offline``: the host has no network now, so that another one
    may do better at once, and this one in a moment."""

    task: str
    grant: str
    failure: Failure
    wrong: bool = False
    offline: bool = False


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
    version: int = sent_version()


class ReportsTaken(Message, frozen=True, tag="reports_taken"):
    """``known`` False: the scheduler has no lease for this instance; renew it and report all again."""

    known: bool
    version: int = sent_version()
