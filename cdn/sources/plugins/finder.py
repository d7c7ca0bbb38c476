"""Finds plugins, and loads each when its scheme is first asked for.

Looking for plugins runs nothing of them: the plugin folder's names and the packages' entry points tell the
schemes. For each scheme there is one plugin at most:

* a plugin for a scheme that is built in is refused, and the built-in source goes on;
* where one is loaded already, it goes on, and a second one is refused;
* of several that nobody has asked for yet, none is loaded until all but one are removed.

A plugin that failed is tried again when something of it has changed, and after :data:`RETRY` seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
import structlog
import trio

from cdn.config import SourceConfig
from cdn.sources.interface import AsyncResourceClient
from cdn.sources.plugins.folder import PREFIX, PluginFolder, Stray
from cdn.sources.plugins.intree import in_tree_records
from cdn.sources.plugins.loading import LoadedPlugin, Loading, PluginRefused, secrets_of
from cdn.sources.plugins.packages import GROUP, PluginPackages
from cdn.sources.plugins.places import Place
from cdn.sources.registry import Opener
from shared.errors import SourceError
from shared.plugins import PluginKind, PluginRecord, PluginRegistry, PluginState
from shared.plugins.registry import conflict_words

log = structlog.get_logger()

RETRY = 60.0
"""Seconds after which a plugin that failed is tried again although nothing of it has changed."""


class PluginFinder:
    """The plugins of a host; implements ``cdn.sources.registry.Finder``. Its records are in ``plugins``."""

    def __init__(self, config: SourceConfig, plugins: PluginRegistry) -> None:
        self.plugins = plugins
        self.folder = PluginFolder(config.plugin_dir.absolute())
        self._packages = PluginPackages()
        self._config = config
        self._seen: tuple[Place, ...] | None = None
        self._found: dict[str, list[FoundPlugin]] = {}
        self._built_in: set[str] = set()
        for record in in_tree_records(config):
            plugins.add(record)
            self._built_in.add(record.name)
        plugins.watch(self.look)

    @property
    def places(self) -> str:
        """Where plugins are looked for, in words."""
        return f"{self.folder.path}/{PREFIX}SCHEME.py and in installed packages (entry points {GROUP})"

    @property
    def strays(self) -> list[Stray]:
        """What was found that is no plugin; and why the folder cannot be listed, where it cannot."""
        return [*self.folder.strays, *self._packages.strays]

    def schemes(self) -> Iterable[str]:
        """The schemes that there are plugins for now, the ones that failed among them. Runs no plugin."""
        self.look()
        return [scheme for scheme in self._found if scheme not in self._built_in]

    def find(self, scheme: str) -> Opener | None:
        """How the plugin for a scheme is opened; None when there is none. Runs no plugin."""
        self.look()
        scheme = scheme.lower()
        if scheme in self._built_in or scheme not in self._found:
            return None
        return partial(self._open, scheme)

    def look(self) -> None:
        """Note what was added and removed since the last time."""
        places: tuple[Place, ...] = (*self.folder.places(), *self._packages.places())
        if places == self._seen:
            return
        self._seen = places
        there = set(places)
        known = {found.place for group in self._found.values() for found in group}
        for scheme, group in list(self._found.items()):
            for found in [found for found in group if found.place not in there and not found.in_use]:
                found.remove()
                group.remove(found)
            if not group:
                del self._found[scheme]
        for place in dict.fromkeys(places):
            if place not in known:
                found = FoundPlugin(place, self._config, self.plugins)
                self._found.setdefault(place.scheme, []).append(found)
        for scheme, group in self._found.items():
            self._decide(scheme, group)

    def _decide(self, scheme: str, group: list[FoundPlugin]) -> None:
        """Who of those that want to read a scheme may."""
        first = next((found for found in group if found.in_use), None)
        chosen: FoundPlugin | None = None
        if scheme in self._built_in:
            words = f"{scheme}:// is built in: remove the plugin, or give it another scheme"
        elif first is not None:
            chosen = first
            words = f"{scheme}:// is read by {first.place.location} already: remove one of them, and restart"
        elif len(group) > 1:
            words = conflict_words(
                PluginKind.SOURCE, scheme, tuple(sorted(found.place.location for found in group))
            )
        else:
            chosen, words = group[0], ""
        for found in group:
            if found is not chosen:
                found.refuse(words)
        if chosen is not None:
            chosen.allow()

    async def _open(self, scheme: str) -> AsyncResourceClient:
        self.look()
        group = self._found.get(scheme, [])
        if not group:
            raise SourceError(f"the plugin for {scheme}:// is gone", fault="reader")
        allowed = next((found for found in group if not found.refused), group[0])
        try:
            return await allowed.open()
        finally:
            self._seen = None  # what was removed while it was loaded is noted the next time


class FoundPlugin:
    """One plugin: its place, its record, and how it fared."""

    def __init__(self, place: Place, config: SourceConfig, plugins: PluginRegistry) -> None:
        self.place = place
        self.refused = ""
        """Why it may not be loaded at all; "" where it may."""
        self._config = config
        self._options = config.options.get(place.scheme, {})
        self._plugins = plugins
        self._record = PluginRecord(
            kind=PluginKind.SOURCE, name=place.scheme, location=place.location, version=place.version
        )
        self._noted = False
        self._loading: Loading | None = None
        self._failure: tuple[float, object, str] | None = None

    @property
    def name(self) -> str:
        """The plugin in words: its scheme and its place."""
        return f"{self.place.scheme} ({self.place.location})"

    @property
    def in_use(self) -> bool:
        """Whether code of it runs, or has to be thought to."""
        return self.state in (PluginState.STARTING, PluginState.ACTIVE, PluginState.STOPPING)

    @property
    def state(self) -> PluginState:
        """As its record says."""
        return self._record.state

    def refuse(self, words: str) -> None:
        """It may not be loaded, and its record says why."""
        if words != self.refused:
            self.refused = words
            self._note(PluginState.FAILED, words)
            log.warning("plugin refused", location=self.place.location, reason=words)

    def allow(self) -> None:
        """It may be loaded when its scheme is asked for. Does nothing where it could be before."""
        if self.refused or not self._noted:
            self.refused = ""
            self._note(PluginState.INACTIVE)

    def remove(self) -> None:
        """It is gone, and so is its record."""
        self._plugins.remove(self._record)
        if self._loading is not None:
            self._loading.give_up()

    async def open(self) -> AsyncResourceClient:
        """Load it. Raises SourceError (fault "reader") that names the plugin and what it did."""
        from cdn.sources.plugins.adapter import adapt  # only here: who has no plugins starts without it

        try:
            if self.refused:
                raise PluginRefused(self.refused)
            loaded = await self._load()
        except PluginRefused as error:
            raise SourceError(
                f"the source plugin {self.name} cannot be used: {error}", fault="reader"
            ) from None
        return adapt(
            loaded.client,
            name=self.name,
            timeout=self._config.plugin_timeout,
            memory=self._config.plugin_memory,
            secrets=secrets_of(self._options),
        )

    async def _load(self) -> LoadedPlugin:
        signature = await self._signature()
        if self._failure is not None:
            when, failed, words = self._failure
            blocked = self._loading is not None and self._loading.running
            if signature == failed and (blocked or trio.current_time() < when + RETRY):
                raise PluginRefused(words)
        self._note(PluginState.STARTING)
        try:
            loaded = await self._attempt(signature)
        except PluginRefused as error:
            self._failure = (trio.current_time(), signature, str(error))
            self._note(PluginState.FAILED, str(error))
            log.warning("plugin refused", location=self.place.location, reason=str(error))
            raise
        except BaseException:
            self._note(PluginState.INACTIVE)  # who asked has gone; the next one waits for the same attempt
            raise
        self._failure = None
        self._note(PluginState.ACTIVE, attributes=loaded.attributes)
        log.info("plugin loaded", scheme=self.place.scheme, location=self.place.location)
        return loaded

    async def _attempt(self, signature: object) -> LoadedPlugin:
        """Load it, or wait for the attempt that still runs. Raises PluginRefused."""
        loading, timeout = self._loading, self._config.plugin_timeout
        if loading is None or loading.spoiled or loading.signature != signature or self._failure is not None:
            if loading is not None:
                loading.give_up()
            loading = self._loading = Loading(
                self.place, self._options, signature, self._config.plugin_memory
            )
        with trio.move_on_after(timeout):
            try:
                loaded = await loading.wait()
            except PluginRefused:
                self._loading = None
                raise
            self._loading = None
            return loaded
        loading.give_up()
        raise PluginRefused(f"{loading.doing} did not end within {timeout:g} s (source.plugin_timeout)")

    async def _signature(self) -> object:
        try:
            with trio.fail_after(self._config.plugin_timeout):
                return await trio.to_thread.run_sync(self.place.signature, abandon_on_cancel=True)
        except OSError as error:
            return str(error)
        except trio.TooSlowError:
            raise PluginRefused("its files cannot be looked at: their disk does not answer") from None

    def _note(
        self, state: PluginState, reason: str = "", attributes: Mapping[str, str] | None = None
    ) -> None:
        """Have its record say so."""
        if self._noted and state is not self._record.state:
            told = attributes or {}
            self._record = self._plugins.change(
                self._record,
                state,
                reason=reason,
                attributes=attributes,
                vendor=told.get("vendor"),
                version=self.place.version or told.get("version"),
            )
            return
        self._plugins.remove(self._record)
        self._record = msgspec.structs.replace(self._record, state=state, reason=reason)
        self._plugins.add(self._record)
        self._noted = True

    def __repr__(self) -> str:
        return f"<FoundPlugin {self.place.location} {self.state}>"
