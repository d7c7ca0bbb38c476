"""Files out of a folder's stream (``cdn.tree.frames``): small ones are written as they come, large ones noted."""

from __future__ import annotations

import msgspec

from cdn.tree.frames import Begun, File, Head, Refused, TreeDecoder, TreeTaker
from cdn.tree.paths import UnsafeName, relative_path, shown
from peer.cli.folder import FileRefused, NewFile, TargetFolder
from peer.cli.hands import Hands, Job


class Outcome(msgspec.Struct):
    """What has come of a folder so far. ``total`` files will come, ``expected`` bytes; -1 while not known.

    ``later`` are the names of files that are to be fetched on their own: large ones, and (True) those that could
    not be read with the others. ``failed`` are (name, words).
    """

    total: int = -1
    expected: int = -1
    files: int = 0
    length: int = 0
    later: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []


class Unpacker(TreeTaker):
    """Feeds on the stream and fills ``target``; names that are not safe are refused.

    Raises InvalidRequest when the stream is none, OutputError when nothing can be written any more.
    """

    def __init__(self, target: TargetFolder) -> None:
        self._target = target
        self._hands = Hands(target)
        self._file: NewFile | None = None
        self._whole: list[Job] = []  # files that came whole with what is fed now
        self._above = ""
        self.begin()

    def begin(self) -> None:
        """From the start, with nothing; what is written already is written again."""
        self._drop()
        self.outcome = Outcome()
        self._decoder = TreeDecoder(self)
        self._seen: set[str] = set()
        self._path = ""
        self._length = self._left = 0

    def feed(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        try:
            self._decoder.feed(data)
        finally:
            self._write_whole()

    @property
    def ended(self) -> bool:
        """Whether the stream came to its end."""
        return self._decoder.ended

    def close(self) -> None:
        """Let go of a file that is not whole, and of the other thread."""
        self._drop()
        self._hands.close()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def claim(self, name: str) -> str | None:
        """The path for a name, once; None (and failed) where it is not safe, or taken already."""
        try:
            path = relative_path(name)
        except UnsafeName as error:
            self.outcome.failed.append((shown(name), f"its name is not safe: {error}"))
            return None
        if path in self._seen:
            self.outcome.failed.append((shown(name), "its name came twice"))
            return None
        self._seen.add(path)
        return path

    # --- called by the decoder --------------------------------------------------------------------------

    def head(self, head: Head) -> None:
        """A file is announced, or something that there is no file of."""
        outcome = self.outcome
        if isinstance(head, File):
            self._path, self._length, self._left = "", head.length, max(head.length, 0)
            if head.length < 0:
                outcome.later.append((head.name, ""))
                return
            self._path = self.claim(head.name) or ""
            if self._path and not head.length:
                self._add(b"")
        elif isinstance(head, Refused):
            (outcome.later if head.again else outcome.failed).append(
                (head.name if head.again else shown(head.name), head.words)
            )
        elif isinstance(head, Begun):
            outcome.total, outcome.expected = head.files, head.size

    def content(self, data: memoryview) -> None:
        """Bytes of the file that was announced last."""
        whole = self._left == len(data) == self._length
        self._left -= len(data)
        if not self._path:
            return
        if whole:
            self._add(data)
            return
        try:
            if self._file is None:
                self._write_whole()  # another folder may be entered now
                self._file = self._target.create(self._path)
            self._file.write(data)
            if self._left:
                return
            self._file.commit()
        except FileRefused as error:
            self._refused(self._path, error)
            self._path = ""
        else:
            self._written(self._length)
        self._drop()

    def _add(self, data: memoryview | bytes) -> None:
        """A whole file, to be written with others of its folder."""
        above, _, name = self._path.rpartition("/")
        if above != self._above:
            self._write_whole()
            self._above = above
        try:
            self._whole.append((self._target.folder(above), name, self._path, data))
        except FileRefused as error:
            self._refused(self._path, error)

    def _write_whole(self) -> None:
        jobs, self._whole = self._whole, []
        if not jobs:
            return
        for job, refused in zip(jobs, self._hands.write(jobs), strict=True):
            if refused is None:
                self._written(len(job[3]))
            else:
                self._refused(job[2], refused)

    def _written(self, length: int) -> None:
        self.outcome.files += 1
        self.outcome.length += length

    def _refused(self, path: str, error: FileRefused) -> None:
        self.outcome.failed.append((path, str(error)))
