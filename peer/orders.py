"""What the local API says: orders, events and views. JSON, one object per line where it streams.

``POST /v1/downloads`` takes a DownloadOrder; with it may come one file descriptor (SCM_RIGHTS), which
the daemon writes the content to: it never opens a path that a caller names. The answer is a stream of
DownloadEvent lines; the last one is DownloadDone or DownloadFailed.

``POST /v1/trees`` takes a DownloadOrder with a ``tree``, and one end of a socket, to which the daemon writes
the folder's stream (``cdn.tree.frames``) while it comes: a 4-byte big-endian length, and so many bytes of the
stream; a length of 0 means that the stream has changed, and begins anew. The answer is as for downloads.
"""

from __future__ import annotations

import msgspec


class DownloadOrder(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to download. ``headers`` go to the origin; ``range`` is "first-last" in bytes, inclusive;
    ``limit`` is bytes per second (0: none), ``timeout`` seconds (None: none). ``tree`` tells what is wanted of the
    folder at ``url`` (``cdn.tree.order``), "" for a file."""

    url: str
    headers: dict[str, str] = {}
    digest: str = ""
    range: str = ""
    tag: str = ""
    application: str = ""
    filtered: tuple[str, ...] = ()
    no_origin: bool = False
    timeout: float | None = None
    limit: float = 0
    hash_content: bool = False
    tree: str = ""


class DownloadProgress(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """How far it is: ``length`` None while unknown, ``bytes`` by source (store, peer, seeder, origin)."""

    length: int | None
    done: int
    bytes: dict[str, int]
    parents: int


class DownloadDone(msgspec.Struct, frozen=True, tag_field="event", tag="done"):
    """The content is complete, verified, and written."""

    task_id: str
    length: int
    sha256: str
    seconds: float
    bytes: dict[str, int]


class DownloadFailed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """It failed: one sentence; ``status`` as an HTTP API would answer, ``origin_status`` the origin's own."""

    message: str
    status: int
    origin_status: int | None = None


DownloadEvent = DownloadProgress | DownloadDone | DownloadFailed


class TaskView(msgspec.Struct, frozen=True):
    """A task as people see it: the URL without secrets, lengths in bytes, times as Unix seconds.

    ``state`` is "complete" (and what its source vouches for), "partial" or "downloading"; ``length`` None
    while unknown. ``superseded``: the
    source has other content now.
    """

    task_id: str
    url: str
    state: str
    length: int | None
    held: int
    pieces: int
    pieces_held: int
    piece_length: int
    pinned: bool
    durable: bool
    created: float
    accessed: float
    tag: str = ""
    application: str = ""
    range: str = ""
    sha256: str = ""
    etag: str = ""
    last_modified: str = ""
    superseded: bool = False


class TaskQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request that a task belongs to, where its id is not known."""

    url: str
    headers: dict[str, str] = {}
    range: str = ""
    tag: str = ""
    application: str = ""
    filtered: tuple[str, ...] = ()
