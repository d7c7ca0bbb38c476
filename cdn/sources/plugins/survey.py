"""Everything that there is, tried out: what `dragonet plugin` lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from cdn.config import SourceConfig
from cdn.sources.plugins.finder import PluginFinder
from cdn.sources.plugins.folder import Stray
from shared.errors import SourceError
from shared.plugins import PluginRecord, PluginRegistry, PluginState

PATIENCE = 10.0
"""Seconds that one plugin may take to load here, where somebody waits for the list."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The folder that was looked in, every plugin and what is built in, and what is no plugin."""

    folder: Path
    records: list[PluginRecord]
    strays: list[Stray]

    @property
    def refused(self) -> bool:
        """Whether something that was meant to be a plugin is none."""
        failed = any(record.state is PluginState.FAILED for record in self.records)
        return failed or any(stray.meant for stray in self.strays)


async def survey(config: SourceConfig) -> Survey:
    """Load every plugin once, all at the same time, and close it again. Takes ``source.plugin_timeout`` or
    :data:`PATIENCE` at most, whichever is less."""
    config = msgspec.structs.replace(config, plugin_timeout=min(config.plugin_timeout, PATIENCE))
    plugins = PluginRegistry()
    finder = PluginFinder(config, plugins)
    async with trio.open_nursery() as nursery:
        for scheme in finder.schemes():
            nursery.start_soon(_try_out, finder, scheme, config.plugin_timeout)
    return Survey(finder.folder.path, plugins.records(), finder.strays)


async def _try_out(finder: PluginFinder, scheme: str, patience: float) -> None:
    opener = finder.find(scheme)
    if opener is None:
        return
    try:
        client = await opener()
    except SourceError:
        return  # its record has the reason
    with trio.move_on_after(patience):
        await client.close()
