"""What of a task can be had from no host, so that somebody must go back to source. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from scheduler.tasks import Peer, Task
from shared.task.bitmap import Bitmap


@dataclass(frozen=True, slots=True)
class Need:
    """Pieces that ``children`` lack and nobody they can fetch from holds.

    ``pieces`` None: everything, the length being unknown. ``unreachable``: hosts that none of the
    children can fetch from, so that their reading would not help.
    """

    pieces: Bitmap | None
    children: list[Peer]
    unreachable: frozenset[str]


def need_of(task: Task, waiting: Iterable[Peer], serves: Callable[[str], bool], now: float) -> Need | None:
    """The need of the ``waiting`` children; None when all can be had from hosts that ``serves`` approves.

    A piece counts as held only when its digest is known: without it no child could verify it.
    """
    children = list(waiting)
    if not children:
        return None
    shunned = {child.host: _shunned(child, now) for child in children if child.blocks}
    count = task.count
    if count is None:
        return Need(None, children, _common(children, shunned))
    full = Bitmap.full(count)
    missing = full - (_union(_offers(task, serves), count) & task.digests.known)
    pieces, lacking = Bitmap(), []
    for child in children:
        absent = shunned.get(child.host)
        lacks = missing
        if absent:
            reach = _union(_offers(task, serves, absent), count)
            lacks = full - (reach & task.digests.known)
        lacks = lacks - child.held if lacks else lacks
        if lacks:
            pieces = pieces | lacks
            lacking.append(child)
    return Need(pieces, lacking, _common(lacking, shunned)) if lacking else None


def _offers(
    task: Task, serves: Callable[[str], bool], absent: frozenset[str] = frozenset()
) -> Iterator[Peer]:
    for peer in task.holder_list():
        if peer.held and peer.host not in absent and serves(peer.host):
            yield peer


def _union(peers: Iterable[Peer], count: int) -> Bitmap:
    union = Bitmap()
    for peer in peers:
        union = union | peer.held
        if union.covers(count):
            break
    return union


def _shunned(child: Peer, now: float) -> frozenset[str]:
    return frozenset(host for host, block in child.blocks.items() if block.shuns(now))


def _common(children: list[Peer], shunned: dict[str, frozenset[str]]) -> frozenset[str]:
    sets = [shunned.get(child.host, frozenset()) for child in children]
    return frozenset.intersection(*sets) if sets else frozenset()
