"""Runs a plugin's code for the first time: import, entry function, what it gave. Nothing of it is trusted.

The code runs in a thread of its own, so that a plugin that blocks for ever costs one thread and nothing
else; who waits for it has a deadline. Whatever goes wrong becomes :class:`PluginRefused`, in words.
"""

from __future__ import annotations

import inspect
import itertools
import re
import threading
import traceback
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from cdn.sources.interface import ResourceClient
from cdn.sources.plugins.attributes import WrongAttributes, check_attributes
from cdn.sources.plugins.checks import check_methods
from cdn.sources.plugins.guard import WATCH, Account, Use
from cdn.sources.plugins.ownership import UnsafePlace
from cdn.sources.plugins.places import ENTRY, FilePlace, NoEntry, Place
from cdn.sources.plugins.threads import Job
from cdn.sources.plugins.words import describe
from shared.errors import SourceError
from shared.units import write_size

MAX_WORDS = 500
"""Characters of what a plugin's own error is quoted with."""

_SECRET = re.compile(r"(?i)secret|token|password|passwd|key|credential|auth|signature")
_numbers = itertools.count(1)


class PluginRefused(SourceError):
    """The plugin cannot be used; the message says what it did, without naming it."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A client as the plugin gave it, with the methods that a client has, and the plugin's attributes."""

    client: ResourceClient
    attributes: dict[str, str]


class Loading:
    """One attempt to load a plugin. Begins at once, in a daemon thread; may be waited for again and again.

    ``signature`` is that of the place as it was before, ``memory`` what the code may take, in bytes (0: no
    limit). What is left of a plugin that is refused or given up in ``sys.modules`` is removed.
    """

    def __init__(
        self, place: Place, options: Mapping[str, str], signature: object = None, memory: int = 0
    ) -> None:
        self.place = place
        self.signature = signature
        self.doing = "its check"
        """What is being done: "its import", or the name of the entry function."""
        self.spoiled = False
        """Whether an async entry function was cancelled in the midst of its work."""
        self._options = dict(options)
        self._module = module_name(place.scheme)
        self._told = trio.Event()
        self._trio = trio.lowlevel.current_trio_token()
        self._use = Use(Account(memory))
        self._job = Job(self._run, self._explain, ended=self._ended)
        self._use.enter(self._job)
        WATCH.begin(self._use)
        threading.Thread(target=self._job.run, name=f"plugin {place.scheme}", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether code of the plugin still runs in the thread."""
        return not self._job.settled

    async def wait(self) -> LoadedPlugin:
        """The plugin, once it is there. Raises PluginRefused."""
        with self._use.cancelled_by(self._tell):
            await self._told.wait()
        if not self._job.succeeded or self._job.abandoned:
            self.forget()
            raise PluginRefused(self._why())
        made = self._job.value
        try:
            if inspect.isawaitable(made):
                self.doing = ENTRY
                made = await made
            return check_plugin(made, self.place.scheme)
        except trio.Cancelled:
            self.spoiled = True
            self.forget()
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            self.forget()
            raise self._explain(error) from None

    def give_up(self) -> None:
        """Nobody will wait any more; the code is stopped if it can be."""
        if self._job.abandon():
            WATCH.late(self._job)
        elif inspect.iscoroutine(self._job.value):
            self._job.value.close()
        self.forget()

    def forget(self) -> None:
        """Leave nothing of the plugin in ``sys.modules``."""
        self.place.forget(self._module)

    def _run(self) -> Any:
        self.place.check()
        self.doing = "its import"
        entry = self.place.entry(self._module)
        self.doing = ENTRY
        return entry(dict(self._options))

    def _explain(self, error: BaseException) -> PluginRefused:
        if isinstance(error, PluginRefused):
            return error
        return PluginRefused(hide_secrets(explain(error, self.place, self.doing), self._options))

    def _ended(self, job: Job[Any]) -> None:
        WATCH.end(self._use)
        self._use.leave(job)
        if job.abandoned:
            self.forget()
        self._tell()

    def _why(self) -> str:
        """Why there is no plugin."""
        if self._use.exceeded:
            self._job.abandon()
            size = write_size(self._use.account.memory)
            return f"{self.doing} took more than {size} of memory (source.plugin_memory)"
        return str(self._job.error or f"{self.doing} was stopped")

    def _tell(self) -> None:
        """Wake who waits; called in any thread."""
        try:
            self._trio.run_sync_soon(self._told.set)
        except trio.RunFinishedError:
            return  # the process is ending


def check_plugin(made: object, scheme: str) -> LoadedPlugin:
    """What an entry function gave, checked. Raises PluginRefused."""
    if not isinstance(made, tuple) or len(made) != 2:
        shown = f"{len(made)} values" if isinstance(made, tuple) else describe(made)
        raise PluginRefused(f"{ENTRY} gave {shown}, expected (client, attributes)")
    client, attributes = made
    if client is None:
        raise PluginRefused(f"{ENTRY} gave None as its client")
    try:
        checked = check_attributes(attributes, scheme)
        check_methods(client)
    except (WrongAttributes, SourceError) as error:
        raise PluginRefused(str(error)) from None
    return LoadedPlugin(client, checked)


def load_plugin(path: str | Path, options: Mapping[str, str] | None = None) -> ResourceClient:
    """The client of the plugin at ``path``, checked as a daemon would: for the plugin's own tests. Blocking.

    Raises PluginRefused, and whatever the plugin raises.
    """
    from cdn.sources.plugins.folder import scheme_of

    path = Path(path).resolve()
    scheme = scheme_of(path.name, path.is_dir())
    if not scheme:
        raise PluginRefused(f"{path.name} is not a plugin's name: call it d7y-resource-plugin-SCHEME.py")
    made = FilePlace(scheme, path).entry(module_name(scheme))(dict(options or {}))
    return check_plugin(trio.run(_result_of, made) if inspect.isawaitable(made) else made, scheme).client


async def _result_of(made: Awaitable[Any]) -> Any:
    return await made


def module_name(scheme: str) -> str:
    """A name for a plugin's module that no other module has or had."""
    return f"_dragonet_plugin_{next(_numbers)}_{re.sub('[^a-z0-9]', '_', scheme)}"


def explain(error: BaseException, place: Place, doing: str) -> str:
    """What the plugin did, in words: the line of its code that an error came from, and the error."""
    if isinstance(error, (UnsafePlace, NoEntry)):
        return str(error)
    if isinstance(error, FileNotFoundError) and doing == "its check":
        return "its file is gone"
    if isinstance(error, OSError) and doing == "its check":
        return f"its file cannot be read: {error.strerror}"
    root = getattr(place, "path", None)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        line = f"line {error.lineno}"
        if error.filename and Path(error.filename) != getattr(place, "code", None):
            line += f" of {Path(error.filename).name}"
        return f"{line}: {error.msg}"
    where = _line(error, root)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{where}it needs the module {error.name}, which is not installed"
    if isinstance(error, MemoryError):
        return f"{where}{doing} took more memory than there was for it (source.plugin_memory)"
    if isinstance(error, SystemExit):
        return f"{where}{doing} wanted to end the process (SystemExit)"
    words = " ".join(str(error).split())[:MAX_WORDS]
    return f"{where}{doing} raised {type(error).__name__}" + (f": {words}" if words else "")


def _line(error: BaseException, root: Path | None) -> str:
    """ "line 3: ", the last line of the plugin's own code that the error passed; "" when there is none."""
    if root is None:
        return ""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == root or root in Path(frame.filename).parents
    ]
    if not own:
        return ""
    of = "" if Path(own[-1].filename) == root else f" of {Path(own[-1].filename).name}"
    return f"line {own[-1].lineno}{of}: "


def hide_secrets(words: str, options: Mapping[str, str]) -> str:
    """``words`` without the values of options that are named like secrets."""
    for value in secrets_of(options):
        words = words.replace(value, "***")
    return words


def secrets_of(options: Mapping[str, str]) -> list[str]:
    """The values of options that are named like secrets."""
    return [value for name, value in options.items() if value and _SECRET.search(name)]
