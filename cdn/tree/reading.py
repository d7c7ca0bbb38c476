"""The files of a tree, read in batches by several lanes, and given out as one stream in the listing's order.

A batch is a run of files. Its lane reads the small ones over a bulk reader where the source has one; what that
leaves out is downloaded file by file. The frames of later batches wait for those before them, within a bound.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import trio

from cdn.config import SourceConfig
from cdn.sources.bulk import BulkReader
from cdn.sources.interface import AsyncResourceClient, SourceCut, SourceRequest, read_whole
from cdn.tree.frames import SMALL_FILE, Begun, Ended, File, Refused, head_frame
from cdn.tree.walk import FoundFile, Listing
from shared.errors import SourceError
from shared.nursery import run_several
from shared.swarm.pulse import Pulse

LANES = 4
LANE_DELAY = 0.1
"""Seconds before one more lane begins: a source that is quick over one connection needs no other."""
BATCH_FILES = 256
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes that a batch is expected to have at most, or one file."""
HELD_BYTES = 16 * 1024 * 1024
"""Bytes of frames that are ready, beyond which only the batch that is given out now may go on."""
SINGLY_AT_ONCE = 8
"""Files that a lane downloads one by one at a time."""
MAX_FAILING = 64
"""Files that an origin may fail to give, for reasons of its own, before the whole read is given up."""

_BUSY = frozenset({429, 500, 502, 503, 504})


class TreeStream:
    """The stream of a listing: frames as in ``frames``. Run :meth:`run` in a nursery while it is received.

    ``root`` is the folder's request, whose headers go with every other. Use once.
    """

    def __init__(
        self,
        client: AsyncResourceClient,
        root: SourceRequest,
        listing: Listing,
        config: SourceConfig,
        *,
        contents: bool,
    ) -> None:
        self._client = client
        self._root = root
        self._base = root.url.partition("?")[0]
        self._listing = listing
        self._config = config
        self._batches = _cut(listing.files, contents)
        self._open: deque[_Batch] = deque()  # begun, and not wholly given out; the first is the next
        self._lanes = 0
        self._cut_up = trio.Event()  # no batch is left to begin
        self._running = LANES
        self._held = 0
        self._pulse = Pulse()
        self._error: SourceError | None = None
        self._failing = 0
        self._spare = memoryview(_beginning(listing))
        self._ended = False

    async def receive_into(self, buffer: memoryview) -> int:
        """Put up to ``len(buffer)`` further bytes into ``buffer``; gives their number, 0 at the end.

        Raises SourceError.
        """
        while not self._spare:
            if self._error is not None:
                raise self._error
            if self._ended:
                return 0
            part = self._ready()
            if part is None:
                await self._pulse.wait()
            else:
                self._spare = memoryview(part)
        count = min(len(buffer), len(self._spare))
        buffer[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count

    def _ready(self) -> bytes | bytearray | None:
        while self._open:
            batch = self._open[0]
            if batch.parts:
                part = batch.parts.popleft()
                self._held -= len(part)
                self._pulse.beat()
                return part
            if not batch.done:
                return None
            self._open.popleft()
            self._pulse.beat()
        if self._running:
            return None
        self._ended = True
        return head_frame(Ended(len(self._listing.files)))

    # --- lanes ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read everything; what goes wrong is raised to whoever receives."""
        try:
            await run_several(self._lane, LANES)
        except SourceError as error:
            self._error = error
            self._pulse.beat()

    async def _lane(self) -> None:
        self._lanes += 1
        with trio.move_on_after((self._lanes - 1) * LANE_DELAY):
            await self._cut_up.wait()
        bulk = self._client.bulk_reader(self._root)
        try:
            while True:
                while self._held > HELD_BYTES:
                    await self._pulse.wait()
                batch = next(self._batches, None)
                if batch is None:
                    self._cut_up.set()
                    break
                self._open.append(batch)
                await self._read(batch, bulk)
                batch.done = True
                self._pulse.beat()
        finally:
            if bulk is not None:
                with trio.CancelScope(shield=True):
                    await bulk.aclose()
        self._running -= 1
        self._pulse.beat()

    async def _read(self, batch: _Batch, bulk: BulkReader | None) -> None:
        await self.put(batch, b"".join(_reference(file) for file in batch.large))
        answers = _Answers(self, batch)
        if bulk is not None and batch.small:
            await bulk.read([file.entry.url for file in batch.small], SMALL_FILE, answers)
            await answers.pause()
        await self._singly(batch, [n for n, told in enumerate(answers.told) if not told])

    async def put(self, batch: _Batch, frames: bytes | bytearray) -> None:
        """Add frames to a batch, and wait until there is room for more."""
        if frames:
            batch.parts.append(frames)
            self._held += len(frames)
            self._pulse.beat()
        while self._held > HELD_BYTES and (batch.parts or self._open[0] is not batch):
            await self._pulse.wait()

    # --- file by file -----------------------------------------------------------------------------------

    async def _singly(self, batch: _Batch, numbers: Sequence[int]) -> None:
        waiting, unsent = deque(numbers), deque(numbers)
        ready: dict[int, bytes] = {}

        async def work() -> None:
            while waiting:
                number = waiting.popleft()
                ready[number] = await self._frames_of(batch.small[number])
                while unsent and unsent[0] in ready:
                    await self.put(batch, ready.pop(unsent.popleft()))

        await run_several(work, min(SINGLY_AT_ONCE, len(numbers)))

    async def _frames_of(self, file: FoundFile) -> bytes:
        try:
            content = await self._download(SourceRequest(file.entry.url, self._root.headers))
        except SourceError as error:
            refused = error.origin_status is not None and error.origin_status < 500
            self._failing += not refused
            if (error.fault == "reader" and not refused) or self._failing > MAX_FAILING:
                raise  # it is not about this file
            return head_frame(Refused(file.name, str(error), again=True))
        return _reference(file) if content is None else head_frame(File(file.name, len(content))) + content

    async def _download(self, request: SourceRequest) -> bytes | None:
        """A whole content; None when it is not small. Raises SourceError after some tries."""
        tries = 0
        while True:
            try:
                async with await self._client.download(request) as response:
                    return await read_whole(response, SMALL_FILE)
            except SourceError as error:
                if not isinstance(error, SourceCut) and error.origin_status not in _BUSY:
                    raise
                if tries >= self._config.retries:
                    raise
            await trio.sleep(self._config.retry_delay * 2**tries)
            tries += 1

    def __repr__(self) -> str:
        return f"<TreeStream of {len(self._listing.files)} files, {self._held} bytes ready>"


class _Batch:
    """A run of files: ``large`` are only named, ``small`` are read. ``parts`` are frames that are ready."""

    def __init__(self, small: Sequence[FoundFile], large: Sequence[FoundFile]) -> None:
        self.small = small
        self.large = large
        self.parts: deque[bytes | bytearray] = deque()
        self.done = False


class _Answers:
    """What a bulk reader finds, as frames."""

    def __init__(self, stream: TreeStream, batch: _Batch) -> None:
        self._stream = stream
        self._batch = batch
        self._frames = bytearray()
        self.told = bytearray(len(batch.small))

    def content(self, number: int, data: memoryview) -> None:
        self.told[number] = 1
        self._frames += head_frame(File(self._batch.small[number].name, len(data)))
        self._frames += data

    def large(self, number: int) -> None:
        self.told[number] = 1
        self._frames += _reference(self._batch.small[number])

    async def pause(self) -> None:
        frames, self._frames = self._frames, bytearray()
        await self._stream.put(self._batch, frames)


def _cut(files: Sequence[FoundFile], contents: bool) -> Iterator[_Batch]:
    """The files in batches, short enough for all lanes to have some."""
    most = min(BATCH_FILES, max(8, math.ceil(len(files) / (2 * LANES))))
    small: list[FoundFile] = []
    large: list[FoundFile] = []
    expected = 0
    for file in files:
        size = max(file.entry.size, file.entry.hint)
        if not contents or size > SMALL_FILE:
            large.append(file)
        else:
            size = SMALL_FILE if size < 0 else size
            if small and (len(small) >= most or expected + size > BATCH_BYTES):
                yield _Batch(small, large)
                small, large, expected = [], [], 0
            small.append(file)
            expected += size
        if len(large) >= 1024:
            yield _Batch(small, large)
            small, large, expected = [], [], 0
    if small or large:
        yield _Batch(small, large)


def _reference(file: FoundFile) -> bytes:
    entry = file.entry
    return head_frame(File(file.name, -1, entry.size, entry.version, entry.hint))


def _beginning(listing: Listing) -> bytes:
    refused = [head_frame(Refused(name, words)) for name, words in listing.refused]
    return head_frame(Begun(len(listing.files), listing.size)) + b"".join(refused)
