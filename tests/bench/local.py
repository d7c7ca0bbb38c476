"""Downloads through a peer's local API, from this process: what a program that links the client pays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import trio

from peer.client import LocalClient
from peer.orders import DownloadOrder, TaskQuery


def download(socket: Path, url: str) -> float:
    """Fetch ``url`` into the peer's store, with no output file; seconds."""
    return download_each(socket, [url], 1)[0]


def download_each(socket: Path, urls: Sequence[str], at_once: int) -> list[float]:
    """Fetch all, so many at a time; the seconds that each took, in the order of ``urls``."""
    return trio.run(_download_each, socket, urls, at_once)


async def _download_each(socket: Path, urls: Sequence[str], at_once: int) -> list[float]:
    client = LocalClient(socket)
    seconds = [0.0] * len(urls)
    slots = trio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            began = time.perf_counter()
            await client.download(DownloadOrder(urls[number]), None, lambda progress: None)
            seconds[number] = time.perf_counter() - began

    async with trio.open_nursery() as nursery:
        for number in range(len(urls)):
            nursery.start_soon(one, number)
    return seconds


def remove(socket: Path, task_ids: Sequence[str] | None = None) -> None:
    """Remove tasks (None: all) from the peer, so that they can be fetched again."""
    trio.run(_remove, socket, task_ids)


async def _remove(socket: Path, task_ids: Sequence[str] | None) -> None:
    client = LocalClient(socket)
    if task_ids is None:
        task_ids = [view.task_id for view in await client.tasks()]
    for task_id in task_ids:
        await client.remove(TaskQuery(task_id))
