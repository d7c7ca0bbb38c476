"""The next piece verified while the one before it is sent, so that a client waits for only one of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import DragonetError
from shared.store import TaskContent

if TYPE_CHECKING:
    from shared.swarm.host import Host

log = structlog.get_logger()


class Ahead:
    """Looks one piece ahead in one content, for one reader, in the host's nursery."""

    def __init__(self, host: Host, content: TaskContent) -> None:
        self._host = host
        self._content = content
        self._number = -1
        self._scope = trio.CancelScope()
        self._ended: trio.Event | None = None

    def look(self, number: int) -> None:
        """Begin to verify a piece, if it is held and was not verified since its content was opened."""
        content = self._content
        if number == self._number or number not in content.held or content.checked(number):
            return
        if self._ended is not None and not self._ended.is_set():
            return
        scope, ended = trio.CancelScope(), trio.Event()
        try:
            self._host.nursery.start_soon(self._verify, number, scope, ended)
        except RuntimeError:  # the host stops
            return
        self._number, self._scope, self._ended = number, scope, ended

    async def seen(self, number: int) -> None:
        """Return when nothing is being found out about this piece any more."""
        if number == self._number and self._ended is not None:
            await self._ended.wait()

    async def aclose(self) -> None:
        """Nothing is left of it afterwards."""
        self._scope.cancel()
        if self._ended is not None:
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    async def _verify(self, number: int, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with scope:
                (await self._content.open_piece(number)).close()
        except DragonetError as error:  # the reader will hear the same, and knows what to do
            log.debug("a piece cannot be read ahead", piece=number, cause=str(error))
        except Exception as error:
            log.error("reading ahead ended by a defect", piece=number, error=repr(error), exc_info=True)
        finally:
            ended.set()
