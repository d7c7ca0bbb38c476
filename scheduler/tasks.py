"""A task and its peers, as the scheduler knows them. Pure state machines; what follows from them is decided
in ``sourcing`` and ``parenting``.

A peer (a host's part in the task) is in one of three states::

    registered -> WAITING --finished, left--> HOLDING (kept while it holds pieces)
                     |                            ^
                     +--refused, not yet told--> REFUSED --told--+

All knowledge of pieces belongs to one version (``TaskMeta.version``); :meth:`Task.describe` with another
one forgets every holding and every digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import msgspec

from scheduler.blocks import MAX_BLOCKS, Accusations, Block
from scheduler.digests import DigestTable
from scheduler.freshness import Freshness
from scheduler.grants import Grant
from scheduler.places import Place, Places
from scheduler.zones import Crew
from shared.protocol import MAX_PLACES, Failure, Parent, TaskMeta
from shared.task.bitmap import MAX_PIECES, Bitmap
from shared.task.identity import TaskSpec
from shared.task.pieces import PieceLayout

Description = Literal["first", "same", "changed", "new version"]


class PeerState(Enum):
    """Where a peer is in its life."""

    WAITING = "waiting"
    REFUSED = "refused"
    HOLDING = "holding"


@dataclass(slots=True, eq=False)
class Peer:
    """A host's part in one task. ``parents`` is the list it was sent last, None before the first; ``places`` are
    those that it named since it waits, and whether it may read there itself."""

    host: str
    order: int
    state: PeerState = PeerState.HOLDING
    held: Bitmap = field(default_factory=Bitmap)
    places: dict[str, bool] = field(default_factory=dict)
    cluster_only: bool = False
    parents: tuple[Parent, ...] | None = None
    assign_after: float = 0.0
    blocks: dict[str, Block] = field(default_factory=dict)
    failure: Failure | None = None

    def avoids(self, host: str, now: float) -> bool:
        """Whether this child has a complaint about the host that still counts."""
        block = self.blocks.get(host)
        return block is not None and block.avoids(now)

    def shuns(self, host: str, now: float) -> bool:
        """Whether the host is no parent at all for this child."""
        block = self.blocks.get(host)
        return block is not None and block.shuns(now)

    def block(self, host: str, block: Block, now: float) -> None:
        """Remember complaints; the oldest make room when there are too many."""
        self.blocks.pop(host, None)
        if len(self.blocks) >= MAX_BLOCKS:
            self.blocks = {h: b for h, b in self.blocks.items() if b.avoids(now)}
            while len(self.blocks) >= MAX_BLOCKS:
                del self.blocks[next(iter(self.blocks))]
        self.blocks[host] = block


class Task:
    """One task. ``logical`` is what all generations of its content have in common, ``members`` are the hosts
    that ever had a part; what is below them are notes of ``revalidation``, ``sourcing`` and ``parenting``."""

    def __init__(self, task_id: str, spec: TaskSpec, *, corrupt_ban: float) -> None:
        self.id = task_id
        self.spec = spec
        self.logical = spec.logical_id if spec.generation else task_id
        self.meta: TaskMeta | None = None
        self.digests = DigestTable()
        self.peers: dict[str, Peer] = {}
        self.waiting: dict[str, Peer] = {}
        self.holders: dict[str, Peer] = {}
        self.grants: dict[str, Grant] = {}
        self.members: set[str] = set()
        self.accusations = Accusations(corrupt_ban)
        self.freshness = Freshness()
        # sourcing
        self.places = Places(spec)
        self.read_at: set[str] = set()
        """Places that gave pieces of the current version."""
        self.settles_at: float | None = None
        """Until when hosts may tell what they have of it, which was going on before this scheduler knew it."""
        self.unmet_since: float | None = None
        self.unwanted_since: float | None = None
        self.review = True
        self.review_at: float | None = None
        # parenting
        self.dirty: set[str] = set()
        self.later: dict[str, float] = {}
        self.crews: dict[str, Crew] = {}
        """Those who wait, by zone."""
        self.crews_changed = True
        self.idle_since: float | None = None
        self._order = 0
        self._holder_list: list[Peer] | None = None
        self._holders_by_zone: dict[str, list[Peer]] | None = None

    # --- what is known -----------------------------------------------------------------------------

    @property
    def count(self) -> int | None:
        """Number of pieces; None while the length is unknown."""
        if self.meta is None or self.meta.length is None:
            return None
        return PieceLayout(self.meta.length, self.meta.piece_length).count

    @property
    def version(self) -> str | None:
        """The current version; None before the origin answered."""
        return self.meta.version if self.meta is not None else None

    def complete(self, peer: Peer) -> bool:
        """Whether the peer holds everything (never, while the length is unknown)."""
        count = self.count
        return count is not None and peer.held.covers(count)

    @property
    def failure(self) -> Failure | None:
        """What is remembered of the place that failed last."""
        failed = self.places.failed
        return failed.failure if failed is not None else None

    def open_places(self) -> list[Place]:
        """Where the origin may be read for those who wait: places that they named and that have not failed."""
        if not self.places.several:
            return [place for place in self.places if place.failure is None]
        waiting = (peer for peer in self.waiting.values() if not peer.cluster_only)
        return self.places.open(url for peer in waiting for url in peer.places)

    def reading(self, host: str) -> bool:
        """Whether the host reads the origin now and has been answered."""
        return any(grant.host == host and grant.opened for grant in self.grants.values())

    def holder_list(self) -> list[Peer]:
        """Those who hold pieces or read the origin, in no particular order. Do not change it."""
        if self._holder_list is None:
            self._holder_list = list(self.holders.values())
        return self._holder_list

    def holders_by_zone(self, zone_of: Callable[[str], str]) -> dict[str, list[Peer]]:
        """As :meth:`holder_list`, by the zones of the hosts. Do not change it."""
        if self._holders_by_zone is None:
            self._holders_by_zone = {}
            for peer in self.holder_list():
                self._holders_by_zone.setdefault(zone_of(peer.host), []).append(peer)
        return self._holders_by_zone

    def zones_changed(self) -> None:
        """A host stands in another zone now, or hears us again or no longer."""
        self.crews_changed, self._holders_by_zone = True, None

    def numbers(self, pieces: Iterable[int]) -> list[int]:
        """Those of ``pieces`` that can exist."""
        limit = self.count if self.count is not None else MAX_PIECES
        return [number for number in pieces if 0 <= number < limit]

    # --- transitions -------------------------------------------------------------------------------

    def peer(self, host: str) -> Peer:
        """The host's part in the task; begins as HOLDING nothing."""
        peer = self.peers.get(host)
        if peer is None:
            self._order += 1
            peer = self.peers[host] = Peer(host, self._order)
        return peer

    def register(self, host: str, spec: TaskSpec, *, may_read: bool, cluster_only: bool) -> Peer:
        """The host wants the content (again), and names a place for it."""
        peer = self.peer(host)
        if peer.state is not PeerState.WAITING:
            peer.places.clear()
        peer.state, peer.failure = PeerState.WAITING, None
        peer.cluster_only = cluster_only
        self.waiting[host] = peer
        self.crews_changed = True
        url = self.places.name(spec, self._places_needed)
        if url and (url in peer.places or len(peer.places) < MAX_PLACES):
            peer.places[url] = may_read
        return peer

    def _places_needed(self) -> set[str]:
        named = {url for peer in self.waiting.values() for url in peer.places}
        return named | {grant.place for grant in self.grants.values()}

    def stop_waiting(self, peer: Peer, failure: Failure | None = None) -> None:
        """The peer finished, left or was refused; with ``failure``: it is still to be told of that."""
        self.waiting.pop(peer.host, None)
        self.crews_changed = True
        self.dirty.discard(peer.host)
        self.later.pop(peer.host, None)
        peer.state = PeerState.REFUSED if failure is not None else PeerState.HOLDING
        peer.failure = failure
        self._tidy(peer)

    def hold(self, peer: Peer, held: Bitmap) -> bool:
        """The peer holds exactly these pieces; True when it held none before and has become of use."""
        before = peer.host in self.holders
        peer.held = held
        self._tidy(peer)
        return not before and peer.host in self.holders

    def note_reading(self, host: str) -> bool:
        """A grant of the host was opened or has ended; True when the host has become of use as a parent."""
        peer = self.peer(host)
        before = host in self.holders
        self.crews_changed = True
        self._tidy(peer)
        return not before and host in self.holders

    def remove_peer(self, host: str) -> Peer | None:
        """The host's part is over, whatever it held."""
        peer = self.peers.pop(host, None)
        self.waiting.pop(host, None)
        self.crews_changed = True
        self.dirty.discard(host)
        self.later.pop(host, None)
        if self.holders.pop(host, None) is not None:
            self._holder_list = self._holders_by_zone = None
        return peer

    def describe(self, meta: TaskMeta) -> Description:
        """Take over metadata. A new version forgets all holdings and digests (grants are not touched)."""
        before = self.meta
        if before is not None and before.version == meta.version:  # who has not heard does not take back
            sha256, digest = meta.sha256 or before.sha256, meta.digest or before.digest
            meta = msgspec.structs.replace(meta, sha256=sha256, digest=digest)
        self.meta = meta
        if before is None:
            return "first"
        if before.version == meta.version:
            return "same" if before == meta else "changed"
        self.digests = DigestTable()
        self.read_at.clear()
        self.freshness.unknown()
        for peer in list(self.holders.values()):
            self.hold(peer, Bitmap())
        return "new version"

    def _tidy(self, peer: Peer) -> None:
        """Keep ``holders`` true, and drop a peer that neither wants nor holds anything."""
        useful = bool(peer.held) or self.reading(peer.host)
        if useful != (peer.host in self.holders):
            self._holder_list = self._holders_by_zone = None
            if useful:
                self.holders[peer.host] = peer
            else:
                del self.holders[peer.host]
        if useful or peer.state is not PeerState.HOLDING:
            return
        if not any(grant.host == peer.host for grant in self.grants.values()):
            self.peers.pop(peer.host, None)

    def __repr__(self) -> str:
        return (
            f"<Task {self.id[:12]} {len(self.waiting)} waiting, {len(self.holders)} holding, "
            f"{len(self.grants)} reading>"
        )
