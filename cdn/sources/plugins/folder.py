"""The plugin folder: what lies in it, by name alone."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cdn.sources.plugins.attributes import is_scheme
from cdn.sources.plugins.places import FilePlace

PREFIX = "d7y-resource-plugin-"
PREFIX_OF_ALL = "d7y-"
"""What the names of all plugins begin with; other names are nobody's mistake."""
SETTLED = 2_000_000_000
"""Nanoseconds after which a time of change is believed: further changes would have another one."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that is no plugin; ``meant``: it looks as if it was meant to be one."""

    words: str
    meant: bool = True


class PluginFolder:
    """The listing of a folder, remembered until the folder changes. Nothing in it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.strays: tuple[Stray, ...] = ()
        """What lies there and is no plugin."""
        self._places: tuple[FilePlace, ...] = ()
        self._watched: tuple[Path, ...] = (path,)
        self._seen: tuple[int, ...] | None = None

    def places(self) -> tuple[FilePlace, ...]:
        """The plugins that lie there now, by name. A few calls of the kernel where nothing has changed."""
        changed = tuple(map(_changed, self._watched))
        if changed != self._seen:
            self._scan()
            changed = tuple(map(_changed, self._watched))
            self._seen = changed if time.time_ns() - max(changed) > SETTLED else None
        return self._places

    def _scan(self) -> None:
        places: list[FilePlace] = []
        strays: list[Stray] = []
        incomplete: list[Path] = []
        try:
            names = [(name, os.path.isdir(self.path / name)) for name in sorted(os.listdir(self.path))]
        except FileNotFoundError:
            names = []
        except OSError as error:
            names = []
            strays.append(Stray(f"cannot list {self.path}: {error.strerror}"))
        for name, is_dir in names:
            if name.startswith((".", "_", "test_")):
                continue
            path = self.path / name
            scheme = scheme_of(name, is_dir)
            if scheme and is_dir and not (path / "__init__.py").is_file():
                incomplete.append(path)
                strays.append(Stray(f"not valid plugin folder: {name} has no __init__.py"))
            elif scheme:
                places.append(FilePlace(scheme, path))
            else:
                strays.append(Stray(f"not valid plugin name: {name}", name.startswith(PREFIX_OF_ALL)))
        self._places, self.strays = tuple(places), tuple(strays)
        self._watched = (self.path, *incomplete)


def scheme_of(name: str, is_dir: bool) -> str:
    """The scheme that a plugin's name stands for, in lower case; "" when it is none."""
    if not name.startswith(PREFIX) or not (is_dir or name.endswith(".py")):
        return ""
    scheme = name.removeprefix(PREFIX) if is_dir else name.removeprefix(PREFIX).removesuffix(".py")
    return scheme.lower() if is_scheme(scheme) and not (is_dir and scheme.endswith(".py")) else ""


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
