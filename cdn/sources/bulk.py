"""Reading many small files of one source, where asking for each on its own would cost more than its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BulkAnswers(Protocol):
    """Gets what a bulk reader finds, in the order of the URLs; ``number`` counts from 0.

    Numbers of which nothing is told are to be asked for one by one.
    """

    def content(self, number: int, data: memoryview) -> None:
        """The whole content. ``data`` is used again after the call."""

    def large(self, number: int) -> None:
        """The content is longer than was asked for."""

    async def pause(self) -> None:
        """Called now and then, holding nothing: waits until more can be taken."""


class BulkReader(Protocol):
    """Reads files below a folder, for one caller at a time (``AsyncResourceClient.bulk_reader``). Close it."""

    async def read(self, urls: Sequence[str], limit: int, answers: BulkAnswers) -> None:
        """Read contents of at most ``limit`` bytes. Whatever is out of the ordinary (an error, an answer in
        another form) is left out, so that asking in the ordinary way tells what is wrong."""

    async def aclose(self) -> None:
        """Let go of connections."""
