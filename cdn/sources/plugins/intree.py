"""The sources that come with dragonet, as records beside those of the plugins."""

from __future__ import annotations

from cdn.config import SourceConfig
from cdn.sources.builtin import BUILTIN, needs
from cdn.sources.plugins.attributes import RESOURCE
from shared.plugins import PluginKind, PluginRecord, PluginState

BUILT_IN = ("file", "http", "https", *BUILTIN)
"""The schemes that are built in, whether they can be used on this host or not."""
IN_TREE = "in-tree"
"""The location of what comes with dragonet."""


def in_tree_records(config: SourceConfig, version: str = "") -> list[PluginRecord]:
    """A record for each built-in scheme: ACTIVE, or INACTIVE with what it needs before it can be used."""
    records = []
    for scheme in sorted(BUILT_IN):
        needed = needs(scheme, file_roots=bool(config.file_roots))
        records.append(
            PluginRecord(
                kind=PluginKind.SOURCE,
                name=scheme,
                location=IN_TREE,
                state=PluginState.INACTIVE if needed else PluginState.ACTIVE,
                version=version,
                vendor="dragonet",
                reason=needed,
                attributes={"name": scheme, "scheme": scheme, "type": RESOURCE, "vendor": "dragonet"},
                in_tree=True,
            )
        )
    return records
