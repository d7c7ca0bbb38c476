"""``dragonet config`` and ``dragonet version``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from peer.cli.options import Common, load


def config(*, options: Common | None = None) -> None:
    """Print the effective configuration as TOML, with a comment for each key and where its value is from."""
    from cdn.sources.builtin import open_options
    from shared.config import dump

    loaded = load(options)
    print(f"# configuration file: {loaded.file or 'none'}\n")
    print(dump(loaded, shown=open_options()), end="")


def version(*, json: Annotated[bool, Parameter(negative=(), help="As one JSON object.")] = False) -> None:
    """Print the version."""
    import platform

    from shared.version import version as installed

    if json:
        import msgspec

        print(msgspec.json.encode({"version": installed(), "python": platform.python_version()}).decode())
    else:
        print(f"dragonet {installed()} (Python {platform.python_version()})")
