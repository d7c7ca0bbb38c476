"""A nursery whose error comes out as itself.

trio raises what happens in a nursery as an exception group, because several tasks may fail at once.
Where one error ends the common work, callers want that error: they catch StoreError, not a group.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """As ``trio.open_nursery``, but a group that comes down to one error is raised as that error.

    Cancellations beside it belong to the ending of the others and are dropped; several real errors
    stay a group.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        error = _single(group)
        if error is None:
            raise
        raise error from error.__cause__


async def run_several(work: Callable[[], Awaitable[None]], count: int) -> None:
    """Run ``work`` ``count`` times at once. The first error ends the others, and is raised as itself."""
    errors: list[Exception] = []

    async def run() -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(run)
    if errors:
        raise errors[0]


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    leaves = list(_leaves(group))
    errors = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    if not errors:
        return leaves[0]
    return errors[0] if len(errors) == 1 else None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
