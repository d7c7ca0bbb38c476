"""Reading many small files of one HTTP server over a pipelined connection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cdn.config import SourceConfig
from cdn.sources.bulk import BulkAnswers
from shared.errors import DragonetError
from shared.http.client import HttpClient, HttpError, Pipeline, wire_target

_PLAIN_TARGET = re.compile(r"/[!$%&'()*+,/:;=?@~A-Za-z0-9._-]*")
_TRIES = 3
_WORTH = 8
"""Files that a connection must bring on the average, after the first ``_TRIES`` ones, to be worth opening."""


class HttpBulkReader:
    """Files of the server that ``root`` (scheme and authority) names; ``headers`` go with each request."""

    def __init__(
        self, client: HttpClient, root: str, headers: Mapping[str, str], config: SourceConfig
    ) -> None:
        self._client = client
        self._root = root
        self._headers = headers
        self._config = config
        self._pipeline: Pipeline | None = None
        self._opened = 0
        self._brought = 0

    async def read(self, urls: Sequence[str], limit: int, answers: BulkAnswers) -> None:
        """As in :class:`cdn.sources.bulk.BulkReader`."""
        root = self._root + "/"
        if not all(url.startswith(root) for url in urls):
            return
        targets = [self._target(url) for url in urls]
        position = 0
        while position < len(targets):
            try:
                pipeline = await self._connected(limit)
                if pipeline is None:
                    return
                position += await pipeline.get(targets[position:], _Counted(self, answers, position))
            except HttpError:
                continue  # it counts as one that brought nothing
            except DragonetError:
                return  # asking in the ordinary way tells what is wrong

    async def _connected(self, limit: int) -> Pipeline | None:
        if self._pipeline is not None and not self._pipeline.closed:
            return self._pipeline
        if self._opened >= _TRIES and self._brought < _WORTH * self._opened:
            return None
        self._opened += 1
        self._pipeline = await self._client.pipeline(
            self._root + "/", headers=self._headers, limit=limit, read_timeout=self._config.idle_timeout
        )
        return self._pipeline

    def _target(self, url: str) -> bytes:
        target = url[len(self._root) :]
        return target.encode() if _PLAIN_TARGET.fullmatch(target) else wire_target(url)

    def brought(self) -> None:
        """One more file came."""
        self._brought += 1

    async def aclose(self) -> None:
        """Close the connection."""
        if self._pipeline is not None:
            await self._pipeline.aclose()

    def __repr__(self) -> str:
        return f"<HttpBulkReader, {self._brought} files over {self._opened} connections>"


class _Counted:
    """Answers of a pipeline with the numbers of the whole, counted."""

    def __init__(self, reader: HttpBulkReader, answers: BulkAnswers, first: int) -> None:
        self._reader = reader
        self._answers = answers
        self._first = first

    def content(self, number: int, data: memoryview) -> None:
        self._reader.brought()
        self._answers.content(self._first + number, data)

    def large(self, number: int) -> None:
        self._answers.large(self._first + number)

    async def pause(self) -> None:
        await self._answers.pause()
