"""Reads a configuration: flag over environment over file over default, each value told where it is from."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from shared.config.fields import SHAPES, Key, WrongSetting, keys_of, put
from shared.errors import ConfigError

ENVIRONMENT_PREFIX = "DRAGONET_"
FILE_VARIABLE = "DRAGONET_CONFIG"
"""Names the configuration file; not a key itself."""

_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)$")
"""Variables that Kubernetes sets in every pod for a Service whose name begins with "dragonet"."""

Root = TypeVar("Root", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Root]):
    """A configuration, and for each key that is not at its default where the value is from."""

    config: Root
    origins: Mapping[str, str]
    file: Path | None = None


def load(
    root: type[Root],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    flag_names: Mapping[str, str] | None = None,
) -> Loaded[Root]:
    """Fill ``root`` from a TOML file, ``DRAGONET_<SECTION>_<KEY>`` variables and flags.

    ``flags`` maps ``section.key`` to text or a ready value; None means "not given". ``flag_names`` tells
    how a flag is called on the command line, for messages. ``file`` must exist when given. Raises
    ConfigError, naming the key, where it was written and what is allowed, or the nearest key there is.
    """
    keys = {key.name: key for key in keys_of(root)}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(key: Key, raw: object, origin: str) -> None:
        try:
            values[key.name] = key.convert(raw)
        except (ValueError, TypeError, OverflowError) as error:
            shown = "this value" if key.unit == "secret" else repr(raw)
            told = isinstance(error, msgspec.ValidationError) and key.unit not in SHAPES
            detail = f" ({error})" if told else ""
            raise ConfigError(
                f"{key.name} ({origin}) cannot be {shown}{detail}: write {key.allowed}", origin=origin
            ) from None
        origins[key.name] = origin

    if file is not None:
        for name, raw in _flatten(_read_file(file), set(keys)):
            if name not in keys:
                raise ConfigError(f"{file} has an unknown key {name!r}: {_nearest(name, keys)}")
            take(keys[name], raw, str(file))
    by_variable = {ENVIRONMENT_PREFIX + key.variable: key for key in keys.values()}
    for variable, raw in sorted((environ or {}).items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable in by_variable:
            take(by_variable[variable], raw, variable)
        elif not _SERVICE_LINK.search(variable):
            raise ConfigError(f"unknown environment variable {variable}: {_nearest(variable, by_variable)}")
    for name, raw in (flags or {}).items():
        if raw is None:
            continue
        origin = (flag_names or {}).get(name, f"--set {name}")
        key, raw = _table_entry(name, raw, keys, values)
        if key is None:
            raise ConfigError(f"unknown setting {name!r}: {_nearest(name, keys)}", origin=origin)
        take(key, raw, origin)
    return Loaded(_build(root, values, origins), origins, file)


def _table_entry(
    name: str, raw: object, keys: Mapping[str, Key], values: Mapping[str, Any]
) -> tuple[Key | None, object]:
    """The key that a flag sets; for an entry of a table (``source.options.s3.region``), the table with it."""
    if name in keys:
        return keys[name], raw
    for key in keys.values():
        entry = name.removeprefix(f"{key.name}.").split(".")
        if name.startswith(f"{key.name}.") and key.is_table and len(entry) == (2 if key.nested else 1):
            table = copy.deepcopy(values.get(key.name, {}))
            put(table, entry, raw)
            return key, table
    return None, raw


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib  # only where there is a file: start-up time of the command line

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}: create it or name another one") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _flatten(table: Mapping[str, Any], known: set[str], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        path = f"{above}{name}"
        is_section = any(key.startswith(f"{path}.") for key in known)
        if isinstance(value, dict) and path not in known and (is_section or value):
            yield from _flatten(value, known, f"{path}.")
        elif is_section and not isinstance(value, dict):
            raise ConfigError(f"{path!r} is a section: write [{path}] and its keys below it")
        elif not (is_section and isinstance(value, dict)):
            yield path, value


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib

    candidates = sorted(known)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.0)
    leaf = name.rpartition(".")[2].replace("-", "_")
    same = [candidate for candidate in candidates if candidate.rpartition(".")[2] == leaf]
    return f"did you mean {(same or close)[0]}?" if candidates else "no keys are known"


def _build(root: type[Root], values: Mapping[str, Any], origins: Mapping[str, str], above: str = "") -> Root:
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(root):
        path = f"{above}{field.name}"
        if path in values:
            arguments[field.name] = values[path]
        elif any(name.startswith(f"{path}.") for name in values):
            arguments[field.name] = _build(field.type, values, origins, f"{path}.")
    try:
        return root(**arguments)
    except WrongSetting as error:
        name = above + error.key
        origin = origins.get(name, "")
        raise ConfigError(f"{name} ({origin or 'default'}) {error}", origin=origin) from None
    except ValueError as error:  # a section's own __post_init__: settings that contradict each other
        raise ConfigError(f"{above.rstrip('.') or 'configuration'}: {error}") from None
