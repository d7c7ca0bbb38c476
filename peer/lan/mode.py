"""Which schedulers a host uses now. Pure: time is passed in.

==============  ========================================================================================
mode            used
==============  ========================================================================================
``configured``  the scheduler of the configuration; the next ones only while it gives no link
``scheduler``   all schedulers that were found, but those that gave no link of late
``ring``        the hosts themselves: those present, this one among them
``none``        nothing: the first second after the start, in which others are heard of
==============  ========================================================================================

A scheduler without a link for ``PATIENCE`` is left for the next row. It is taken again when it answers; one that
answered all the time, but gave no link, only after a pause that grows; and after two that never gave any, all those
wait that never did: what only says that it is a scheduler must not keep hosts from deciding for themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Literal

from shared.swarm.links_owner import CONFIGURED

Kind = Literal["none", "configured", "scheduler", "ring"]

SETTLE = 1.0
PATIENCE = 2.5
GRACE = 1.0
"""Seconds for which a lost link still counts (``shared.swarm.links``): so long ago was its loss when it is seen."""
FIRST_PAUSE, LAST_PAUSE = 5.0, 60.0
MAX_SCHEDULERS = 16
"""Schedulers that are used at once."""
STEADY = 30.0
"""Seconds of a link after which earlier troubles are forgotten."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """Somebody who is present, and grants leases at ``url``. ``scheduler``: it is nothing else."""

    id: str
    url: str
    instance: str
    scheduler: bool


@dataclass(frozen=True, slots=True)
class Use:
    """The schedulers to use: name -> URL. ``look_at`` is when to decide again though nothing happens."""

    kind: Kind
    schedulers: Mapping[str, str]
    look_at: float = inf

    @property
    def ring(self) -> bool:
        """Whether they are the hosts themselves."""
        return self.kind == "ring"


@dataclass(slots=True)
class _Trial:
    """How a scheduler does. ``lost``: since when it gives no link though it is used, None while it gives one;
    ``proved``: it has given one."""

    instance: str
    lost: float | None = None
    linked: float | None = None
    pause: float = 0.0
    until: float = -inf
    proved: bool = False


@dataclass(slots=True)
class Mode:
    """Decides. ``own`` is (id, URL) of the scheduler within this process; the URL is "" where there is none."""

    own: tuple[str, str]
    configured: str
    max_ring: int
    started: float
    _used: dict[str, str] = field(default_factory=dict)  # but for a ring
    _trials: dict[str, _Trial] = field(default_factory=dict)
    _strangers: _Trial = field(
        default_factory=lambda: _Trial("")
    )  # schedulers that have not proved to be some
    _crowd: dict[str, _Trial] = field(default_factory=dict)  # of a ring for which there are too many
    _ringed: set[str] = field(default_factory=set)

    def decide(
        self, now: float, present: Iterable[Reachable], usable: Collection[str], *, answers: bool = False
    ) -> Use:
        """What to use now. ``usable`` are the names whose links are connected; ``answers``: the configured scheduler
        does, when it is asked who it is."""
        here = {reachable.id: reachable for reachable in present}
        self._judge(now, here, usable, answers)
        kind, schedulers = self._choose(now, here, usable, answers)
        for name in set(schedulers) - set(self._used) if kind != "ring" else ():
            self._trials[name].lost = now
        self._used = {} if kind == "ring" else schedulers
        times = [self._deadline(name) for name in self._used]
        for trial in self._crowd.values() if kind == "ring" else ():
            times += [trial.until] if trial.until > now else []
            times += [trial.lost + PATIENCE] if trial.lost is not None else []
        waiting = (*self._trials.values(), self._strangers)
        times += [trial.until for trial in waiting if trial.until > now]
        times += [self.started + SETTLE] if kind == "none" else []
        return Use(kind, schedulers, min(times, default=inf))

    def _choose(
        self, now: float, here: Mapping[str, Reachable], usable: Collection[str], answers: bool
    ) -> tuple[Kind, dict[str, str]]:
        if self.configured:
            trial = self._trials.get(CONFIGURED)
            if trial is None:  # at the start it is taken unasked
                self._trials[CONFIGURED] = _Trial("")
                return "configured", {CONFIGURED: self.configured}
            if CONFIGURED in self._used or (answers and trial.until <= now):
                return "configured", {CONFIGURED: self.configured}
        elif now < self.started + SETTLE:
            return "none", {}
        schedulers = {
            name: url
            for name, url in self._used.items()
            if name != CONFIGURED and (name not in here or here[name].scheduler)
        }
        for reachable in here.values():
            if reachable.scheduler:
                trial = self._trials.setdefault(reachable.id, _Trial(reachable.instance))
                if reachable.id in self._used or (
                    trial.until <= now and (trial.proved or self._strangers.until <= now)
                ):
                    schedulers[reachable.id] = reachable.url
        if len(schedulers) > MAX_SCHEDULERS:
            linked = ring_of([name for name in schedulers if name in usable], MAX_SCHEDULERS)
            others = ring_of(
                [name for name in schedulers if name not in usable], MAX_SCHEDULERS - len(linked)
            )
            schedulers = {name: schedulers[name] for name in (*linked, *others)}
        if schedulers:
            return "scheduler", schedulers
        return "ring", self._ring(now, here, usable)

    def _ring(self, now: float, here: Mapping[str, Reachable], usable: Collection[str]) -> dict[str, str]:
        members = {one.id: one.url for one in here.values() if not one.scheduler}
        name, url = self.own
        if url:
            members[name] = url
        chosen = set(members)
        if len(members) > self.max_ring:
            chosen = self._of_crowd(now, chosen, usable)
        else:
            self._crowd.clear()
        self._ringed = chosen
        return {member: members[member] for member in sorted(chosen)}

    def _of_crowd(self, now: float, members: Collection[str], usable: Collection[str]) -> set[str]:
        """Who of too many is the ring: those that a hash chooses, so that all hosts agree. Only who was chosen and
        gave no link has to stand back for a while, so that nobody takes places that he does not fill."""
        for member in [m for m, trial in self._crowd.items() if m not in members and trial.until <= now]:
            del self._crowd[member]
        for member in members:
            trial = self._crowd.setdefault(member, _Trial(""))
            if member in usable or member == self.own[0]:
                trial.lost, trial.pause, trial.until = None, 0.0, -inf
            elif member not in self._ringed:
                trial.lost = None
            elif trial.lost is not None and trial.lost + PATIENCE <= now:
                self._pause(trial, now)
        willing = ring_of([m for m in members if self._crowd[m].until <= now], self.max_ring)
        others = ring_of([m for m in members if m not in willing], self.max_ring - len(willing))
        for member in willing:
            if member not in usable and member != self.own[0] and self._crowd[member].lost is None:
                self._crowd[member].lost = now
        return {*willing, *others}

    def _judge(
        self, now: float, here: Mapping[str, Reachable], usable: Collection[str], answers: bool
    ) -> None:
        """Look at the schedulers in use: who gives a link, and who is to be left."""
        for name, trial in list(self._trials.items()):
            reachable = here.get(name)
            if reachable is not None and reachable.instance != trial.instance:
                trial.instance, trial.until, trial.pause = reachable.instance, -inf, 0.0
            if name not in self._used:
                if reachable is None and name != CONFIGURED and trial.until <= now:
                    del self._trials[name]
            elif name in usable:
                trial.linked = now if trial.linked is None else trial.linked
                trial.lost, trial.proved = None, True
                if now - trial.linked >= STEADY:
                    trial.pause = self._strangers.pause = 0.0
            else:
                if trial.lost is None:
                    trial.lost = now - GRACE
                trial.linked = None
                if self._deadline(name) <= now:
                    self._leave(
                        name, trial, now, there=answers if name == CONFIGURED else reachable is not None
                    )

    def _leave(self, name: str, trial: _Trial, now: float, *, there: bool) -> None:
        del self._used[name]
        trial.lost = None
        if there:
            self._pause(trial, now)
        if trial.proved or name == CONFIGURED:
            return
        if self._strangers.pause:
            self._pause(self._strangers, now)
        else:  # one may fail
            self._strangers.pause = FIRST_PAUSE / 2

    @staticmethod
    def _pause(trial: _Trial, now: float) -> None:
        trial.lost = None
        trial.pause = min(LAST_PAUSE, max(FIRST_PAUSE, 2 * trial.pause))
        trial.until = now + trial.pause

    def _deadline(self, name: str) -> float:
        lost = self._trials[name].lost
        return inf if lost is None else lost + PATIENCE


def ring_of(members: Collection[str], most: int) -> list[str]:
    """The members of a ring of at most so many: all hosts that know the same others agree on them."""
    return sorted(sorted(members, key=lambda member: blake2b(member.encode(), digest_size=8).digest())[:most])
