"""What a source of content is: the interface that every scheme implements.

Names and meaning as in Dragonfly's ``source.ResourceClient``. A plugin's methods may be plain functions,
which then run in worker threads, or async ones; what is built in is async (:class:`AsyncResourceClient`).

Errors of a source::

    SourceError (shared.errors)
    ├── RangeNotSatisfiable   the source holds no byte of the range that was asked for (416)
    └── SourceCut             the answer ended before it was whole: asking again from there may help
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from shared.errors import SourceError
from shared.task.identity import redact_url

if TYPE_CHECKING:
    from cdn.sources.bulk import BulkReader

UNKNOWN_SOURCE_FILE_LENGTH = -2
"""What ``get_content_length`` gives when the source does not tell."""


class RangeNotSatisfiable(SourceError):
    """No byte of the asked range exists. ``total`` is the source's length where it told it."""

    status = 416

    def __init__(
        self, message: str, *, total: int | None = None, etag: str = "", last_modified: str = ""
    ) -> None:
        super().__init__(message, origin_status=416, fault="request")
        self.total = total
        self.etag = etag
        self.last_modified = last_modified


class SourceCut(SourceError):
    """The answer ended before it was whole."""


@dataclass(frozen=True, slots=True)
class ExpireInfo:
    """What tells one version of a source from another; "" where the source gives none."""

    last_modified: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What is asked of a source.

    ``headers`` (lower-case names) include the caller's private ones: they go to the origin only.
    ``range`` is (first, last) in bytes, both inclusive, last None for "to the end". ``if_range`` is the
    strong ETag of the version that the range belongs to: a source that has another version and
    understands this answers with the whole content. ``resolved_url`` is where an earlier answer to the
    same URL came from, so that all ranges of one content are asked of the same place.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    range: tuple[int, int | None] | None = None
    if_range: str = ""
    resolved_url: str = ""

    def __repr__(self) -> str:
        return f"<SourceRequest {redact_url(self.url)} range={self.range}>"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Which bytes an answer holds: first and last (inclusive) of ``total`` (None: unknown)."""

    first: int
    last: int
    total: int | None

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One thing directly below a folder: ``url`` reads (a file) or lists (a folder) it.

    ``size`` is in bytes, -1 when unknown. ``version`` is whatever tells one version of the file from
    another (an ETag, a time of change), "" when the source gives nothing. ``hint`` is what the size may be
    where it is not surely known, -1 for no idea: good for planning only.
    """

    url: str
    is_folder: bool = False
    size: int = -1
    version: str = ""
    hint: int = -1


class ReadableFile(Protocol):
    """An open binary file, as ``open(path, "rb")`` or an HTTP library gives it."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; b"" at the end."""


Body = bytes | Iterable[bytes] | ReadableFile | AsyncIterable[bytes]
"""What the bytes of an answer may come from; what is not async is read in a worker thread."""


class SourceResponse:
    """An answer that is being read; close it, or use it as an async context manager.

    ``status`` 200 is the whole content, 206 the part ``range``. ``content_length`` (of this answer) is -1
    when unknown. ``decoded``: the bytes given are not those on the wire, but what a content coding stood
    for. ``digest`` ("sha256:HEX") is that of the whole content where the source vouches for one: nobody
    is given content that does not have it. ``url`` is where the answer came from. ``close``, plain or async,
    is called once when the answer is let go of; an iterator or open file as body is closed besides that.
    """

    repeatable = True
    """Whether another answer with the same validators has the same bytes."""
    expected: int | None = None
    """About how many bytes there will be, where no more than that is known."""

    def __init__(
        self,
        body: Body | None = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_length: int = -1,
        range: ContentRange | None = None,  # noqa: A002 - the word of the field
        etag: str = "",
        last_modified: str = "",
        content_type: str = "",
        digest: str = "",
        url: str = "",
        decoded: bool = False,
        close: Callable[[], Awaitable[None] | None] | None = None,
    ) -> None:
        self.body: Body = b"" if body is None else body
        self.status = status
        self.headers = dict(headers or {})
        self.content_length = content_length
        if isinstance(body, bytes) and content_length < 0:
            self.content_length = len(body)
        self.range = range
        self.etag = etag
        self.last_modified = last_modified
        self.content_type = content_type
        self.digest = digest
        self.url = url
        self.decoded = decoded
        self._chunks: AsyncIterator[bytes] | None = None
        self._spare = memoryview(b"")
        self.closers: tuple[Callable[[], Awaitable[None] | None], ...] = () if close is None else (close,)

    async def receive_into(self, buffer: memoryview) -> int:
        """Put up to ``len(buffer)`` further bytes into ``buffer``; gives their number, 0 at the end.

        Raises SourceError; SourceCut when the rest may be had by asking again.
        """
        if self._chunks is None:
            self._chunks = self._begin()
        while not self._spare:
            try:
                self._spare = memoryview(await anext(self._chunks))
            except StopAsyncIteration:
                return 0
        count = min(len(buffer), len(self._spare))
        buffer[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count

    def _begin(self) -> AsyncIterator[bytes]:
        if isinstance(self.body, bytes):
            return _Once(self.body)
        if isinstance(self.body, AsyncIterable):
            return aiter(self.body)
        raise TypeError("a body that is not async is read through cdn.sources.plugins only")

    async def aclose(self) -> None:
        """Let go of the connection or file behind the answer."""
        for closer in self.closers:
            closed = closer()
            if closed is not None:
                await closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<SourceResponse {self.status} of {redact_url(self.url)}, {self.content_length} bytes>"


class _Once:
    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body or None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body is None:
            raise StopAsyncIteration
        return body


class ResourceClient(ABC):
    """Reads the sources of one scheme. Stateless between calls; safe for many calls at once.

    Every method may be a plain function (run in a worker thread) or an async one, may raise SourceError
    to say in words what is wrong, and is given up when it does not end within ``source.plugin_timeout``.
    """

    @abstractmethod
    def get_content_length(self, request: SourceRequest) -> int | Awaitable[int]:
        """The length in bytes, or ``UNKNOWN_SOURCE_FILE_LENGTH``."""

    @abstractmethod
    def is_support_range(self, request: SourceRequest) -> bool | Awaitable[bool]:
        """Whether parts of the source can be asked for."""

    @abstractmethod
    def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool | Awaitable[bool]:
        """Whether the source is another version than ``info`` tells, or will surely not give it any more. An
        error counts as not found out: a source in trouble is not asked for everything again, and what is held
        of it stays served, as stale."""

    @abstractmethod
    def download(self, request: SourceRequest) -> SourceResponse | Awaitable[SourceResponse]:
        """Begin to read: 200 with the whole content, or 206 with exactly the part that ``request.range``
        asks for. Raises RangeNotSatisfiable when the source holds no byte of the range."""

    @abstractmethod
    def get_last_modified(self, request: SourceRequest) -> int | Awaitable[int]:
        """Milliseconds since 1970 of the last change, -1 when unknown."""

    def list(
        self, request: SourceRequest
    ) -> Sequence[SourceEntry | str] | Awaitable[Sequence[SourceEntry | str]]:
        """What lies directly below a folder. A plain URL stands for an entry of which no more is known;
        one that ends with "/" is a folder."""
        raise unlistable(request.url)

    def is_immutable(self, request: SourceRequest) -> bool:
        """Whether what the URL names can never change (it holds a digest, say): then it is never asked for
        again. Decided by the URL alone; must not block."""
        return False

    def close(self) -> Awaitable[None] | None:
        """Let go of everything; the last call."""
        return None


class AsyncResourceClient(ResourceClient):
    """A resource client all of whose methods are async: what the engine works with.

    ``plugin`` is the name of the plugin that it stands for, "" for what is built in.
    """

    plugin = ""

    @abstractmethod
    async def get_content_length(self, request: SourceRequest) -> int:
        """As in :class:`ResourceClient`. Raises SourceError."""

    @abstractmethod
    async def is_support_range(self, request: SourceRequest) -> bool:
        """As in :class:`ResourceClient`. Raises SourceError."""

    @abstractmethod
    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """As in :class:`ResourceClient`. Raises SourceError when it cannot be found out."""

    @abstractmethod
    async def download(self, request: SourceRequest) -> SourceResponse:
        """As in :class:`ResourceClient`. Raises SourceError, RangeNotSatisfiable."""

    @abstractmethod
    async def get_last_modified(self, request: SourceRequest) -> int:
        """As in :class:`ResourceClient`. Raises SourceError."""

    async def list(self, request: SourceRequest) -> Sequence[SourceEntry]:
        """As in :class:`ResourceClient`. Raises SourceError."""
        raise unlistable(request.url)

    def bulk_reader(self, folder: SourceRequest) -> BulkReader | None:
        """A quicker way to read many small files below a folder; None where there is none."""
        return None

    async def close(self) -> None:
        """As in :class:`ResourceClient`."""


async def read_whole(response: SourceResponse, limit: int) -> bytes | None:
    """The rest of an answer; None when it is longer than ``limit`` bytes. Raises SourceError."""
    if response.content_length > limit:
        return None
    content, buffer = bytearray(), memoryview(bytearray(min(limit + 1, 256 * 1024)))
    while count := await response.receive_into(buffer):
        content += buffer[:count]
        if len(content) > limit:
            return None
    return bytes(content)


def unlistable(url: str) -> SourceError:
    """The error of sources that have no folders."""
    return SourceError(f"sources such as {redact_url(url)} cannot be listed: name one file", fault="request")
