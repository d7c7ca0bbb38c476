"""Files out of a folder's stream (``cdn.tree.frames``): small ones are written as they come, large ones noted."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdn.tree.frames import Begun, File, Head, Refused, TreeDecoder, TreeTaker
from cdn.tree.paths import UnsafeName, relative_path, shown
from peer.cli.folder import FileRefused, NewFile, TargetFolder


@dataclass(slots=True)
class Outcome:
    """What has come of a folder so far. ``total`` files will come, ``expected`` bytes; -1 while not known.

    ``later`` are the names of files that are to be fetched on their own: large ones, and (True) those that could
    not be read with the others. ``failed`` are (name, words).
    """

    total: int = -1
    expected: int = -1
    files: int = 0
    length: int = 0
    later: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Unpacker(TreeTaker):
    """Feeds on the stream and fills ``target``; names that are not safe are refused.

    Raises InvalidRequest when the stream is none, OutputError when nothing can be written any more.
    """

    def __init__(self, target: TargetFolder) -> None:
        self._target = target
        self._file: NewFile | None = None
        self.begin()

    def begin(self) -> None:
        """From the start, with nothing; what is written already is written again."""
        self.close()
        self.outcome = Outcome()
        self._decoder = TreeDecoder(self)
        self._seen: set[str] = set()
        self._path = ""
        self._length = self._left = 0

    def feed(self, data: memoryview) -> None:
        """The next bytes of the stream."""
        self._decoder.feed(data)

    @property
    def ended(self) -> bool:
        """Whether the stream came to its end."""
        return self._decoder.ended

    def close(self) -> None:
        """Let go of a file that is not whole."""
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
                self._whole(b"")
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
            self._whole(data)
            return
        try:
            if self._file is None:
                self._file = self._target.create(self._path)
            self._file.write(data)
            if self._left:
                return
            self._file.commit()
        except FileRefused as error:
            self._refused(error)
        else:
            self._written()
        self.close()

    def _whole(self, data: memoryview | bytes) -> None:
        try:
            self._target.write(self._path, data)
        except FileRefused as error:
            self._refused(error)
        else:
            self._written()

    def _written(self) -> None:
        self.outcome.files += 1
        self.outcome.length += self._length

    def _refused(self, error: FileRefused) -> None:
        self.outcome.failed.append((self._path, str(error)))
        self._path = ""
