"""The globs of ``--include`` and ``--exclude``. Pure.

A glob without a slash is matched with the last name of a path, one with a slash with the whole path
relative to the folder that is read. ``*`` and ``?`` stand for characters of one name, ``[…]`` for one of
several; ``**`` as a whole name stands for any number of folders, none included. A glob that ends with a slash
means everything below that folder: ``docs/`` is ``docs/**``. A leading slash changes nothing but that the
glob is matched with the whole path.
"""

from __future__ import annotations

import fnmatch
import re
from functools import cache

MAX_GLOB = 1024
"""Longest glob, in characters."""


class Glob:
    """One glob. Raises ValueError when it is empty or longer than ``MAX_GLOB``."""

    def __init__(self, text: str) -> None:
        if not text.strip("/"):
            raise ValueError("a glob must name something, as in '*.bin'")
        if len(text) > MAX_GLOB:
            raise ValueError(f"a glob has {len(text)} characters: at most {MAX_GLOB} are allowed")
        self.text = text
        self._whole = "/" in text
        names = text.strip("/").split("/")
        if text.endswith("/"):
            names.append("**")
        self._names = [None if name == "**" else _compiled(name) for name in names]

    def matches(self, path: str) -> bool:
        """Whether the glob stands for a path (relative, names joined by "/")."""
        if not self._whole:
            name = self._names[0]
            return name is None or name.match(path.rpartition("/")[2]) is not None
        return len(self._names) in self._reached(path)

    def covers(self, folder: str) -> bool:
        """Whether the glob stands for everything below a folder."""
        if self._names[-1] is not None:
            return False
        return not self._whole or len(self._names) - 1 in self._reached(folder)

    def _reached(self, path: str) -> set[int]:
        """Which of the glob's names may come after the path; never more work than both have names."""
        last = len(self._names) - 1
        places = self._skip({0})
        for part in path.split("/"):
            following = set()
            for place in places:
                if place > last:
                    continue
                name = self._names[place]
                if name is None:
                    following |= {place, last + 1} if place == last else {place}
                elif name.match(part):
                    following.add(place + 1)
            places = self._skip(following)
        return places

    def _skip(self, places: set[int]) -> set[int]:
        """With the places behind a ``**`` that stands for no folder; the last one stands for at least a name."""
        found = set(places)
        for place in places:
            while place < len(self._names) - 1 and self._names[place] is None:
                place += 1
                found.add(place)
        return found

    def __repr__(self) -> str:
        return f"<Glob {self.text}>"


@cache
def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(name))
