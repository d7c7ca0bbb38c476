"""Assignments: scheduler to host."""

from __future__ import annotations

from shared.protocol.values import Failure, Message, Parent, PreheatItem, TaskMeta, sent_version
from shared.task.identity import TaskSpec


class Welcome(Message, frozen=True, tag="welcome"):
    """The first frame of an assignment stream."""

    scheduler: str
    version: int = sent_version()


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
