"""Reading many small files of one source, where asking for each on its own would cost more than its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cdn.sources.interface import SourceRequest


class BulkAnswers(Protocol):
    """Gets what a bulk reader finds, in the order of the requests; ``number`` counts from 0.

    Numbers of which nothing is told are to be asked for one by one.
    """

    def content(self, number: int, data: memoryview) -> None:
        """The whole content. ``data`` is used again after the call."""

    def large(self, number: int) -> None:
        """The content is longer than was asked for."""

    async def pause(self) -> None:
        """Called now and then, holding nothing: waits until more can be taken."""


class BulkReader(Protocol):
    """Reads on behalf of one caller at a time; close it."""

    async def read(self, requests: Sequence[SourceRequest], limit: int, answers: BulkAnswers) -> None:
        """Read contents of at most ``limit`` bytes. Whatever is out of the ordinary (an error, an answer in
        another form) is left out, so that asking in the ordinary way tells what is wrong.

        Raises SourceError when nothing can be asked at all now."""

    async def aclose(self) -> None:
        """Let go of connections."""


class ReadsInBulk(Protocol):
    """A resource client that has bulk readers."""

    def bulk_reader(self, folder: SourceRequest) -> BulkReader | None:
        """A reader for files below a folder; None where this source, as it is set up, has no quicker way."""
