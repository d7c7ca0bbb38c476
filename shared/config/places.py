"""Where dragonet keeps its data when nothing else is configured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_DATA = Path("/var/lib/dragonet")


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``/var/lib/dragonet`` for root, ``$XDG_DATA_HOME/dragonet`` (``~/.local/share/dragonet``) otherwise."""
    if os.geteuid() == 0:
        return SYSTEM_DATA
    base = environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "dragonet"
