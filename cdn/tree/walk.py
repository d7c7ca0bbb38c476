"""What lies below a folder: listed folder by folder, level by level, several folders at a time.

Whatever a source lists is taken only where it lies below the folder that it was asked for; each URL once. Bounds
keep a listing that never ends, or folders that contain themselves, from going on for ever.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

import msgspec
import trio

from cdn.sources.interface import AsyncResourceClient, SourceEntry, SourceRequest
from cdn.tree.order import Filter, TreeOrder
from cdn.tree.paths import UnsafeName, relative_path
from shared.errors import SourceError
from shared.nursery import run_several
from shared.offline import is_offline
from shared.task.identity import redact_url

MAX_FILES = 100_000
"""Files and refused names of one tree at most."""
MAX_FOLDERS = 20_000
AT_ONCE = 8
"""Folders listed at a time."""
PATIENCE = 600.0
"""Seconds for the whole listing."""


class FoundFile(msgspec.Struct, frozen=True, gc=False):
    """A file to take. ``name`` is what follows the root's URL, percent-encoded as the source gave it."""

    path: str
    name: str
    entry: SourceEntry


@dataclass(slots=True)
class Listing:
    """All that was found, sorted by path. ``refused`` are (name, words)."""

    files: list[FoundFile] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files as far as they are told or hinted at; -1 where they are not of every file."""
        sizes = [max(file.entry.size, file.entry.hint) for file in self.files]
        return -1 if min(sizes, default=0) < 0 else sum(sizes)

    @property
    def etag(self) -> str:
        """Tells one listing from another. Weak where some file has neither version nor size: what is behind an
        equal one may then have changed all the same."""
        hasher = hashlib.sha256()
        strong = True
        for file in self.files:
            entry = file.entry
            strong = strong and bool(entry.version or entry.size >= 0)
            for text in (file.name, str(entry.size), entry.version):
                data = text.encode("utf-8", "surrogateescape")
                hasher.update(b"%d:%b" % (len(data), data))
        for name, words in self.refused:
            hasher.update(f"!{name}!{words}".encode("utf-8", "surrogateescape"))
        return f'{"" if strong else "W/"}"{hasher.hexdigest()[:32]}"'


async def walk(
    client: AsyncResourceClient, root: SourceRequest, order: TreeOrder, alive: Callable[[], None]
) -> Listing:
    """List what ``order`` takes below ``root``, whose URL ends with a slash; ``alive`` is called as it goes on.

    Raises SourceError when the root cannot be listed, when there is more than any tree may hold, or when the
    listing takes too long. A folder below that cannot be listed is refused with words; the rest goes on.
    """
    with trio.move_on_after(PATIENCE):
        return await _Walk(client, root, order, alive).run()
    raise SourceError(
        f"{redact_url(root.url)} is not listed after {PATIENCE:.0f} s: take a folder of it, or fewer levels"
    )


class _Walk:
    def __init__(
        self, client: AsyncResourceClient, root: SourceRequest, order: TreeOrder, alive: Callable[[], None]
    ) -> None:
        self._alive = alive
        self._client = client
        self._root = root
        # a query of the root belongs to its own page: it is no part of what lies below
        self._base = root.url.partition("?")[0]
        self._filter = Filter(order)
        self._files: dict[str, FoundFile] = {}
        self._folders: dict[str, str] = {}  # path -> name
        self._refused: dict[str, str] = {}

    async def run(self) -> Listing:
        level = [""]
        for _ in range(self._filter.levels):
            below: list[str] = []
            waiting = deque(level)
            await run_several(partial(self._list_several, waiting, below), min(AT_ONCE, len(level)))
            if not below:
                break
            level = sorted(below)
        return self._listing()

    async def _list_several(self, waiting: deque[str], below: list[str]) -> None:
        while waiting:
            name = waiting.popleft()
            request = self._root if not name else SourceRequest(self._base + name, self._root.headers)
            try:
                entries = await self._client.list(request)
            except SourceError as error:
                if not name:
                    raise _unlisted(error) from error
                if is_offline(error):
                    raise  # it is not about this folder
                self._refuse(name, f"the folder cannot be listed: {error}")
            else:
                below += self._sort_in(name, entries)
            self._alive()

    def _sort_in(self, folder: str, entries: Sequence[SourceEntry]) -> list[str]:
        """Take what a folder holds; the names of the folders to enter next."""
        below = []
        for entry in entries:
            name = self._name(folder, entry)
            if name is None:
                continue
            try:
                path = relative_path(name[:-1] if entry.is_folder else name)
            except UnsafeName as error:
                self._refuse(name, f"its name is not safe: {error}")
                continue
            if not entry.is_folder:
                if self._filter.takes(path):
                    first = self._files.setdefault(path, FoundFile(path, name, entry))
                    self._check_same(first.name, name)
            elif self._filter.enters(path):
                if path not in self._folders:
                    below.append(name)
                self._check_same(self._folders.setdefault(path, name), name)
        self._check_bounds()
        return below

    def _check_same(self, first: str, name: str) -> None:
        if first != name:
            self._refuse(name, "its name means the same file as another one of the folder")

    def _name(self, folder: str, entry: SourceEntry) -> str | None:
        """What follows the root in an entry's URL; None (and refused) where it does not lie in ``folder``."""
        url = entry.url
        if entry.is_folder:
            url = url.partition("?")[0]
            url = url if url.endswith("/") else url + "/"
        place = self._base + folder
        inner = url.removeprefix(place) if url.startswith(place) else _below(place, url)
        if not inner.strip("/") or (not entry.is_folder and inner.endswith("/")):
            if url != place:
                self._refuse(redact_url(entry.url), "the source lists it, but it does not lie in the folder")
            return None
        return folder + inner

    def _refuse(self, name: str, words: str) -> None:
        self._refused.setdefault(name, words)

    def _check_bounds(self) -> None:
        if len(self._files) + len(self._refused) > MAX_FILES or len(self._folders) > MAX_FOLDERS:
            raise SourceError(
                f"{redact_url(self._root.url)} holds more than {MAX_FILES} files or {MAX_FOLDERS} folders: "
                "take a folder of it, fewer levels, or a part with --include",
                fault="request",
            )

    def _listing(self) -> Listing:
        # a file cannot be a folder at the same time: what lies below it is refused
        listing = Listing()
        for path, file in sorted(self._files.items()):
            above = path
            while (above := above.rpartition("/")[0]) and above not in self._files:
                pass
            if above:
                self._refused.setdefault(file.name, f"it lies in a folder that is a file, too ({above})")
            else:
                listing.files.append(file)
        listing.refused = sorted(self._refused.items())
        return listing


def _below(place: str, url: str) -> str:
    """What follows ``place`` in a URL that may be encoded in another way; "" where it does not lie there."""
    above, parts = place.split("/")[:-1], url.split("/")
    same = [unquote(part) for part in parts[: len(above)]] == [unquote(part) for part in above]
    return "/".join(parts[len(above) :]) if same else ""


def _unlisted(error: SourceError) -> SourceError:
    if error.origin_status != 404:
        return error
    return SourceError(f"{error} (is it a file? then leave -r out)", origin_status=404, fault=error.fault)
