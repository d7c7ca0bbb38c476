"""A host that has answered, and when it is asked again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from peer.lan.candidates import Key, backoff
from shared.protocol import Hello

KEEN = 1.5
"""Seconds between questions to who is about to get a link, or was here a short time ago."""
CALM = 30.0
"""Seconds between questions to who is present and needs no link."""
LINKED = 300.0
"""Seconds between questions to who has a link, only for what it tells of itself."""
AWAY = 5.0
"""Seconds between questions to a host that was here a short time ago, while others decide."""
FIRST_LOOK = 2.0
"""As LINKED, at first and where mDNS tells of nobody: whom it knows meanwhile; twice as long each time."""
LACKING = 5.0
"""Seconds after which a host without the link that there should be is asked at its other addresses, too, and gives way
to another process with its id that answers there."""
RECENT = 600.0
"""Seconds for which a host that is gone is looked for often, and remembered."""
MAX_CLAIMS = 8
MAX_VERIFIED = 8


@dataclass(slots=True)
class KnownHost:
    """Somebody who has answered. Times are seconds of the roster's clock.

    ``address`` is the one in use, ``verified`` all that answered for this process of it. ``linked``: a link to it is
    connected; ``wanted``: there should be one. ``since``: the last change of ``present``; ``last``: the last sign of
    life. ``looks``: answers since there is a link; ``lacking``: since when there is none though there
    should be; ``turn``: questions so far;
    ``replaced``: another host answered at ``address``.
    ``tried``: addresses at which it did not answer, since it last did at one.
    """

    hello: Hello
    address: str
    rtt: float
    since: float
    last: float
    verified: dict[str, None] = field(default_factory=dict)
    claims: dict[Key, None] = field(default_factory=dict)
    present: bool = True
    linked: bool = False
    wanted: bool = False
    asking: bool = False
    asked: float = -inf
    due: float = inf
    failures: int = 0
    looks: int = 0
    turn: int = 0
    lacking: float | None = None
    replaced: bool = False
    tried: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The host's id."""
        return self.hello.id

    @property
    def schedules(self) -> bool:
        """Whether leases are granted there."""
        return self.hello.schedules or self.hello.role == "scheduler"

    def answered(self, hello: Hello, address: str, rtt: float, now: float) -> None:
        """It answered at an address of this process of it."""
        if hello.instance != self.hello.instance:
            self.verified.clear()
            self.lacking = None if self.lacking is None else now
        self.hello, self.last, self.failures, self.looks = hello, now, 0, self.looks + 1
        self.replaced = False
        if not self.present:
            self.present, self.since, self.address = True, now, address
            self.verified.clear()
        for silent in self.tried:
            self.verified.pop(silent, None)
        self.tried.clear()
        self.verified[address] = None
        if self.address not in self.verified:
            self.address = address
        if len(self.verified) > MAX_VERIFIED:
            del self.verified[next(a for a in self.verified if a != self.address)]
        if address == self.address:
            self.rtt = rtt

    def link(self, now: float, *, linked: bool, wanted: bool) -> None:
        """Whether there is a link to it, and whether there should be."""
        if linked and not self.linked:
            self.looks = 0
        self.linked, self.wanted = linked, wanted
        if linked or not wanted:
            self.lacking = None
        elif self.lacking is None:
            self.lacking = now
        if linked:
            self.last = now
            if not self.present:
                self.present, self.since = True, now

    def lost(self, now: float) -> None:
        """It does not answer at any address. Where another one does, the link is no longer to it."""
        self.tried.clear()
        self.failures += 1
        self.linked = self.linked and not self.replaced
        if self.present and not self.linked:
            self.present, self.since = False, now

    def pause(self, *, ring: bool) -> float:
        """Seconds until the next question. ``ring``: the hosts themselves decide."""
        if self.linked:
            return backoff(self.failures) if self.failures else self._look()
        keen = ring or self.hello.role == "scheduler"
        if self.present:
            return KEEN if self.wanted else AWAY if self.hello.role == "scheduler" else CALM
        if not self.claims:
            return backoff(self.failures)
        return KEEN if keen else AWAY

    def holds(self, now: float) -> bool:
        """Whether it keeps its id though another process claims it: it has a link, or has still time for one."""
        return self.present and (self.lacking is None or now - self.lacking < LACKING)

    def _look(self) -> float:
        heard = any(source == "mdns" for source, _ in self.claims)
        return LINKED if heard else min(LINKED, FIRST_LOOK * 2.0 ** min(self.looks, 16))
