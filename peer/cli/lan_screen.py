"""The LAN on a whole terminal, drawn anew with each view (``dragonet lan --watch``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from peer.cli.lan_table import lan_lines

if TYPE_CHECKING:
    from peer.lan.views import LanView


class LanScreen:
    """A context manager that takes the alternate screen and gives it back; its value draws a view."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._live = Live(
            _text(["looking …"]),
            console=Console(file=stream, highlight=False, emoji=False, markup=False),
            screen=True,
            auto_refresh=False,
        )

    def __enter__(self) -> Callable[[LanView], None]:
        self._live.start(refresh=True)
        return self.draw

    def draw(self, view: LanView) -> None:
        """Show this view; what does not fit is cut off."""
        now = self._clock()
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        self._live.update(_text([*lan_lines(view, now), "", f"{stamp}, Ctrl-C ends"]), refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def _text(lines: list[str]) -> Text:
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
