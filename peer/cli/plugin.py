"""``dragonet plugin``: which plugins there are, and what is wrong with those that are none.

Exit codes: 0 when every plugin can be used; 1 when one was refused, or when something is named like a plugin
and is none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from peer.cli.execution import UsageError, printable, run_command
from peer.cli.options import Common, load
from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.plugins import PluginRecord

plugin = App(name="plugin", help="List the plugins there are, or write a new one.", help_format="plaintext")

_WORDS = {"source": "resource"}
"""What a kind of plugin is called in the listing, where that is not the kind itself."""


@plugin.default
@plugin.command(name="list")
def list_plugins(
    *,
    json: Annotated[bool, Parameter(negative=(), help="As one JSON array of records.")] = False,
    running: Annotated[
        bool,
        Parameter(negative=(), help="Those of the daemon, with their states; nothing is tried out here."),
    ] = False,
    socket: Annotated[Path | None, Parameter(help="Unix socket of the daemon.")] = None,
    options: Common | None = None,
) -> int:
    """List the plugins and what is built in; each plugin is loaded once to see if it works."""
    config = load(options, {"peer.socket": socket}).config
    if running:
        from peer.client import LocalClient

        records = run_command(LocalClient(config.peer.socket).plugins)
        _print(records, json, (f"{describe(record)}{_state(record)}" for record in records))
        return int(any(record.state == "FAILED" for record in records))

    import contextlib

    from cdn.sources.plugins.survey import survey
    from shared.logging import configure

    configure("debug" if options is not None and options.verbose else "error", config.log.format)
    _note(f"search plugin in {config.source.plugin_dir.absolute()}")
    with contextlib.redirect_stdout(sys.stderr):  # a plugin may print; the list is what is on stdout
        found = run_command(survey, config.source)
    usable = [record for record in found.records if record.state != "FAILED"]
    usable.sort(key=lambda record: record.in_tree)
    _print(found.records if json else usable, json, (describe(r, found.folder) + _needs(r) for r in usable))
    for record in found.records:
        if record.state == "FAILED":
            _note(f"not valid plugin {_place(record, found.folder)}: {record.reason}")
    for stray in found.strays:
        _note(stray.words)
    if all(record.in_tree for record in usable):
        _note("no plugin found")
    return int(found.refused)


@plugin.command
def init(
    kind: Annotated[str, Parameter(help="What it extends: source.")],
    name: Annotated[str, Parameter(help="Its name; for a source, the scheme that it reads.")],
    /,
    *,
    dir_: Annotated[
        Path, Parameter(name="--dir", help="Folder to write it to; made where there is none.")
    ] = Path(),
    options: Common | None = None,
) -> None:
    """Write a new plugin that works, and its test, ready to edit."""
    from peer.templates.writing import KINDS, write_source

    if kind not in KINDS:
        raise UsageError(f"there is no template for {kind!r} plugins: there is one for {', '.join(KINDS)}")
    config = load(options).config
    try:
        lines = write_source(name, dir_, config.source.plugin_dir)
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
    for line in lines:
        print(line)


def describe(record: PluginRecord, folder: Path | None = None) -> str:
    """One line for one plugin; a place in ``folder`` is told by its name there."""
    import msgspec

    attributes = msgspec.json.encode(dict(record.attributes), order="sorted").decode()
    word = _WORDS.get(record.kind, record.kind)
    return f"{word} plugin {record.name}, location: {_place(record, folder)}, attribute: {attributes}"


def _place(record: PluginRecord, folder: Path | None) -> str:
    path = Path(record.location)
    return path.name if folder is not None and path.parent == folder else record.location


def _needs(record: PluginRecord) -> str:
    return f", not usable: {record.reason}" if record.reason else ""


def _state(record: PluginRecord) -> str:
    return f", state: {record.state}" + (f", reason: {record.reason}" if record.reason else "")


def _print(records: list[PluginRecord], json: bool, lines: Iterable[str]) -> None:
    if json:
        import msgspec

        print(msgspec.json.encode([record.told() for record in records]).decode())
        return
    for line in lines:
        print(printable(line))


def _note(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
