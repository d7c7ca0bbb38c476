"""Sources that learn what there is from the heads of downloads."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from cdn.sources.interface import (
    UNKNOWN_SOURCE_FILE_LENGTH,
    AsyncResourceClient,
    RangeNotSatisfiable,
    SourceRequest,
)


class ProbingClient(AsyncResourceClient):
    """A client that begins a download to answer a question, and does not read its body."""

    async def get_content_length(self, request: SourceRequest) -> int:
        """The length told for the whole source (or for the range, when one is asked for)."""
        async with await self.download(request) as response:
            return response.content_length if response.content_length >= 0 else UNKNOWN_SOURCE_FILE_LENGTH

    async def is_support_range(self, request: SourceRequest) -> bool:
        """True only when a range is answered with 206."""
        wanted = request.range or (0, 0)
        try:
            async with await self.download(SourceRequest(request.url, request.headers, wanted)) as response:
                return response.status == 206
        except RangeNotSatisfiable:
            return True

    async def get_last_modified(self, request: SourceRequest) -> int:
        """From the Last-Modified field."""
        async with await self.download(request) as response:
            try:
                moment = parsedate_to_datetime(response.last_modified)
            except ValueError:
                return -1
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
