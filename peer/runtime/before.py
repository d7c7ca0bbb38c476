"""A machine's files as they would be had dragonet never changed any: what the planners look at.

So every configuration is made from the first bytes, and comes out the same however often it is made.
"""

from __future__ import annotations

import posixpath

from peer.runtime.disk import DRAFT
from peer.runtime.journal import Journal
from peer.runtime.tree import Tree


class Before:
    """:class:`peer.runtime.plan.Files` of a tree without what its journal records. A file that somebody else has
    changed since shows as it is now."""

    def __init__(self, tree: Tree, journal: Journal) -> None:
        self._tree = tree
        self._journal = journal

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none. Raises SetupError."""
        content = self._tree.read(path)
        entry = self._journal.entry(self._tree.resolve(path))
        return entry.original.content if entry is not None and entry.is_ours(content) else content

    def names(self, path: str) -> list[str]:
        """What is in a folder, sorted; [] where there is none. Raises SetupError."""
        return [name for name in self._tree.names(path) if self._is_visible(posixpath.join(path, name))]

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there."""
        made = self._tree.resolve(path) in self._journal.folders
        return self._tree.is_folder(path) and not (made and not self.names(path))

    def mode(self, path: str) -> int:
        """A file's permissions; those of a new file where there is none."""
        entry = self._journal.entry(self._tree.resolve(path))
        if entry is not None and entry.original.content is not None:
            return entry.original.mode
        return self._tree.owner(path).mode

    def _is_visible(self, path: str) -> bool:
        if path.endswith(DRAFT):
            return False
        if self._tree.is_folder(path):
            return self.is_folder(path)
        entry = self._journal.entry(self._tree.resolve(path))
        return entry is None or entry.original.content is not None or self.read(path) is not None
