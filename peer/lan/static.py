"""Hosts that the configuration names, for networks on which nobody can be heard."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from peer.lan.sightings import Sighting, Watcher


class StaticSource:
    """Tells each address ("HOST:PORT") once. They stay: a host that does not answer is asked again, less often."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))

    def __repr__(self) -> str:
        return f"<StaticSource {len(self._addresses)} addresses>"

    async def run(self, watcher: Watcher) -> None:
        """Tell the watcher, then wait until cancelled."""
        for address in self._addresses:
            watcher.seen(Sighting(source="static", key=address[:128], addresses=(address,)))
        await trio.sleep_forever()
