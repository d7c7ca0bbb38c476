"""One read of one source: asks what the plan says, and moves the bytes into pieces.

An attempt opens one answer and learns from it what the content is. A source with usable ranges is then read
in spans, over several connections where it is long; any other from front to end, from that one answer.
What ends an attempt early (a cut, a change, ranges that cannot be trusted) leads to the next one, which
begins with what the sink holds by then.
"""

from __future__ import annotations

import dataclasses
import secrets

import msgspec
import structlog
import trio

from cdn.config import SourceConfig
from cdn.metrics import OriginMetrics
from cdn.reading.buffers import PieceBuffers
from cdn.reading.plan import (
    Ask,
    ContentChanged,
    Found,
    RangesUnusable,
    Validators,
    Window,
    beyond_end,
    digest_version,
    first_ask,
    round_span,
    understand,
    wanted_pieces,
)
from cdn.reading.spans import BUSY, SpanReader
from cdn.reading.through import read_through
from cdn.sources.interface import (
    AsyncResourceClient,
    RangeNotSatisfiable,
    SourceCut,
    SourceRequest,
    SourceResponse,
)
from shared.errors import SourceError
from shared.offline import is_offline
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob, OriginSink
from shared.task.identity import redact_url
from shared.task.pieces import PieceLayout, piece_length_for

log = structlog.get_logger()


class SourceSession:
    """Reads what a job asks for into its sink. Use once: ``await session.run()``."""

    def __init__(
        self,
        client: AsyncResourceClient,
        job: OriginJob,
        sink: OriginSink,
        config: SourceConfig,
        metrics: OriginMetrics,
    ) -> None:
        self._client = client
        self._job = job
        self.sink = sink
        self.config = config
        self._metrics = metrics
        self.window = Window.of(job.spec.byte_range)
        self.span = round_span(config.span)
        self._headers = {**job.spec.headers, **job.private_headers}
        self._resolved = ""
        self._digest = job.spec.digest
        self._revalidate = (
            None
            if self._digest or client.is_immutable(SourceRequest(job.spec.url, self._headers))
            else config.revalidate_after(job.spec.scheme)
        )
        self.pieces = job.pieces
        self._known = job.meta
        self._opened = False
        self._delivered = 0
        self._given_up = False

    async def run(self) -> None:
        """Until everything asked for is read. Raises SourceError or StoreError."""
        plain = False
        restarts = failures = delivered = 0
        while True:
            try:
                await self.sink.finished(await self._attempt(plain))
                return
            except ContentChanged:
                restarts += 1
                if restarts > self.config.restarts:
                    raise SourceError(
                        f"{self.shown} changed {restarts} times while it was read: try again when it rests"
                    ) from None
                log.warning("source changed during its read", url=self.shown, restarts=restarts)
                self._known = self.pieces = None
                self._resolved = ""
            except RangesUnusable as signal:
                if plain:
                    raise SourceError(f"{self.shown} cannot be read: {signal}") from None
                log.warning("source is read without ranges", url=self.shown, reason=str(signal))
                plain = True
            except SourceError as error:
                if self._delivered > delivered:
                    failures, delivered = 0, self._delivered
                failures = await self.wait_out(error, failures, begun=self._opened)

    @property
    def shown(self) -> str:
        """The URL as people may see it, and the plugin that reads it."""
        url = redact_url(self._job.spec.url)
        return f"{url} (source plugin {self._client.plugin})" if self._client.plugin else url

    async def wait_out(self, error: SourceError, failures: int, *, begun: bool = True) -> int:
        """Wait before the next try after a failure that may pass; raises ``error`` when it will not."""
        if self._given_up or is_offline(error):  # others may have a network, and who granted the read decides
            self._given_up = True
            raise error
        passing = isinstance(error, SourceCut) or error.origin_status in BUSY or error.fault == "reader"
        if not begun or not passing or failures >= self.config.retries:
            self._given_up = True  # whoever gave up has tried often enough for the whole read
            raise error
        delay = self.config.retry_delay * 2**failures
        log.info("source read is resumed", url=self.shown, reason=str(error), delay=delay)
        await trio.sleep(max(delay, min(error.retry_after or 0.0, 10.0)))
        return failures + 1

    # --- one attempt --------------------------------------------------------------------------------

    async def _attempt(self, plain: bool) -> TaskMeta:
        known, wanted = self._known, None
        if known is not None and known.length is not None:
            count = PieceLayout(known.length, known.piece_length).count
            wanted = wanted_pieces(count, self.pieces, self.sink.held())
            if not wanted:
                await self._open_task(known)
                return known
        ask = None if plain else first_ask(self.window, known, wanted, self.span)
        if ask is not None and self._digest:
            ask = dataclasses.replace(ask, if_range="")  # what is known may be from another place
        try:
            answer = await self.ask(ask)
        except RangeNotSatisfiable as error:
            return await self._unsatisfied(error, ask)
        try:
            fresh_version = secrets.token_hex(8)
            found = understand(answer, ask, self.window, known, fresh_version, self._digest)
            found = self._marked(found, answer)
            if known is not None and found.meta.version != known.version:
                self.pieces = None
            await self._open_task(found.meta)
            if found.ranged and ask is not None:
                await SpanReader(self, found, ask).run(answer)
                return found.meta
            return await read_through(self, answer, found)
        finally:
            with trio.CancelScope(shield=True):
                await answer.aclose()

    def _marked(self, found: Found, answer: SourceResponse) -> Found:
        """With what the source vouches for, and how long that is taken as given."""
        whole = self.window.first == 0 and self.window.last is None
        digest = found.meta.digest or (answer.digest.lower() if whole else "")
        meta = msgspec.structs.replace(found.meta, digest=digest, revalidate=self._revalidate)
        return dataclasses.replace(found, meta=meta)

    async def _open_task(self, meta: TaskMeta) -> None:
        await self.sink.opened(meta)
        self._known, self._opened = meta, True

    async def _unsatisfied(self, error: RangeNotSatisfiable, ask: Ask | None) -> TaskMeta:
        if ask is None:
            raise error
        if self.window.first == 0 and self.window.last is None and error.total == 0 and ask.first == 0:
            validators = Validators(error.etag, error.last_modified)
            version = validators.version(0)
            if self._digest:
                version = digest_version(self._digest, 0, self._known)
            meta = TaskMeta(
                version=version,
                piece_length=piece_length_for(0),
                length=0,
                etag=error.etag,
                last_modified=error.last_modified,
                revalidate=self._revalidate,
            )
            await self._open_task(meta)
            return meta
        if ask.first != self.window.first:
            raise ContentChanged
        if error.total is not None and error.total <= self.window.first:
            raise beyond_end(error.total)
        raise RangesUnusable("it refuses (416) a range that it should have")

    async def ask(self, ask: Ask | None) -> SourceResponse:
        """Send a request; counted when its answer delivers content."""
        response = await self._client.download(
            SourceRequest(
                url=self._job.spec.url,
                headers=self._headers,
                range=None if ask is None else (ask.first, ask.last),
                if_range="" if ask is None else ask.if_range,
                resolved_url=self._resolved,
            )
        )
        self._resolved = response.url
        self._metrics.reads.inc()
        return response

    async def receive(self, response: SourceResponse, buffer: memoryview) -> int:
        """Receive from an answer under the download limits; 0 at its end. Raises SourceError."""
        count = await response.receive_into(buffer)
        if count:
            self.sink.received(count)
            await self.sink.throttle(count)
        return count

    async def store(self, number: int, data: memoryview) -> None:
        """Hand a piece over. Raises StoreError."""
        await self.sink.piece(number, data)
        self._delivered += 1

    def buffers(self, meta: TaskMeta, count: int) -> PieceBuffers:
        """Up to ``count`` buffers for pieces of this content, within the memory for one read."""
        size = meta.piece_length if meta.length is None else min(meta.piece_length, max(meta.length, 1))
        return PieceBuffers(max(2, min(count, self.config.buffer_memory // size)), size)

    def __repr__(self) -> str:
        return f"<SourceSession {self.shown}, {self._delivered} pieces>"
