"""A second pair of hands: half of the files that come at once are written in a thread of their own.

Making a file is mostly the kernel's work, so two cores make nearly twice as many.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from peer.cli.folder import FileRefused, TargetFolder

WORTH = 8
"""Files from which on the other thread is woken."""

Job = tuple[int, str, str, "memoryview | bytes"]
"""An open folder, a name in it, the path for errors, and the content."""


class Hands:
    """Writes files into ``target``. Close it before the target's folders are left."""

    def __init__(self, target: TargetFolder) -> None:
        self._target = target
        self._given: SimpleQueue[Sequence[Job] | None] = SimpleQueue()
        self._done: SimpleQueue[Exception | list[FileRefused | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    def write(self, jobs: Sequence[Job]) -> list[FileRefused | None]:
        """Write all of them; what each was refused for, None for those that are there. Raises OutputError."""
        if len(jobs) < WORTH:
            return self._several(jobs)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="files", daemon=True)
            self._thread.start()
        half = len(jobs) // 2
        self._given.put(jobs[half:])
        self._busy = True
        try:
            results = self._several(jobs[:half])
        finally:
            others = self._settle()
        if isinstance(others, Exception):
            raise others
        return results + others

    def close(self) -> None:
        """Wait for what is being written, and end the thread."""
        if self._thread is not None:
            if self._busy:
                self._settle()
            self._given.put(None)
            self._thread.join()
            self._thread = None

    def _settle(self) -> Exception | list[FileRefused | None]:
        done = self._done.get()
        self._busy = False
        return done

    def _work(self) -> None:
        while (jobs := self._given.get()) is not None:
            try:
                self._done.put(self._several(jobs))
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                self._done.put(error)

    def _several(self, jobs: Sequence[Job]) -> list[FileRefused | None]:
        results: list[FileRefused | None] = []
        for folder, name, path, data in jobs:
            try:
                self._target.write_in(folder, name, path, data)
            except FileRefused as error:
                results.append(error)
            else:
                results.append(None)
        return results
