"""What a check is given, and the small words that all checks are written in."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from cdn.sources.interface import AsyncResourceClient, ResourceClient, SourceRequest, SourceResponse
from shared.errors import SourceError

PATIENCE = 60.0
"""Seconds that one check may take: a client that blocks for ever fails instead of hanging the tests."""

_CALL = 20.0
"""Seconds that one call of a client may take, and the wait for its next bytes."""


@dataclass
class Example:
    """A client, and something that it can read.

    ``content`` is what ``url`` holds: a few hundred KiB of it find more than a few bytes do. ``missing`` is
    a URL of the same source where nothing is. ``headers`` go with every request. ``folder`` is a URL that
    can be listed, ``children`` tells for the last path part of each thing in it whether it is a folder.
    ``change`` makes ``url`` hold other content. What is left out skips its checks; without ``folder`` the
    client must say in words that it cannot list.
    """

    client: ResourceClient
    url: str
    content: bytes
    missing: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    children: Mapping[str, bool] = field(default_factory=dict)
    change: Callable[[], Awaitable[None] | None] | None = None

    def adapted(self) -> AsyncResourceClient:
        """The client as the engine works with it."""
        return self.client if isinstance(self.client, AsyncResourceClient) else as_plugin(self.client)

    def request(
        self,
        *,
        range: tuple[int, int | None] | None = None,  # noqa: A002 - the word of the field
        if_range: str = "",
        url: str = "",
    ) -> SourceRequest:
        """A request for the content, or for another URL of the source."""
        return SourceRequest(url or self.url, dict(self.headers), range, if_range)

    async def changed(self) -> None:
        """Have the source change."""
        if self.change is not None and (waiting := self.change()) is not None:
            await waiting


def as_plugin(client: ResourceClient) -> AsyncResourceClient:
    """The client as the engine works with it where it is a plugin's, whatever it is made of."""
    from cdn.sources.plugins.adapter import adapt

    return adapt(client, name=type(client).__name__, timeout=_CALL, memory=0)


Check = Callable[[Example], Awaitable[None]]


def check(function: Callable[[Example, AsyncResourceClient], Awaitable[None]]) -> Check:
    """A check from a function that is given the adapted client too; it fails when it does not end."""

    @functools.wraps(function)
    async def run(example: Example) -> None:
        with trio.move_on_after(PATIENCE):
            await function(example, example.adapted())
            return
        raise AssertionError(
            f"{function.__name__} did not end within {PATIENCE:.0f} seconds: "
            "the client waits for something without a deadline"
        )

    return run


def expect(condition: bool, words: str) -> None:
    """Raises AssertionError with ``words`` unless the condition holds (also under ``python -O``)."""
    if not condition:
        raise AssertionError(words)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """A block in which no error of the client is expected; ``what`` begins the sentence that tells one."""
    try:
        yield
    except AssertionError:
        raise
    except SourceError as error:
        raise AssertionError(f"{what} failed: {error}") from error
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__} ({error}): the errors of a source are SourceError"
        ) from error


async def read(response: SourceResponse, limit: int, sizes: Iterable[int] = ()) -> bytes:
    """The rest of an answer, received into buffers of these sizes, then of 64 KiB; closes it.

    Raises AssertionError when more than ``limit`` bytes come.
    """
    content, rest = bytearray(), iter(sizes)
    async with response:
        while True:
            size = next(rest, 64 * 1024)
            buffer = memoryview(bytearray(size))
            count = await response.receive_into(buffer)
            expect(
                isinstance(count, int) and 0 <= count <= size,
                f"receive_into gave {count!r} for a buffer of {size} bytes: it gives the number of bytes",
            )
            if not count:
                return bytes(content)
            content += buffer[:count]
            expect(
                len(content) <= limit,
                f"the answer goes on after the {limit} bytes that it should have had: is the source's "
                "content what the example says, and does the body end?",
            )


async def read_all(client: AsyncResourceClient, request: SourceRequest, limit: int) -> bytes:
    """Download and read; raises AssertionError when that fails."""
    with doing("download"):
        response = await client.download(request)
    with doing("reading the answer"):
        return await read(response, limit)


def same(found: bytes, expected: bytes, what: str) -> None:
    """Raises AssertionError, telling where they differ, unless the bytes are equal."""
    if found == expected:
        return
    at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
    where = "one is the beginning of the other" if at is None else f"they differ from byte {at} on"
    raise AssertionError(
        f"{what} is not what it should be: {len(found)} bytes came, {len(expected)} were expected, {where}"
    )


def last_part(url: str) -> str:
    """The last part of a URL's path, decoded, without a "/" at its end."""
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
