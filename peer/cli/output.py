"""The file that ``get`` writes: beside its target while it is incomplete, renamed when all is verified."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from peer.cli.execution import UsageError
from shared.errors import DragonetError


class OutputError(DragonetError):
    """The output file cannot be written."""


class OutputFile:
    """A context manager around a temporary file next to ``target``.

    ``fd`` is open for reading and writing. :meth:`commit` puts the file in place; without it, leaving the
    context removes the file, and whatever was at ``target`` is untouched. A symbolic link is followed.
    Raises UsageError when the target can never be a file, OutputError when it cannot be written.
    """

    def __init__(self, target: Path) -> None:
        if target.is_dir():
            raise UsageError(f"-o {target} is a folder: name a file")
        self.target = Path(os.path.realpath(target))
        if self.target.exists() and not self.target.is_file():
            raise UsageError(f"-o {target} is not a regular file: name another one")
        self.path = self.target.parent / f".dragonet-{os.urandom(8).hex()}.part"
        self._committed = False
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write in {self.target.parent}: {error.strerror}") from None

    def commit(self) -> None:
        """Rename the file to its target. Raises OutputError."""
        try:
            os.replace(self.path, self.target)
        except OSError as error:
            raise OutputError(f"cannot put {self.target} in place: {error.strerror}") from None
        self._committed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        if not self._committed:
            self.path.unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"<OutputFile {self.target}{' committed' if self._committed else ''}>"
