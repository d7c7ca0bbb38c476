"""Checks of what is missing, and of reads that end early."""

from __future__ import annotations

from collections.abc import Awaitable

import trio

from cdn.sources.interface import AsyncResourceClient
from cdn.sources.testing.example import Example, check, doing, expect, read_all, same
from shared.errors import SourceError

_NOT_WORDS = ("Traceback (most recent call last)", 'File "', "\n")


@check
async def missing_is_said_in_words(example: Example, client: AsyncResourceClient) -> None:
    """Where nothing is, SourceError with origin_status 404 and one sentence for a person."""
    if not example.missing:
        return
    request = example.request(url=example.missing)
    await _missing("download", client.download(request))
    await _missing("get_content_length", client.get_content_length(request))


async def _missing(what: str, call: Awaitable[object]) -> None:
    try:
        answer = await call
    except SourceError as error:
        words = str(error)
        expect(
            error.origin_status == 404,
            f"{what} of what is missing raised SourceError with origin_status {error.origin_status} "
            f"({words}): what is not there is 404",
        )
        expect(
            bool(words.strip()) and not any(sign in words for sign in _NOT_WORDS),
            f"{what} of what is missing raised SourceError({words!r}): say in one line what is not there",
        )
    except Exception as error:
        raise AssertionError(
            f"{what} of what is missing raised {type(error).__name__} ({error}): "
            "raise SourceError(words, origin_status=404)"
        ) from error
    else:
        raise AssertionError(
            f"{what} of what is missing gave {answer!r}: raise SourceError(words, origin_status=404), and "
            "before the answer, not from its body"
        )


@check
async def an_answer_can_be_closed_early(example: Example, client: AsyncResourceClient) -> None:
    """Answers are closed unread, half read and twice, and the client goes on working."""
    for received in (0, 1, 2):
        with doing("download"):
            response = await client.download(example.request())
        with doing("reading the answer"):
            for _ in range(received):
                await response.receive_into(memoryview(bytearray(10)))
        with doing("closing an answer early"):
            await response.aclose()
        with doing("closing an answer twice"):
            await response.aclose()
    content = await read_all(client, example.request(), len(example.content))
    same(content, example.content, "the content after answers were closed early")


@check
async def cancelled_reads_leave_the_client_usable(example: Example, client: AsyncResourceClient) -> None:
    """Cancellation before, in and after the begin of an answer leaves a client that works."""
    for received in (None, 0, 1, 3):
        await _cancelled(example, client, received)
    content = await read_all(client, example.request(), len(example.content))
    same(content, example.content, "the content after reads were cancelled")


async def _cancelled(example: Example, client: AsyncResourceClient, received: int | None) -> None:
    """Cancel before the download, or after having received so often."""
    with trio.CancelScope() as scope:
        if received is None:
            scope.cancel()
        with doing("download"):
            response = await client.download(example.request())
        async with response:
            with doing("reading the answer"):
                for _ in range(received or 0):
                    await response.receive_into(memoryview(bytearray(10)))
                scope.cancel()
                await response.receive_into(memoryview(bytearray(10)))
