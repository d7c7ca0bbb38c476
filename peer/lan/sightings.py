"""What a source of discovery tells: somebody may be found at these addresses. A hint, until it has been asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

SourceName = Literal["mdns", "static", "dns", "lease", "told"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Somebody was seen ("told": another host told of it, see ``peer.lan.knows``).

    ``source`` and ``key`` (unique within its source, at most 128 characters) name the sighting. ``addresses`` are
    "HOST:PORT" (IPv6 in brackets, link-local ones with their zone), best first, at most 8. What is not told by the
    source is "": ``id``, ``role`` ("peer", "seeder", "scheduler"), ``name`` of the machine.
    """

    source: SourceName
    key: str
    addresses: tuple[str, ...]
    id: str = ""
    role: str = ""
    name: str = ""


class Watcher(Protocol):
    """Who is told of sightings; always in the trio thread."""

    def seen(self, sighting: Sighting) -> None:
        """Somebody was seen, anew or with other addresses."""

    def gone(self, source: SourceName, key: str) -> None:
        """The sighting no longer holds: a goodbye, or an address that is no longer listed."""

    def ignored(self, reason: Literal["cluster", "protocol", "malformed", "self", "full"]) -> None:
        """A sighting was left out."""


class Source(Protocol):
    """A way to find others. Its ``run`` never raises but for defects: troubles are logged and tried again."""

    async def run(self, watcher: Watcher) -> None:
        """Tell the watcher what is seen, until cancelled."""
