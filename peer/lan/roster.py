"""Who is on the LAN: who was seen, who answered, whom to ask next. Pure: time is passed in.

A sighting is a hint. Whoever is seen is asked who it is (``take`` gives the questions); who answers with the right
cluster and protocol is a host, under the id it tells itself. A host is present while it answers, or while a link to
it is connected. One that is gone is looked for often for ten minutes, and is forgotten then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from math import inf
from random import Random

from peer.lan.candidates import Candidates, Key, Place
from peer.lan.hello import ANSWER, Refusal
from peer.lan.hosts import KEEN, LINKED, MAX_CLAIMS, RECENT, KnownHost
from peer.lan.knows import on_loopback, some, told
from peer.lan.questions import Ask, Result
from peer.lan.sightings import Sighting, SourceName
from peer.lan.turns import Lane, Turns
from peer.lan.twins import NEWCOMER
from shared.protocol import MAX_KNOWS, PROTOCOL_VERSION, Hello

SHORT = 0.5
"""Seconds for an answer at the first time, where there are other addresses to try."""
HINT_PAUSE = 0.5
"""Seconds at least between two questions to a host because of a hint."""
SELF_PAUSE = 60.0


class Roster:
    """See the module. ``ignored`` counts what was left out, by reason."""

    def __init__(self, me: tuple[str, str], cluster: str, max_hosts: int) -> None:
        """``me``: the own id, and the own process's."""
        self.me = me
        self.ring = False
        self.hosts: dict[str, KnownHost] = {}
        self.ignored: Counter[str] = Counter()
        self._cluster = cluster
        self._max_hosts = max_hosts
        self._candidates = Candidates(max_hosts, self.ignored)
        self._turns = Turns()

    # --- hints -----------------------------------------------------------------------------------------

    def seen(self, sighting: Sighting, now: float) -> None:
        """A source tells of somebody."""
        key: Key = (sighting.source, sighting.key)
        before = self._candidates.seen.get(key)
        host_before = "" if before is None else before.host
        known = self._candidates.add(sighting, now)
        if known is None:
            return
        if host_before and not known.host:  # it names other addresses now
            self._unclaimed(key, host_before, now)
        if not known.host:
            host = self._host_at(known.sighting)
            if host is not None:
                self._resolve(key, host, now)
        host = self.hosts.get(known.host or known.sighting.id)
        if host is not None and not host.present:
            self._ask_soon(host, now)

    def gone(self, source: SourceName, key: str, now: float) -> None:
        """A sighting no longer holds."""
        known = self._candidates.remove((source, key), now)
        if known is not None:
            self._unclaimed((source, key), known.host, now)

    def disturbed(self, now: float) -> None:
        """This process stood still, or the network has changed: everybody is asked anew."""
        for host in self.hosts.values():
            host.due = now

    def links(self, wanted: Collection[str], connected: Collection[str], now: float) -> None:
        """To whom there should be links, and to whom there are."""
        for host in self.hosts.values():
            was_linked, was_wanted = host.linked, host.wanted
            host.link(now, linked=host.id in connected, wanted=host.id in wanted)
            if host.linked:
                if not was_linked and not host.asking:
                    host.due = now + host.pause(ring=self.ring)
            elif was_linked or (host.wanted and not was_wanted and now - host.last > KEEN):
                self._ask_soon(host, now)
            elif host.wanted and not was_wanted and not host.asking:
                host.due = min(host.due, now + KEEN)

    def renamed(self, me: tuple[str, str], now: float) -> None:
        """This host has another id: whoever has the former one may be asked again."""
        self.me = me
        for address, place in self._candidates.places.items():
            if place.verdict == "same_id":
                place.due = now
                self._candidates.touched(address)

    # --- questions -------------------------------------------------------------------------------------

    def take(self, now: float) -> list[Ask]:
        """Whom to ask now; each one is answered by ``answered`` or ``failed``."""
        asks = []
        while True:
            host = self._next_host()
            known = host is not None and host.due <= now
            lane = self._turns.take(now, known=known, new=self._candidates.earliest() <= now)
            if lane == "known" and host is not None:
                asks.append(self.ask(host, now, lane))
            elif lane == "new":
                due = self._candidates.due(now)
                if due is None:
                    self._turns.undo(lane)
                    continue
                key, address = due
                timeout = SHORT if self._candidates.more(key, address) else ANSWER
                asks.append(self._asking(Ask(address, timeout, lane, key=key), now))
            else:
                return asks

    def ask(self, host: KnownHost, now: float, lane: Lane | None = None) -> Ask:
        """Ask a host, out of turn where it has no lane."""
        untried = [a for a in self._addresses(host) if a not in host.tried] or [host.address]
        address = untried[0 if host.holds(now) or not host.present else host.turn % len(untried)]
        host.turn += 1
        host.asking, host.asked, host.due = True, now, inf
        return self._asking(Ask(address, ANSWER, lane, host=host.id), now)

    def ask_unknown(self, now: float, most: int) -> list[Ask]:
        """Ask those who have not answered yet, at all their addresses and out of turn; ``most`` questions at most."""
        asks: list[Ask] = []
        for sighting in list(islice(self.unknown(), most)):
            for address in sighting.addresses:
                if len(asks) < most and not self._candidates.places[address].asking:
                    key: Key = (sighting.source, sighting.key)
                    asks.append(self._asking(Ask(address, ANSWER, None, key=key), now))
        return asks

    def next_due(self, now: float) -> float:
        """When ``take`` may give something next; inf: not before something happens."""
        host = self._next_host()
        known = inf if host is None else host.due
        return self._turns.earliest(now, known=known, new=self._candidates.earliest())

    def answered(self, ask: Ask, hello: Hello, rtt: float, now: float) -> Result:
        """Somebody answered (in a form that holds, see ``parse_hello``) within ``rtt`` seconds."""
        self._over(ask)
        place = self._candidates.place(ask.address, now)
        result = self._judge(hello, place, now)
        if result in ("ok", "mismatch"):
            result = self._accept(ask, hello, place, rtt, now)
        if result in ("cluster", "protocol", "self", "same_id") and place.verdict != result:
            self.ignored["conflict" if result == "same_id" else result] += 1
        place.verdict = "" if result in ("ok", "mismatch") else result
        if ask.host and (ask.host != hello.id or place.verdict):
            self._unanswered(ask, now, replaced=ask.host != hello.id)
        self._candidates.touched(ask.address)
        return result

    def failed(self, ask: Ask, reason: Refusal, now: float) -> Result:
        """Nobody answered, or not in a form that holds."""
        self._over(ask)
        place = self._candidates.place(ask.address, now)
        place.failed(now)
        if reason == "malformed" and place.verdict != reason:
            self.ignored[reason] += 1
        place.verdict = reason
        if ask.host:
            self._unanswered(ask, now)
        self._candidates.touched(ask.address)
        return reason

    def abandoned(self, ask: Ask, now: float) -> None:
        """The question was given up."""
        self._over(ask)
        host = self.hosts.get(ask.host)
        if host is not None:
            host.due = now + KEEN
        self._candidates.touched(ask.address)

    # --- what is known ---------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Forget what has run out. To be called every few seconds."""
        for key, known in self._candidates.sweep(now):
            self._unclaimed(key, known.host, now)
        for host in [
            h for h in self.hosts.values() if not h.present and now - h.last > RECENT and not h.asking
        ]:
            self._forget(host)

    def sources(self, host: KnownHost) -> tuple[SourceName, ...]:
        """How a host was found."""
        return tuple(dict.fromkeys(source for source, _ in host.claims))

    def addresses(self, host: KnownHost) -> tuple[str, ...]:
        """All addresses of a host, the one in use first."""
        return tuple(self._addresses(host))

    def knows(self, rng: Random, *, loopback: bool) -> tuple[str, ...]:
        """Whom to tell others of; ``loopback``: one on this machine."""
        places = [(host.address, *host.verified) for host in self.hosts.values() if host.present]
        return some(places, rng, loopback=loopback)

    def established(self, now: float) -> bool:
        """Whether others count on this host: somebody has been here for a while."""
        return any(host.present and now - host.since >= NEWCOMER for host in self.hosts.values())

    def unknown(self) -> Iterable[Sighting]:
        """Who was announced and has not answered yet, nor anybody else at its addresses. Of whom others have told only
        counts when it has been asked, and is not one more address of a host: it may be this host's own."""
        named = {address for host in self.hosts.values() for address in self._addresses(host)}
        for known in self._candidates.unresolved():
            sighting = known.sighting
            places = {address: self._candidates.places[address] for address in sighting.addresses}
            if sighting.source == "told":
                places = {a: place for a, place in places.items() if place.asked > -inf and a not in named}
            verdicts = {place.verdict for place in places.values()}
            if places and sighting.id not in self.hosts and verdicts <= {"", "unreachable"}:
                yield sighting

    # --- inside ----------------------------------------------------------------------------------------

    def _host_at(self, sighting: Sighting) -> KnownHost | None:
        """The host of which it is known that it answers at one of these addresses."""
        told = self.hosts.get(sighting.id)
        hosts = self.hosts.values() if not sighting.id else () if told is None else (told,)
        return next((h for h in hosts if any(a in h.verified for a in sighting.addresses)), None)

    def _judge(self, hello: Hello, place: Place, now: float) -> Result:
        """Who is left out."""
        result: Result = "ok"
        if hello.cluster != self._cluster:
            result = "cluster"
        elif hello.version != PROTOCOL_VERSION:
            result = "protocol"
        elif hello.id == self.me[0]:
            if hello.instance == self.me[1]:
                place.due = now + SELF_PAUSE
                return "self"
            result = "same_id"
        if result != "ok":
            place.failed(now)
        return result

    def _accept(self, ask: Ask, hello: Hello, place: Place, rtt: float, now: float) -> Result:
        host = self.hosts.get(hello.id)
        if not place.belongs(hello.id, now):
            self.ignored["conflict"] += 1
            place.failed(now)
            return "unsteady"
        if host is None:
            if not self._make_room():
                self.ignored["full"] += 1
                place.failed(now)
                return "full"
            host = self.hosts[hello.id] = KnownHost(hello, ask.address, rtt, now, now)
        elif self._another(host, hello, ask.address, now):
            place.conflicts += 1
            place.failed(now)
            self._ask_soon(host, now)
            if place.conflicts < 2:
                return "doubt"
            self.ignored["conflict"] += 1
            return "conflict"
        returned = not host.present
        host.answered(hello, ask.address, rtt, now)
        host.due = now + host.pause(ring=self.ring)
        place.failures = place.conflicts = 0
        place.due = now + LINKED
        self._look_for_others(host, now, returned=returned)
        self._hear(host, ask.address, now)
        for key in tuple(place.claims):
            self._claimed(key, host, now)
        if ask.key is not None and ask.key in self._candidates.seen:
            known = self._candidates.seen[ask.key]
            if known.sighting.id not in ("", hello.id):
                if not known.mismatched:
                    self.ignored["mismatch"] += 1
                known.mismatched = True
                return "mismatch"
        return "ok"

    @staticmethod
    def _another(host: KnownHost, hello: Hello, address: str, now: float) -> bool:
        """Whether it is a second process with the id of a host that is present."""
        same = hello.instance == host.hello.instance or address in host.verified
        return host.holds(now) and host.address not in host.tried and not same

    def _hear(self, host: KnownHost, address: str, now: float) -> None:
        """It has told, at ``address``, whom it knows."""
        for text in host.hello.knows[:MAX_KNOWS]:
            place = told(text, loopback=on_loopback(address))
            if not place:
                self.ignored["malformed"] += 1
            elif ("told", place) in self._candidates.seen or not self._is_known(place):
                self._candidates.told(place, host.id, now)

    def _is_known(self, address: str) -> bool:
        """Whether it is this host's own, or of one that is present."""
        place = self._candidates.places.get(address)
        if place is not None and place.verdict == "self":
            return True
        return any(host.present and address in host.verified for host in self.hosts.values())

    def _claimed(self, key: Key, host: KnownHost, now: float) -> None:
        """A sighting names the address at which this host answers."""
        known = self._candidates.seen.get(key)  # it may have been dropped for another one
        if known is None or known.sighting.id not in ("", host.id):
            return
        if known.host and known.host != host.id:
            self._unclaimed(key, known.host, now)
        self._resolve(key, host, now)

    def _resolve(self, key: Key, host: KnownHost, now: float) -> None:
        self._candidates.resolve(key, host.id)
        host.claims[key] = None
        if len(host.claims) > MAX_CLAIMS:
            oldest = next((k for k in host.claims if k[0] in ("mdns", "told")), next(iter(host.claims)))
            del host.claims[oldest]
            self._candidates.remove(oldest, now)
            self.ignored["full"] += 1

    def _unclaimed(self, key: Key, host_id: str, now: float) -> None:
        host = self.hosts.get(host_id)
        if host is not None and key in host.claims:
            del host.claims[key]
            if host.present and not host.linked:
                self._ask_soon(host, now)

    def _unanswered(self, ask: Ask, now: float, *, replaced: bool = False) -> None:
        """A host did not answer at one of its addresses: the others are tried before it counts as gone."""
        host = self.hosts.get(ask.host)
        if host is None or host.asking:
            return
        host.tried.add(ask.address)
        host.replaced = host.replaced or (replaced and ask.address == host.address)
        if any(address not in host.tried for address in self._addresses(host)):
            host.due = now
            return
        host.lost(now)
        host.due = now + host.pause(ring=self.ring)

    def _look_for_others(self, host: KnownHost, now: float, *, returned: bool) -> None:
        """One is back: perhaps the network is whole again. And where it answers, no other one does."""
        for other in self.hosts.values():
            moved = other is not host and other.address in host.verified
            if moved or (returned and not other.present):
                self._ask_soon(other, now)

    @staticmethod
    def _ask_soon(host: KnownHost, now: float) -> None:
        if not host.asking:
            host.due = min(host.due, max(now, host.asked + HINT_PAUSE))

    def _next_host(self) -> KnownHost | None:
        return min((h for h in self.hosts.values() if not h.asking), key=lambda h: h.due, default=None)

    def _addresses(self, host: KnownHost) -> Iterator[str]:
        told = (a for key in host.claims for a in self._candidates.seen[key].sighting.addresses)
        return iter(dict.fromkeys((host.address, *host.verified, *told)))

    def _asking(self, ask: Ask, now: float) -> Ask:
        place = self._candidates.place(ask.address, now)
        place.asking, place.asked = True, now
        self._candidates.touched(ask.address)
        return ask

    def _over(self, ask: Ask) -> None:
        if ask.lane is not None:
            self._turns.done(ask.lane)
        place = self._candidates.places.get(ask.address)
        if place is not None:
            place.asking = False
        host = self.hosts.get(ask.host)
        if host is not None:
            host.asking = False

    def _make_room(self) -> bool:
        if len(self.hosts) < self._max_hosts:
            return True
        absent = [host for host in self.hosts.values() if not host.present and not host.asking]
        if not absent:
            return False
        self._forget(min(absent, key=lambda host: host.last))
        return True

    def _forget(self, host: KnownHost) -> None:
        del self.hosts[host.id]
        for key in host.claims:
            self._candidates.reopen(key)
