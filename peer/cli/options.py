"""Options that several commands have, and how flags become settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from peer.cli.execution import UsageError
from peer.cli.parameter import Parameter
from shared.errors import ConfigError

if TYPE_CHECKING:
    from peer.config import Config
    from shared.config import Loaded


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command that reads the configuration."""

    config: Annotated[Path | None, Parameter(help="Configuration file (TOML).")] = None
    settings: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative=(),
            help="Any setting, as SECTION.KEY=VALUE (`dragonet config` lists them); the values of a list with "
            "commas between them. May be repeated.",
        ),
    ] = ()
    verbose: Annotated[bool, Parameter(negative=(), help="Log more, and show where errors come from.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class Daemon(Common):
    """Options of the commands that run a role."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Parameter(help="Least important level shown.")
    ] = None
    log_format: Annotated[
        Literal["auto", "console", "json"] | None, Parameter(help="How log lines look.")
    ] = None


def load(options: Common | None, flags: Mapping[str, object] | None = None) -> Loaded[Config]:
    """The configuration under these options. ``flags``: setting -> value, None where not given.

    Raises UsageError for a malformed ``--set``, ConfigError for what it says.
    """
    from peer.config import load_config

    options = options or Common()
    given = parse_settings(options.settings)
    names = {name: f"--set {name}" for name in given}
    for name, value in (flags or {}).items():
        if value is not None:
            given[name] = value
            names[name] = _FLAG_NAMES.get(name, "--" + name.rpartition(".")[2].replace("_", "-"))
    try:
        return load_config(file=options.config, flags=given, flag_names=names)
    except ConfigError as error:
        if error.origin.startswith("--"):
            raise UsageError(str(error)) from error
        raise


_FLAG_NAMES = {"log.level": "--log-level", "log.format": "--log-format"}


def parse_settings(settings: tuple[str, ...]) -> dict[str, object]:
    """``("store.quota=10GiB",)`` as ``{"store.quota": "10GiB"}``. Raises UsageError."""
    given: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or "." not in name:
            # what stands behind a "=" may be a secret: it is not repeated
            raise UsageError(f"--set {name!r} is not a setting: write SECTION.KEY=VALUE")
        given[name.strip()] = value
    return given


def parse_headers(lines: tuple[str, ...]) -> dict[str, str]:
    """``'Name: value'`` lines as a mapping; the same name again is joined with a comma (RFC 9110 §5.3).

    Raises UsageError.
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not name:
            # the line may hold a secret: it is not repeated
            raise UsageError("a --header has no name and colon: write it as 'Name: value'")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def start_logging(config: Config, options: Common | None) -> None:
    """Configure logging for a role; ``--verbose`` shows everything."""
    from shared.logging import configure

    configure("debug" if options and options.verbose else config.log.level, config.log.format)
