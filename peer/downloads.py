"""From a caller's order to a fetch, for the local API and for the one-shot peer alike."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from cdn.tree.order import TreeOrder, folder_url
from peer.orders import (
    DownloadDone,
    DownloadEvent,
    DownloadFailed,
    DownloadOrder,
    DownloadProgress,
    TaskQuery,
    TaskView,
)
from shared.errors import DragonetError, InvalidRequest, SourceError, TaskNotFound
from shared.store import StoredTask
from shared.swarm.fetch import FetchOrder, FetchProgress, fetch
from shared.swarm.host import Host
from shared.swarm.pouring import Taker
from shared.task.digest import parse_content_digest
from shared.task.identity import TaskSpec, make_spec, redact_url
from shared.task.pieces import PieceLayout

_TASK_ID = re.compile(r"[0-9a-fA-F]{64}")


def fetch_order(order: DownloadOrder, output: int | None, taker: Taker | None = None) -> FetchOrder:
    """The order, checked. Raises InvalidRequest."""
    if order.tree:
        TreeOrder.parse(order.tree)
        if order.range or order.digest:
            raise InvalidRequest("a folder has no range and no digest: ask for a file of it")
    spec, private = make_spec(
        folder_url(order.url) if order.tree else order.url,
        headers=order.headers,
        tag=order.tag,
        application=order.application,
        byte_range=order.range,
        filtered=order.filtered,
        tree=order.tree,
    )
    if order.timeout is not None and order.timeout <= 0:
        raise InvalidRequest("the timeout must be more than 0 seconds")
    if order.limit < 0:
        raise InvalidRequest("the rate limit must not be negative")
    return FetchOrder(
        spec=spec,
        private_headers=private,
        digest=parse_content_digest(order.digest) if order.digest else None,
        output=output,
        cluster_only=order.no_origin,
        limit=order.limit,
        timeout=order.timeout,
        hash_content=order.hash_content,
        taker=taker,
    )


async def download(
    host: Host,
    order: DownloadOrder,
    output: int | None,
    on_event: Callable[[DownloadProgress], None],
    taker: Taker | None = None,
) -> DownloadDone:
    """Carry an order out. ``taker`` gets the content as it comes. Raises DragonetError."""

    def progress(p: FetchProgress) -> None:
        on_event(DownloadProgress(p.length, p.done, p.bytes, p.parents))

    done = await fetch(host, fetch_order(order, output, taker), progress)
    return DownloadDone(done.task_id, done.length, done.sha256, done.seconds, done.bytes)


def failed(error: DragonetError) -> DownloadEvent:
    """The error as the stream's last event."""
    origin_status = error.origin_status if isinstance(error, SourceError) else None
    return DownloadFailed(str(error), error.status, origin_status)


def find(host: Host, query: TaskQuery) -> TaskView:
    """What is held of the newest generation of a content, or of a task id given as the URL.

    Raises InvalidRequest, TaskNotFound.
    """
    if not _TASK_ID.fullmatch(query.url):
        newest = host.store.get(host.generations.newest(_spec_of(query)).task_id)
        if newest is not None:
            return view(host, newest)
    return view(host, _found(host, query)[0])


async def remove(host: Host, query: TaskQuery) -> list[TaskView]:
    """Remove all generations of a content, or the task whose id is given as the URL; gives what was held.

    Raises InvalidRequest, TaskNotFound.
    """
    removed = []
    for task in _found(host, query):
        removed.append(view(host, task))
        with contextlib.suppress(TaskNotFound):  # it was evicted meanwhile
            await host.remove(task.task_id)
    return removed


def _found(host: Host, query: TaskQuery) -> list[StoredTask]:
    """The stored tasks that a request belongs to, the newest generation first; at least one."""
    if _TASK_ID.fullmatch(query.url):
        task = host.store.get(query.url.lower())
        tasks = [] if task is None else [task]
    else:
        tasks = host.generations.stored(_spec_of(query))
    if not tasks:
        raise _nothing()
    return tasks


def _spec_of(query: TaskQuery) -> TaskSpec:
    spec, _ = make_spec(
        query.url,
        headers=query.headers,
        tag=query.tag,
        application=query.application,
        byte_range=query.range,
        filtered=query.filtered,
    )
    return spec


def view(host: Host, task: StoredTask) -> TaskView:
    """A stored task as people see it."""
    meta = task.meta
    layout = None if meta.length is None else PieceLayout(meta.length, meta.piece_length)
    whole = task.complete and task.vouched
    state = "complete" if whole else "downloading" if task.task_id in host.sessions else "partial"
    return TaskView(
        task_id=task.task_id,
        url=redact_url(task.spec.url),
        state=state,
        length=meta.length,
        held=task.size,
        pieces=0 if layout is None else layout.count,
        pieces_held=len(task.held),
        piece_length=meta.piece_length,
        pinned=task.pinned,
        durable=task.durable,
        created=task.created,
        accessed=task.accessed,
        tag=task.spec.tag,
        application=task.spec.application,
        range=task.spec.range,
        sha256=meta.sha256,
        etag=meta.etag,
        last_modified=meta.last_modified,
        superseded=task.superseded,
    )


def view_of(host: Host, task_id: str) -> TaskView:
    """Raises TaskNotFound."""
    task = host.store.get(task_id)
    if task is None:
        raise _nothing()
    return view(host, task)


def _nothing() -> TaskNotFound:
    return TaskNotFound("this machine holds nothing of that content: `dragonet ls` shows what it holds")
