"""Which schedulers a host uses, as they come, go, and refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from peer.lan.hello import CONFIGURED
from peer.lan.mode import (
    FIRST_PAUSE,
    GRACE,
    LAST_PAUSE,
    MAX_SCHEDULERS,
    PATIENCE,
    SETTLE,
    STEADY,
    Mode,
    Reachable,
    Use,
    ring_of,
)

URL = "http://10.0.0.9:8002"
START = 50.0


def host(name: str) -> Reachable:
    return Reachable(name, f"http://{name}:65002", f"{name}-1", scheduler=False)


def scheduler(name: str, instance: str = "1") -> Reachable:
    return Reachable(name, f"http://{name}:8002", instance, scheduler=True)


@dataclass
class World:
    """Time, who is present, and whose links are connected."""

    configured: str = ""
    own: str = "http://127.0.0.1:65002"
    max_ring: int = 64
    now: float = START
    answers: bool = False
    present: list[Reachable] = field(default_factory=list)
    usable: set[str] = field(default_factory=set)
    grants: bool = True
    decided: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mode = Mode(("me", self.own), self.configured, self.max_ring, self.now)

    def decide(self) -> Use:
        use = self.mode.decide(self.now, self.present, self.usable, answers=self.answers)
        told = (use.kind, frozenset(use.schedulers))
        if not self.decided or self.decided[-1][1:] != told:
            self.decided.append((round(self.now - START, 3), *told))
        return use

    def run(self, seconds: float) -> Use:
        """Decide as often as is asked for, for so long; links to who grants leases come at once."""
        end = self.now + seconds
        use = self.decide()
        for _ in range(10_000):
            if self.grants:
                here = {one.id for one in self.present} | {"me"}
                linked = {n for n in use.schedulers if n in here or (n == CONFIGURED and self.answers)}
                if linked != self.usable:
                    self.usable = linked
                    use = self.decide()
                    continue
            if use.look_at > end:
                self.now = end
                return self.decide()
            assert use.look_at > self.now
            self.now = use.look_at
            use = self.decide()
        raise AssertionError("decides without end")

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.decided]


def test_nothing_is_used_until_others_had_time_to_be_heard_of() -> None:
    world = World(present=[host("a"), host("b")])
    assert world.decide() == Use("none", {}, START + SETTLE)
    use = world.run(SETTLE)
    assert use.ring
    assert use.schedulers == {
        "a": "http://a:65002",
        "b": "http://b:65002",
        "me": "http://127.0.0.1:65002",
    }


def test_a_host_alone_is_a_ring_of_one() -> None:
    assert World().run(SETTLE).schedulers == {"me": "http://127.0.0.1:65002"}


def test_members_of_the_ring_come_and_go_at_once() -> None:
    world = World(present=[host("a")])
    world.run(2)
    world.present = [host("b")]
    assert set(world.decide().schedulers) == {"b", "me"}


def test_a_scheduler_that_is_found_is_used_and_all_of_them() -> None:
    world = World(present=[host("a"), scheduler("s")])
    assert world.run(2) == Use("scheduler", {"s": "http://s:8002"})
    world.present.append(scheduler("t"))
    assert set(world.run(1).schedulers) == {"s", "t"}
    assert world.kinds == ["none", "scheduler", "scheduler"]


def test_when_the_last_scheduler_is_gone_the_ring_takes_over_within_seconds() -> None:
    world = World(present=[host("a"), scheduler("s")])
    world.run(10)
    world.present, world.usable = [host("a")], set()  # seen a second after it happened
    world.run(5)
    when, kind, members = world.decided[-1]
    assert (kind, members) == ("ring", {"a", "me"})
    assert when == pytest.approx(10 + PATIENCE - GRACE)
    world.present.append(scheduler("s", "2"))
    assert world.decide().kind == "scheduler"


def test_a_scheduler_that_restarts_quickly_is_kept() -> None:
    world = World(present=[host("a"), scheduler("s")])
    world.run(10)
    world.present, world.usable, world.grants = [host("a")], set(), False
    world.run(1)
    world.present, world.grants = [host("a"), scheduler("s", "2")], True
    world.run(10)
    assert world.kinds == ["none", "scheduler"]


def test_one_of_several_schedulers_that_fails_is_left_alone() -> None:
    world = World(present=[scheduler("s"), scheduler("t")])
    world.run(10)
    world.present = [scheduler("t")]
    world.run(5)
    assert world.decided[-1][1:] == ("scheduler", {"t"})


def test_a_scheduler_that_answers_but_gives_no_link_is_tried_ever_more_seldom() -> None:
    world = World(present=[host("a"), scheduler("s")], grants=False)
    world.run(1000)
    tried = [when for when, kind, _ in world.decided if kind == "scheduler"]
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses[:5] == pytest.approx([PATIENCE + FIRST_PAUSE * n for n in (1, 2, 4, 8, 12)])
    assert pauses[-1] == pytest.approx(PATIENCE + LAST_PAUSE)
    assert set(world.kinds[1:]) == {"scheduler", "ring"}


def test_another_process_of_a_scheduler_that_refused_is_tried_at_once() -> None:
    world = World(present=[scheduler("s")], grants=False)
    world.run(SETTLE + PATIENCE + 0.1)
    assert world.decided[-1][1] == "ring"
    world.present, world.grants = [scheduler("s", "2")], True
    assert world.decide().kind == "scheduler"


def test_troubles_of_long_ago_are_forgotten() -> None:
    world = World(present=[scheduler("s")], grants=False)
    world.run(60)
    world.grants = True
    world.run(LAST_PAUSE + STEADY + 1)
    assert world.decided[-1][1] == "scheduler"
    world.decide()
    world.grants, world.usable = False, set()
    world.run(PATIENCE + FIRST_PAUSE + 0.1)
    assert world.kinds[-2:] == ["ring", "scheduler"]


def test_the_configured_scheduler_is_used_at_once() -> None:
    world = World(configured=URL, present=[scheduler("s")], answers=True)
    assert world.decide().schedulers == {CONFIGURED: URL}
    world.run(100)
    assert world.kinds == ["configured"]


def test_others_help_out_while_the_configured_scheduler_is_silent() -> None:
    world = World(configured=URL, present=[host("a")])
    world.run(PATIENCE + 1)
    assert world.decided[-1] == (PATIENCE, "ring", {"a", "me"})
    world.present.append(scheduler("s"))
    assert world.run(1).kind == "scheduler"
    world.answers = True
    assert world.run(1).schedulers == {CONFIGURED: URL}
    world.answers, world.usable = False, set()
    world.run(PATIENCE)
    assert world.decided[-1][1:] == ("scheduler", {"s"})


def test_a_configured_scheduler_that_answers_but_gives_no_link_is_tried_ever_more_seldom() -> None:
    world = World(configured=URL, answers=True, grants=False)
    world.run(200)
    tried = [when for when, kind, _ in world.decided if kind == "configured"]
    assert tried[:4] == pytest.approx([0, 7.5, 20, 42.5])


def test_what_was_a_scheduler_may_become_a_host() -> None:
    world = World(present=[scheduler("s")])
    world.run(5)
    world.present = [host("s")]
    use = world.run(10)
    assert use.ring
    assert set(use.schedulers) == {"s", "me"}


def test_a_ring_that_is_too_large_is_cut_in_the_same_way_by_all() -> None:
    names = [f"h{number}" for number in range(40)]
    rings = []
    for me in names:
        world = World(present=[host(name) for name in names if name != me], max_ring=8)
        world.mode.own = (me, "http://127.0.0.1:65002")
        rings.append(frozenset(world.run(2).schedulers))
    assert len(set(rings)) == 1
    assert len(rings[0]) == 8


def test_a_host_that_leaves_changes_one_member_of_a_cut_ring() -> None:
    names = [f"h{number}" for number in range(40)]
    before = ring_of(names, 8)
    after = ring_of([name for name in names if name != before[3]], 8)
    assert len(set(before) - set(after)) == 1


def test_a_process_without_a_scheduler_inside_is_no_member() -> None:
    assert World(own="", present=[host("a")]).run(2).schedulers == {"a": "http://a:65002"}


def test_those_who_only_say_that_they_schedule_do_not_keep_the_hosts_from_it() -> None:
    world = World(present=[host("a")], grants=False)
    world.run(SETTLE)
    alone = 0.0
    for number in range(200):
        world.present = [host("a"), scheduler(f"liar{number}")]
        world.run(1.0)
        alone += world.decide().kind == "ring"
    assert alone > 170
    assert len(world.mode._trials) <= 1 + LAST_PAUSE
    world.present, world.grants = [host("a"), scheduler("s")], True
    world.run(LAST_PAUSE + 1)
    assert world.decided[-1][1:] == ("scheduler", {"s"})


def test_so_many_schedulers_are_used_at_once() -> None:
    world = World(present=[scheduler("s")])
    world.run(SETTLE + 1)
    world.grants = False
    world.present += [scheduler(f"liar{number}") for number in range(300)]
    use = world.decide()
    assert "s" in use.schedulers
    assert len(use.schedulers) == MAX_SCHEDULERS
    for _ in range(300):
        world.run(1.0)
        assert "s" in world.decide().schedulers


def test_who_gives_no_link_takes_nobodys_place_in_a_ring() -> None:
    """Liars are free to choose ids that come first."""
    names = ring_of([f"h{number}" for number in range(40)], 40)
    liars, real = names[:32], names[32:]
    world = World(max_ring=8, present=[host(name) for name in real])
    world.run(SETTLE + 1)
    world.present += [host(name) for name in liars]
    world.run(1)
    share = []
    for _ in range(300):
        world.grants = False
        members = set(world.run(1).schedulers)
        world.usable = members - set(liars)
        share.append(len(world.usable) / 8)
        world.decide()
    assert sum(share) / len(share) > 0.6


def test_a_crowd_agrees_on_its_ring() -> None:
    names = [f"h{number}" for number in range(40)]
    rings = set()
    for me in names[:5]:
        world = World(max_ring=8, present=[host(name) for name in names if name != me])
        world.mode.own = (me, world.own)
        world.run(SETTLE + 30)
        rings.add(frozenset(world.decide().schedulers))
    assert rings == {frozenset(ring_of(names, 8))}
