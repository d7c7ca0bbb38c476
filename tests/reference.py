"""Writes docs/reference/configuration.md from the configuration's own words: ``python -m tests.reference``.

``tests/unit/test_reference.py`` fails while the page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer.config import Config
from shared.config.fields import Key, keys_of
from shared.units import write_size

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "configuration.md"

HEAD = """# Configuration

One TOML file, environment variables and flags say the same things under the same names. A flag wins over
the environment, that over the file, that over the default. `dragonet config` prints what holds on this
machine, with a comment for each key and where its value is from; its output is a configuration file.

| where | how `upload_slots` of section `swarm` is written |
|---|---|
| file | `upload_slots = 16` below `[swarm]` |
| environment | `DRAGONET_SWARM_UPLOAD_SLOTS=16` |
| flag | `--set swarm.upload_slots=16`; the most used keys have flags of their own, see [commands](cli.md) |

The file is the one named by `--config`, else by the variable `DRAGONET_CONFIG` (empty: none at all), else
`$XDG_CONFIG_HOME/dragonet/dragonet.toml` for users, else `/etc/dragonet/dragonet.toml`. Unknown keys and
unknown `DRAGONET_` variables are errors that name the nearest key; the variables that Kubernetes sets for
a Service called dragonet are let pass.

Sizes may be written as `256MiB`, `10G` (binary) or `1.5GB` (decimal), durations as `10s`, `250ms`, `1h30m`,
rates as `20MiB/s`; bare numbers are bytes, seconds, and bytes per second. Lists are separated by commas in
the environment and in flags.
"""

SECTIONS = {
    "host": "This machine, whatever roles it runs.",
    "scheduler": "Read by `dragonet scheduler` and `up`.",
    "seeder": "Read by `dragonet seeder`.",
    "peer": "Read by `dragonet peer` and `up`; commands read `socket`.",
    "lan": "How machines of one network find each other ([a LAN](../howto/lan.md)); read by every role.",
    "registry": "The registry gateway; read by `dragonet peer` and `up`.",
    "swarm": "Transfers between hosts; read by seeders and peers.",
    "store": "What is kept; read by seeders and peers.",
    "source": "How origins are read; read by seeders and peers.",
    "server": "Every HTTP listener of every role.",
    "log": "Logging of every role.",
}

DEPENDS = {
    "source.plugin_dir": "`/usr/local/dragonet/plugins` for root, else `plugins` in the user's data folder",
    "host.data_dir": "`/var/lib/dragonet` for root, else `$XDG_DATA_HOME/dragonet`",
    "peer.socket": "`/run/dragonet/dragonet.sock` for root, else `$XDG_RUNTIME_DIR/dragonet.sock`, "
    "without a runtime folder `dragonet.sock` in the default data folder",
}
"""Defaults that are not the same everywhere."""


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    config = Config()
    for section, words in SECTIONS.items():
        lines += [f"## [{section}]", "", words, "", "| key | default | meaning |", "|---|---|---|"]
        for key in keys_of(Config):
            if key.path[0] == section:
                value = getattr(getattr(config, section), key.path[1])
                lines.append(f"| `{key.path[1]}` | {_default(key, value)} | {key.description} |")
        lines.append("")
    return "\n".join(lines)


def _default(key: Key, value: Any) -> str:
    if key.name in DEPENDS:
        return DEPENDS[key.name]
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if key.unit in ("size", "rate"):
        return f"`{write_size(value)}`" if value else "`0`"
    if key.unit == "seconds":
        return f"`{value:g}s`" if value else "`0`"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
