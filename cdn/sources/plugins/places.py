"""Where the code of a plugin lies: a file or folder in the plugin folder, or an installed package.

A place can be looked at without running anything of the plugin; :meth:`Place.entry` is what runs its code.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from cdn.sources.plugins.ownership import check_ownership

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY = "dragonet_plugin_init"
"""The function of a plugin's module that makes its client."""
MAX_FILES = 1000
"""Files of a folder plugin that are looked at to see whether it changed."""

Entry = Callable[[dict[str, str]], Any]


class NoEntry(Exception):
    """The module has no entry function."""


class Place(Protocol):
    """Where one plugin lies. Equal places hold the same plugin."""

    @property
    def scheme(self) -> str:
        """The scheme that the plugin says it reads, in lower case."""

    @property
    def location(self) -> str:
        """The place in words: a path, or a package and its version."""

    @property
    def version(self) -> str:
        """The release of the package that it comes with; ""."""

    def signature(self) -> object:
        """Equal as long as nothing of the plugin was changed. Blocking; raises OSError when it is gone."""

    def check(self) -> None:
        """Whether its code may be run. Blocking; raises UnsafePlace, OSError."""

    def entry(self, module: str) -> Entry:
        """Import the code, where it matters as ``module``, and give its entry function. Blocking; raises
        NoEntry, and whatever the code raises."""

    def forget(self, module: str) -> None:
        """Take what :meth:`entry` imported out of ``sys.modules``."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A plugin in the plugin folder: a ``.py`` file, or a folder with an ``__init__.py``."""

    scheme: str
    path: Path
    version: str = ""

    @property
    def location(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def code(self) -> Path:
        """The file that is imported."""
        return self.path if self.path.suffix == ".py" else self.path / "__init__.py"

    def signature(self) -> object:
        """Of all its files, their owners and modes, and those of the folders around them."""
        folders = [(status.st_mode, status.st_uid) for status in map(Path.stat, self._folders())]
        files = sorted(self._files())[:MAX_FILES]
        return folders, [(path, *_version_of(path.stat())) for path in files]

    def check(self) -> None:
        """Nobody else may write its files, nor the folders they are in."""
        check_ownership([*self._folders(), *self._files()])

    def entry(self, module: str) -> Entry:
        """Import the file as ``module``; files of the same folder plugin are its submodules."""
        importlib.invalidate_caches()  # a folder remembered from an earlier attempt may have changed since
        is_folder = self.code != self.path
        spec = importlib.util.spec_from_file_location(
            module,
            self.code,
            loader=_FreshLoader(module, str(self.code)),
            submodule_search_locations=[str(self.path)] if is_folder else None,
        )
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[module] = made
        spec.loader.exec_module(made)
        return _entry_of(made, ENTRY)

    def forget(self, module: str) -> None:
        """``module`` and what is below it."""
        _forget(name for name in list(sys.modules) if name == module or name.startswith(f"{module}."))

    def _folders(self) -> list[Path]:
        around = {self.path.parent, Path(os.path.realpath(self.path)).parent}
        if self.path != self.code:
            around |= {Path(folder) for folder, _, _ in os.walk(self.path)}
        return sorted(around)

    def _files(self) -> list[Path]:
        if self.path == self.code:
            return [self.path]
        return _python_files(self.path) or [self.code]


class PackagePlace:
    """A plugin that an installed package offers as an entry point."""

    def __init__(self, point: EntryPoint) -> None:
        self._point = point
        self.scheme = point.name.lower()
        self.version = point.dist.version if point.dist else ""
        package = point.dist.name if point.dist else "unknown"
        self.location = " ".join(part for part in ("package", package, self.version) if part)
        self._before: frozenset[str] | None = None

    def signature(self) -> object:
        """Of all files of the package that the module belongs to."""
        spec = importlib.util.find_spec(self._point.module.partition(".")[0])
        files = [Path(spec.origin)] if spec and spec.origin and os.path.isabs(spec.origin) else []
        for folder in (spec.submodule_search_locations if spec else None) or ():
            files += _python_files(folder)
        return self._point.value, [(path, *_version_of(path.stat())) for path in sorted(files)[:MAX_FILES]]

    def check(self) -> None:
        """Packages are where the interpreter imports from: nothing is to be checked."""

    def entry(self, module: str) -> Entry:
        """Import the module under its own name."""
        importlib.invalidate_caches()
        self._before = frozenset(sys.modules)
        made: Any = importlib.import_module(self._point.module)
        return _entry_of(made, self._point.attr or ENTRY)

    def forget(self, module: str) -> None:
        """What came in with the package since :meth:`entry` began."""
        if self._before is None:
            return
        top = self._point.module.partition(".")[0]
        _forget(
            name for name in list(sys.modules) if name.partition(".")[0] == top and name not in self._before
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackagePlace) and self._told() == other._told()

    def __hash__(self) -> int:
        return hash(self._told())

    def _told(self) -> tuple[str, str, str]:
        return self.scheme, self.location, self._point.value

    def __repr__(self) -> str:
        return f"<PackagePlace {self.location}: {self._point.value}>"


class _FreshLoader(SourceFileLoader):
    """Never takes compiled code from an earlier version: its time stamp has whole seconds only."""

    def path_stats(self, path: str) -> Any:
        raise OSError("no compiled code is kept for plugins")


def _entry_of(module: ModuleType, path: str) -> Entry:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise NoEntry(f"it has no function {path}")
    return found  # type: ignore[no-any-return]


def _python_files(folder: str | Path) -> list[Path]:
    return [
        Path(where, name) for where, _, names in os.walk(folder) for name in names if name.endswith(".py")
    ]


def _version_of(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _forget(names: Iterable[str]) -> None:
    for name in list(names):
        sys.modules.pop(name, None)
