"""The installed packages: which of them offer plugins, by their entry points alone."""

from __future__ import annotations

import os
import sys
import time

from cdn.sources.plugins.attributes import is_scheme
from cdn.sources.plugins.folder import SETTLED, Stray
from cdn.sources.plugins.places import PackagePlace

GROUP = "dragonet.sources"
"""The group of entry points: each is named after its scheme, its value is a module or ``module:function``."""


class PluginPackages:
    """The entry points of the group, remembered until a folder that modules come from changes."""

    def __init__(self) -> None:
        self.strays: tuple[Stray, ...] = ()
        """Entry points whose names are not schemes, or are there twice."""
        self._places: tuple[PackagePlace, ...] = ()
        self._seen: tuple[tuple[str, int], ...] | None = None

    def places(self) -> tuple[PackagePlace, ...]:
        """The plugins that are installed now, by scheme. A few calls of the kernel where nothing has changed."""
        changed = tuple((folder, _changed(folder)) for folder in sys.path)
        if changed != self._seen:
            self._scan()
            latest = max((when for _, when in changed), default=0)
            self._seen = changed if time.time_ns() - latest > SETTLED else None
        return self._places

    def _scan(self) -> None:
        from importlib import metadata  # 50 ms that only those who ask should pay

        metadata.MetadataPathFinder().invalidate_caches()
        points = sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value))
        found = [(point, PackagePlace(point)) for point in points]
        places = {(p.scheme, p.location): p for _, p in reversed(found) if is_scheme(p.scheme)}
        self._places = tuple(place for _, place in found if place in places.values())
        self.strays = tuple(
            Stray(f"not valid plugin name: {point.name} = {point.value} (of {place.location})")
            for point, place in found
            if place not in places.values()
        )


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0
