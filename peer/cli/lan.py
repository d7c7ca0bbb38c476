"""``dragonet lan``: who is there, and who schedules."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

from cyclopts import Parameter

from peer.cli.execution import complain, run_command
from peer.cli.options import Common, load

if TYPE_CHECKING:
    from peer.config import Config
    from peer.lan.views import LanView

INTERVAL = 1.0
"""Seconds between two views with ``--watch``."""
PROBE_EVERY = 5
"""With ``--watch``, each so manieth view asks everybody anew: a command that is left open costs the others little."""

Look = Callable[[bool], Awaitable["LanView"]]
"""Gives a view; True: after asking everybody anew."""


def lan(
    *,
    watch: Annotated[
        bool,
        Parameter(negative=(), help="Keep it live; one JSON object a second where stdout is no terminal."),
    ] = False,
    json: Annotated[bool, Parameter(negative=(), help="As one JSON object.")] = False,
    socket: Annotated[Path | None, Parameter(help="Unix socket of the daemon.")] = None,
    options: Common | None = None,
) -> None:
    """Show which hosts and schedulers are there, and who schedules. Without a daemon the command looks for itself."""
    config = load(options, {"peer.socket": socket}).config
    if watch:
        raise run_command(_watch, config, socket is not None, json or not sys.stdout.isatty())
    view = run_command(_once, config, socket is not None)
    if json:
        _print_json(view)
        return
    from peer.cli.lan_table import lan_lines

    print("\n".join(lan_lines(view, time.time())))


async def _once(config: Config, named: bool) -> LanView:
    async with looking(config, named) as look:
        return await look(True)


async def _watch(config: Config, named: bool, json: bool) -> BrokenPipeError:
    """Until cancelled, or until nobody reads any more: then the error that tells so is given back.

    ``named``: the socket was named on the command line; ``json``: lines for programs.
    """
    import trio

    async with looking(config, named) as look:
        with nullcontext(_print_json) if json else screen(sys.stdout) as show:
            for number in itertools.count():
                view = await look(number % PROBE_EVERY == 0)
                try:
                    show(view)
                except BrokenPipeError as error:
                    return error
                await trio.sleep(INTERVAL)
    raise AssertionError("unreachable")


@asynccontextmanager
async def looking(config: Config, named: bool) -> AsyncIterator[Look]:
    """Through the daemon's eyes or, where none runs (and its socket was not ``named``), one's own.

    Raises NoDaemon.
    """
    from peer.client import LocalClient, NoDaemon

    client = LocalClient(config.peer.socket)
    try:
        view = await client.lan(probe=True)
    except NoDaemon as error:
        if named:
            raise
        absence = str(error)
    else:
        first = [view]

        async def ask(probe: bool) -> LanView:
            return first.pop() if first else await client.lan(probe=probe)

        yield ask
        return
    from peer.lan.looking import open_looker

    complain(f"{absence}; until then this command looks for itself")
    async with open_looker(config) as looker:
        yield looker.view


def screen(stream: TextIO) -> AbstractContextManager[Callable[[LanView], None]]:
    """The whole terminal, given back as it was; views are drawn on it."""
    from peer.cli.lan_screen import LanScreen

    return LanScreen(stream)


def _print_json(view: LanView) -> None:
    import msgspec

    print(msgspec.json.encode(view).decode(), flush=True)
