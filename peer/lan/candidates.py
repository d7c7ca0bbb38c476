"""Who was seen and has not answered yet, and what is known of the addresses that were named. Pure.

Addresses have the back-off, not those who claim them: an address that is named by many is asked once. Of those that
were never asked the latest comes first, and every fourth time the oldest, so that a flood of announcements delays
neither who comes after it, nor for ever who came before. Who was named by the operator, or has a lease here, comes
before who was only announced, two times of three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

from peer.lan.addresses import is_address
from peer.lan.hello import is_id, is_place, shown
from peer.lan.sightings import Sighting, SourceName

Key = tuple[SourceName, str]

FIRST_BACKOFF, LAST_BACKOFF = 1.0, 60.0
MAX_KEY = 128
MAX_ADDRESSES = 8
MAX_NAMED = 32
"""Sightings that name one address, and of which nobody knows who they are."""
SIGHTINGS_PER_HOST = 4
"""A host may be seen by each of the sources; and announcements are free to make, hosts are not."""
LASTS: Mapping[SourceName, float] = {"lease": 150.0, "told": 600.0}
"""Seconds for which a lease at the own scheduler counts as a sighting, and what another host told."""
MAX_TOLD, MAX_TOLD_BY_ONE = 256, 32
"""Sightings that others told of: at most in all, and of one of them as long as nobody answers there."""
GIVEN_UP = 4
"""Questions in vain after which is forgotten what another host told."""
NAMED_BACKOFF = 15.0
"""Seconds at most between questions to an address that the operator named."""
ANYBODYS = ("mdns", "lease", "told")
"""Sources in which anybody on the network can say what he likes."""
LONG_STEADY = 600.0
"""Seconds after which it is forgotten how often an address has become another host's, and until it may at most."""
KEPT = 60.0
"""Seconds for which an address is remembered that nobody names any more."""


def backoff(failures: int) -> float:
    """Seconds until the next question after so many in vain: 1, 2, 4 … 60."""
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(max(0, failures - 1), 16))


@dataclass(slots=True)
class Place:
    """An address. ``due`` is when it may be asked (again); ``verdict`` why who answered there was left out. ``host`` is
    the id that answers there; before ``steady`` it cannot be another one."""

    due: float
    claims: dict[Key, None] = field(default_factory=dict)
    asking: bool = False
    asked: float = -inf
    failures: int = 0
    conflicts: int = 0
    verdict: str = ""
    host: str = ""
    changes: int = 0
    steady: float = -inf

    def belongs(self, host: str, now: float) -> bool:
        """Whether it is now this host's that answers there. It may become another one's, but not again and again."""
        if self.host not in ("", host):
            if now < self.steady:
                return False
            self.changes = 1 if now - self.steady > LONG_STEADY else self.changes + 1
            self.steady = now + min(LONG_STEADY, 2.0 ** min(self.changes, 16))
        self.host = host
        return True

    def failed(self, now: float) -> None:
        """It was asked in vain."""
        self.failures += 1
        named = any(source in ("static", "dns") for source, _ in self.claims)
        self.due = now + min(backoff(self.failures), NAMED_BACKOFF if named else LAST_BACKOFF)


@dataclass(slots=True)
class Seen:
    """A sighting. ``host`` is the id that answered at one of its addresses, "" for none yet; ``teller`` that of the
    host that told of it."""

    sighting: Sighting
    due: float
    expires: float = inf
    host: str = ""
    teller: str = ""
    mismatched: bool = False


class Candidates:
    """Sightings, and those among them that have to be asked. ``ignored`` counts what is left out."""

    def __init__(self, limit: int, ignored: Counter[str]) -> None:
        self.seen: dict[Key, Seen] = {}
        self.places: dict[str, Place] = {}
        self._limit = limit
        self._ignored = ignored
        self._open: dict[Key, Seen] = {}
        self._urgent: dict[Key, None] = {}
        self._fresh: dict[Key, None] = {}
        self._turn = 0

    def add(self, sighting: Sighting, now: float) -> Seen | None:
        """A sighting, new or told again. None when it is left out."""
        checked = _checked(sighting)
        if checked is None:
            self._ignored["malformed"] += 1
            return None
        key = (checked.source, checked.key)
        known = self.seen.get(key)
        if known is None:
            if not self._make_room(now):
                self._ignored["full"] += 1
                return None
            known = self.seen[key] = Seen(checked, now)
            self._claim(key, known, now)
            self._wait(key, known, fresh=True)
        elif (known.sighting.id, known.sighting.addresses) != (checked.id, checked.addresses):
            self._unclaim(key, known, now)
            known.sighting, known.host = checked, ""
            self._claim(key, known, now)
            self._wait(key, known, fresh=True)
        else:
            known.sighting = checked
        if not known.host and checked.source != "told":
            self._told_again(known, now)
        known.expires = now + LASTS.get(checked.source, inf)
        return known

    def told(self, address: str, teller: str, now: float) -> None:
        """A host tells that somebody is at ``address``."""
        key: Key = ("told", address)
        if key not in self.seen:
            told = [known for (source, _), known in self.seen.items() if source == "told"]
            unproven = sum(known.teller == teller and not known.host for known in told)
            if len(told) >= MAX_TOLD or unproven >= MAX_TOLD_BY_ONE:
                self._ignored["full"] += 1
                return
        known = self.add(Sighting("told", address, (address,)), now)
        if known is not None:
            known.teller = known.teller or teller

    def remove(self, key: Key, now: float) -> Seen | None:
        """The sighting no longer holds."""
        known = self.seen.pop(key, None)
        if known is not None:
            self._close(key)
            self._unclaim(key, known, now)
        return known

    def resolve(self, key: Key, host: str) -> None:
        """It is this host."""
        self.seen[key].host = host
        self._close(key)

    def reopen(self, key: Key) -> None:
        """Who it is has to be found out again."""
        known = self.seen[key]
        known.host = ""
        self._wait(key, known, fresh=False)

    def due(self, now: float) -> tuple[Key, str] | None:
        """Whom to ask now, and where."""
        while (key := self._pick(now)) is not None:
            known = self._open[key]
            self._settle(known)
            if known.due <= now:
                return key, next(a for a in known.sighting.addresses if self.places[a].due <= now)
        return None

    def more(self, key: Key, address: str) -> bool:
        """Whether it has other addresses that were never asked."""
        others = (self.places[a] for a in self.seen[key].sighting.addresses if a != address)
        return any(place.asked == -inf for place in others)

    def earliest(self) -> float:
        """When somebody has to be asked next; inf for never."""
        if self._urgent or self._fresh:
            return -inf
        return min((known.due for known in self._open.values()), default=inf)

    def place(self, address: str, now: float) -> Place:
        """What is known of an address; after a change call ``touched``."""
        return self.places.setdefault(address, Place(now))

    def touched(self, address: str) -> None:
        """What is known of an address has changed: those who claim it wait until it is due."""
        for key in self.places[address].claims:
            if key in self._open:
                self._settle(self._open[key])

    def sweep(self, now: float) -> list[tuple[Key, Seen]]:
        """Drop what has run out; gives the sightings among it."""
        over = [item for item in self.seen.items() if item[1].expires <= now or self._given_up(*item)]
        for key, _ in over:
            self.remove(key, now)
        idle = [a for a, p in self.places.items() if not p.claims and not p.asking and p.asked + KEPT <= now]
        for address in idle:
            del self.places[address]
        return over

    def unresolved(self) -> Iterator[Seen]:
        """Sightings of whom nobody knows who they are."""
        return iter(self._open.values())

    # --- inside ----------------------------------------------------------------------------------------

    def _given_up(self, key: Key, known: Seen) -> bool:
        return key[0] == "told" and not known.host and self._failures(known) >= GIVEN_UP

    def _claim(self, key: Key, known: Seen, now: float) -> None:
        for address in known.sighting.addresses:
            claims = self.place(address, now).claims
            claims[key] = None
            if len(claims) > MAX_NAMED:
                self._drop_one(claims, key, now)

    def _drop_one(self, claims: Iterable[Key], new: Key, now: float) -> None:
        """Too many name one address: it is enough that it is asked for some of them."""
        for key in claims:
            if key != new and key[0] in ANYBODYS and not self.seen[key].host:
                self.remove(key, now)
                self._ignored["full"] += 1
                return

    def _unclaim(self, key: Key, known: Seen, now: float) -> None:
        for address in known.sighting.addresses:
            place = self.places[address]
            place.claims.pop(key, None)
            if not place.claims and not place.asking and place.asked + KEPT <= now:
                del self.places[address]

    def _told_again(self, known: Seen, now: float) -> None:
        """Perhaps it has just come back, or come where another one was."""
        for address in known.sighting.addresses:
            place = self.places[address]
            soon = max(now, place.asked + FIRST_BACKOFF)
            if soon < place.due:
                place.due = soon
                self.touched(address)

    def _wait(self, key: Key, known: Seen, *, fresh: bool) -> None:
        self._close(key)
        self._open[key] = known
        self._settle(known)
        if fresh:
            (self._fresh if key[0] in ("mdns", "told") else self._urgent)[key] = None

    def _close(self, key: Key) -> None:
        self._open.pop(key, None)
        self._fresh.pop(key, None)
        self._urgent.pop(key, None)

    def _settle(self, known: Seen) -> None:
        """One question at a time: the answer may be the end of it."""
        places = [self.places[a] for a in known.sighting.addresses]
        known.due = inf if any(p.asking for p in places) else min(p.due for p in places)

    def _pick(self, now: float) -> Key | None:
        self._turn += 1
        groups = (self._fresh, self._urgent) if self._turn % 3 == 0 else (self._urgent, self._fresh)
        for group in groups:
            if group:
                key = next(iter(group)) if self._turn % 4 == 0 else next(reversed(group))
                del group[key]
                return key
        first = min(self._open.items(), key=lambda item: item[1].due, default=None)
        return first[0] if first is not None and first[1].due <= now else None

    def _make_room(self, now: float) -> bool:
        if len(self.seen) < SIGHTINGS_PER_HOST * self._limit:
            return True
        victim = self._victim()
        if victim is None:
            return False
        self.remove(victim, now)
        self._ignored["full"] += 1
        return True

    def _victim(self) -> Key | None:
        """Who is forgotten for a newcomer: who failed most, or waits longest; nobody whom the operator named."""
        if 2 * len(self._fresh) >= self._limit:
            return next(iter(self._fresh))
        announced = ((key, known) for key, known in self._open.items() if key[0] in ANYBODYS)
        worst = max(announced, key=lambda item: self._failures(item[1]), default=None)
        return None if worst is None else worst[0]

    def _failures(self, known: Seen) -> int:
        return min(self.places[a].failures for a in known.sighting.addresses)


def _checked(sighting: Sighting) -> Sighting | None:
    """The sighting within bounds; None when nothing can be made of it."""
    fits = is_place if sighting.source in ANYBODYS else is_address
    addresses = tuple(dict.fromkeys(a for a in sighting.addresses[:MAX_ADDRESSES] if fits(a)))
    if not addresses or len(sighting.key) > MAX_KEY or (sighting.id and not is_id(sighting.id)):
        return None
    role = sighting.role if sighting.role in ("peer", "seeder", "scheduler") else ""
    return Sighting(sighting.source, sighting.key, addresses, sighting.id, role, shown(sighting.name))
