"""Mistakes in the settings of single schemes, found when a role starts and not with the first request."""

from __future__ import annotations

import structlog
import trio

from cdn.config import SourceConfig
from cdn.reader import SourceReader
from cdn.sources.builtin import BUILTIN, PLAIN
from shared.errors import ConfigError, SourceError

log = structlog.get_logger()

PATIENCE = 10.0
"""Seconds that options of one scheme may take to be checked: they may name files on a disk that does not answer."""


async def check_schemes(config: SourceConfig, reader: SourceReader) -> None:
    """Open the built-in sources that options are set for, and warn of settings for schemes that nothing reads.

    Raises ConfigError when an option is wrong. Plugins are not run: they check theirs when they are asked for.
    """
    for scheme, options in config.options.items():
        if options and scheme in PLAIN:
            raise ConfigError(f"source.options.{scheme}: {scheme}:// has no options: remove them")
        if options and scheme in BUILTIN and reader.supports(scheme):
            await _open(scheme, reader)
    known = {*PLAIN, *BUILTIN, *reader.registry.schemes()}
    for table, named in (("options", config.options), ("revalidate", config.revalidate)):
        for scheme in sorted(set(named) - known - {"*"}):
            log.warning(
                "a setting is for a scheme that nothing here reads",
                setting=f"source.{table}.{scheme}",
                hint=_hint(scheme, known),
            )


async def _open(scheme: str, reader: SourceReader) -> None:
    with trio.move_on_after(PATIENCE) as waiting:
        try:
            await reader.registry.get(scheme)
        except SourceError as error:
            raise ConfigError(str(error)) from None
    if waiting.cancelled_caught:
        log.warning("options of a source cannot be checked: they take too long to open", scheme=scheme)


def _hint(scheme: str, known: set[str]) -> str:
    import difflib  # only where there is a mistake

    close = difflib.get_close_matches(scheme, sorted(known), n=1)
    return f"did you mean {close[0]}?" if close else "install a plugin for it, or remove the setting"
