"""What a reader of content needs in the background: its pieces brought, its digest looked after.

It goes on where a download would end. Once a reader has given out a part, it cannot begin anew: so whatever
source remains is tried again, for as long as there is hope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import DragonetError, SourceError, Unavailable
from shared.nursery import open_nursery
from shared.protocol import Failure
from shared.store import TaskContent
from shared.swarm.generations import MovedOn
from shared.swarm.pace import backoff
from shared.swarm.session import removed
from shared.swarm.task import HostTask
from shared.swarm.vouched import Unvouched, check_vouched, see_vouched
from shared.task.identity import TaskSpec

if TYPE_CHECKING:
    from shared.swarm.host import Host

log = structlog.get_logger()

STALL = 60.0
"""Seconds without a new piece after which a reader that has begun is given up."""
LONGEST_PAUSE = 8.0
"""Seconds between two attempts to get the rest, at most."""


class Supply:
    """Brings one task for one reader, in the host's nursery. What goes wrong is kept in ``error``."""

    def __init__(self, host: Host, task: HostTask, place: TaskSpec, *, cluster_only: bool) -> None:
        """``place`` is what its reader asked for: it hears what became of that one."""
        self.error: DragonetError | MovedOn | None = None
        self.trouble: DragonetError | None = None
        """Why the rest did not come so far, while it is still tried."""
        self.begun = False
        """A part was given out: failures are not the end."""
        self._host = host
        self._task = task
        self._place = place
        self._cluster_only = cluster_only
        self._confirmed = bool(task.spec.digest) or task.meta is None
        self._scope = trio.CancelScope()
        self._running = False
        self._ended = trio.Event()

    def start(self) -> None:
        """Begin, unless it has begun. Raises Unavailable when the host stops."""
        if self._running:
            return
        try:
            self._host.nursery.start_soon(self._run)
        except RuntimeError:
            raise _stopping() from None
        self._running = True

    async def described(self) -> TaskContent:
        """The content, once its length is known. Raises what ends the supply, MovedOn too.

        Of content that is held in part, and may have changed since, someone must have told it anew.
        """
        task = self._task
        while True:
            self.check()
            content = task.content
            if content is not None and content.layout is not None and (task.complete or self._confirmed):
                return content
            await task.pulse.wait()

    def check(self) -> None:
        """Raises what ended the supply, if anything did."""
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        """End it; nothing of it is left afterwards."""
        self._scope.cancel()
        if self._running:
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    async def _run(self) -> None:
        task = self._task
        try:
            with self._scope:
                async with open_nursery() as nursery:
                    nursery.start_soon(see_vouched, task)
                    await self._keep_coming()
        except Unvouched as error:
            self.error = error
            if not task.closed:
                self._host.metrics.verify_failures.inc()
                await self._host.tasks.refuse(task, Failure(str(error)))
        except (DragonetError, MovedOn) as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 – kept for the reader
            self.error = _told(error, task)
        finally:
            if self.error is None and not self._scope.cancel_called:
                self.error = _stopping()
            self._ended.set()
            task.pulse.beat()

    async def _keep_coming(self) -> None:
        task, failures, most = self._task, 0, -1
        progress_at = trio.current_time()
        while True:
            check_vouched(task)
            if task.closed:
                raise removed(task)
            if task.complete:
                await task.pulse.wait()
                continue
            try:
                await self._download()
            except (SourceError, Unavailable) as error:
                now = trio.current_time()
                if len(task.held) > most:
                    most, progress_at, failures = len(task.held), now, 0
                if not self.begun or now - progress_at > STALL:
                    raise
                self.trouble = error
                failures += 1
                log.info("a reader needs the rest: trying again", task=task.id, cause=str(error))
                await trio.sleep(backoff(failures, most=LONGEST_PAUSE))

    async def _download(self) -> None:
        task, held = self._task, len(self._task.held)
        async with self._host.sessions.join(task, cluster_only=self._cluster_only, limit=0) as session:
            while not (task.complete or session.ended):
                session.check(self._place)
                if not self._confirmed and (session.begun or len(task.held) != held):
                    self._confirmed = True
                    task.pulse.beat()
                await task.pulse.wait()
            if not task.complete:
                session.check(self._place)

    def __repr__(self) -> str:
        state = "ended" if self._ended.is_set() else "running" if self._running else "idle"
        return f"<Supply of {self._task!r}, {state}>"


def _told(error: Exception, task: HostTask) -> DragonetError:
    """Of several errors at once the first that is one of ours."""
    parts = error.exceptions if isinstance(error, ExceptionGroup) else ()
    for part in parts:
        if isinstance(part, DragonetError):
            return part
    log.error("a reader's supply ended by a defect", task=task.id, error=repr(error), exc_info=True)
    return DragonetError(f"the download ended by a defect in dragonet: {error!r}")


def _stopping() -> Unavailable:
    return Unavailable("this host is stopping: try again later")
