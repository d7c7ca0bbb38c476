"""Which client reads which scheme; clients are opened when their scheme is first asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio

from cdn.sources.interface import AsyncResourceClient
from shared.errors import ConfigError, SourceError

Opener = Callable[[], Awaitable[AsyncResourceClient]]
"""Makes the client of a scheme. Raises SourceError in words when it cannot."""


class Finder(Protocol):
    """Where further schemes come from: the plugins that are installed."""

    @property
    def places(self) -> str:
        """Where plugins are looked for, in words."""

    def schemes(self) -> Iterable[str]:
        """The schemes that there are plugins for now."""

    def find(self, scheme: str) -> Opener | None:
        """How the plugin for a scheme is opened; None when there is none."""


class NoPlugins:
    """A finder that finds nothing."""

    places = "nowhere"

    def schemes(self) -> Iterable[str]:
        """None."""
        return ()

    def find(self, scheme: str) -> Opener | None:
        """Never any."""
        return None


class SourceRegistry:
    """Resource clients by scheme; schemes are compared in lower case."""

    def __init__(self, finder: Finder | None = None) -> None:
        self._clients: dict[str, AsyncResourceClient] = {}
        self._openers: dict[str, Opener] = {}
        self._finder: Finder = finder or NoPlugins()
        self._lacking: dict[str, str] = {}
        self._opening: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    def register(self, scheme: str, client: AsyncResourceClient) -> None:
        """Have ``client`` read URLs of ``scheme``. Raises ConfigError when another client does already."""
        known = self._clients.setdefault(scheme.lower(), client)
        if known is not client:
            raise ConfigError(
                f"two sources want to read {scheme}:// ({type(known).__name__} and {type(client).__name__}): "
                "remove one of them"
            )

    def offer(self, scheme: str, opener: Opener) -> None:
        """Have the client that ``opener`` makes read URLs of ``scheme``, once they are asked for."""
        self._openers[scheme.lower()] = opener

    def lack(self, scheme: str, words: str) -> None:
        """Say, to whoever asks for ``scheme``, what is needed before this host can read it."""
        self._lacking[scheme.lower()] = words

    async def get(self, scheme: str) -> AsyncResourceClient:
        """The client for a scheme. Raises SourceError (fault "reader": another host may have one)."""
        scheme = scheme.lower()
        if scheme not in self._clients:
            opener = self._opener(scheme)
            async with self._opening[scheme]:  # a source that takes long to open keeps no other one waiting
                if scheme not in self._clients:
                    self._clients[scheme] = await opener()
        return self._clients[scheme]

    def _opener(self, scheme: str) -> Opener:
        opener = self._openers.get(scheme) or self._finder.find(scheme)
        if opener is None and scheme in self._lacking:
            raise SourceError(f"this host cannot read {scheme}://: {self._lacking[scheme]}", fault="reader")
        if opener is None:
            known = ", ".join(self.schemes()) or "none"
            raise SourceError(
                f"this host cannot read {scheme}:// (it reads: {known}): install a plugin for it; "
                f"plugins are looked for in {self._finder.places}",
                fault="reader",
            )
        return opener

    def schemes(self) -> list[str]:
        """All known schemes, sorted."""
        return sorted({*self._clients, *self._openers, *self._finder.schemes()})

    async def close(self) -> None:
        """Close every client that was opened."""
        clients = {id(client): client for client in self._clients.values()}
        self._clients.clear()
        for client in clients.values():
            await client.close()

    def __contains__(self, scheme: object) -> bool:
        if not isinstance(scheme, str):
            return False
        scheme = scheme.lower()
        return scheme in self._clients or scheme in self._openers or self._finder.find(scheme) is not None

    def __repr__(self) -> str:
        return f"<SourceRegistry {' '.join(self.schemes())}>"
