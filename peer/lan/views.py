"""Who is there, for people and programs: what ``dragonet lan`` and ``GET /v1/lan`` show."""

from __future__ import annotations

from typing import Literal

import msgspec

Presence = Literal["present", "absent", "unknown"]
Mode = Literal["configured", "scheduler", "ring", "alone"]


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A host, or a scheduler (``role`` "scheduler"), as it was last seen.

    ``state``: it answers; it did, and does not now; or it was announced only, and has not answered yet. ``address``
    ("HOST:PORT") is the one in use, ``addresses`` all of them. ``rtt`` is in seconds. ``found`` are the sources that
    tell of it. ``tasks`` and ``held`` (bytes) are what it holds. ``member``: it is used now, as one of the ring or as a
    scheduler. ``schedules``: leases are granted there. ``since`` (Unix seconds) is when the state last changed.
    """

    id: str
    name: str = ""
    role: str = ""
    address: str = ""
    addresses: tuple[str, ...] = ()
    version: str = ""
    location: str = ""
    state: Presence = "unknown"
    rtt: float | None = None
    found: tuple[str, ...] = ()
    tasks: int = 0
    held: int = 0
    member: bool = False
    schedules: bool = False
    since: float = 0.0


class LanView(msgspec.Struct, frozen=True, kw_only=True):
    """The LAN as one host sees it.

    ``here`` is this host, ``hosts`` are the others. ``schedulers`` are the URLs of those that decide, where it is not
    the hosts themselves. ``ignored`` counts what was left out, by reason. ``discovery`` is False where nobody is
    looked for.
    """

    here: HostView
    cluster: str = "default"
    mode: Mode = "alone"
    schedulers: tuple[str, ...] = ()
    hosts: tuple[HostView, ...] = ()
    ignored: dict[str, int] = msgspec.field(default_factory=dict)
    discovery: bool = True
