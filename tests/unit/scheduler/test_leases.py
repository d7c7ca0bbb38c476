from __future__ import annotations

import random

import pytest

from scheduler.config import SchedulerConfig
from scheduler.deadlines import Deadlines
from scheduler.errors import TooManyHosts
from scheduler.state import ClusterState
from scheduler.views import host_views
from shared.protocol import HostLease, LeaseGranted, ParentsAssigned
from tests.unit.scheduler.driver import SPEC, Driver, meta


def test_the_first_lease_is_unknown_and_renewals_are_known() -> None:
    d = Driver()
    granted = d.renew("a")
    assert (granted.known, granted.ttl, granted.scheduler) == (False, 10.0, "test")
    assert d.renew("a").known


def test_the_first_secret_that_a_host_tells_becomes_that_of_all() -> None:
    first, other = bytes(range(32)), bytes(32)
    d = Driver()
    assert d.renew("old").secret == b"", "a host that knows of none, and none to make"
    assert d.renew("a", secret=first).secret == first
    assert d.renew("b", secret=other).secret == first
    assert d.renew("old").secret == first
    d.leave("a")
    assert d.renew("b", secret=other).secret == first
    assert "secret" not in str(host_views(d.state.cluster))


def test_after_a_restart_the_secret_is_that_of_a_host_that_was_there() -> None:
    new, old, odd = b"n" * 32, b"o" * 32, b"x" * 32
    d = Driver()
    assert d.renew("new", secret=new).secret == new
    assert d.renew("a", secret=old, resuming=True).secret == old
    assert d.renew("b", secret=odd, resuming=True).secret == old, "there is one"
    assert d.renew("new", secret=new).secret == old
    d = Driver()
    d.renew("new", secret=new)
    d.wait(4)
    assert d.renew("late", secret=odd, resuming=True).secret == new


def test_secrets_are_not_shown() -> None:
    secret = b"hush" * 8
    assert "hush" not in repr(HostLease("a", "1", "peer", "a:1", secret=secret))
    assert "hush" not in repr(LeaseGranted("s", 10.0, known=True, secret=secret))


def test_the_scheduler_has_a_secret_where_no_host_has() -> None:
    made, told = b"m" * 32, b"t" * 32
    state = ClusterState(SchedulerConfig(), now=0, rng=random.Random(1), secret=made)
    granted, _ = state.renew(HostLease("old", "1", "peer", "old:1"), 0)
    assert granted.secret == made
    granted, _ = state.renew(HostLease("a", "1", "peer", "a:1", secret=told), 0)
    assert granted.secret == made


def test_a_lease_runs_out() -> None:
    d = Driver()
    d.join("a")
    d.wait(10.5, renewing=False)
    assert d.state.cluster.present("a") is None
    assert not d.say("a")
    assert not d.renew("a").known


def test_a_new_instance_replaces_the_old_and_all_that_it_held() -> None:
    d = Driver()
    d.join("a", "b")
    d.hold("a", range(4), complete=True)
    assert not d.renew("a", instance="a-2").known
    assert d.task().holders == {}
    assert not d.state.knows("a", "a-1")
    assert d.state.knows("a", "a-2")


def test_a_host_without_its_stream_is_lost_after_the_grace_and_comes_back() -> None:
    d = Driver()
    d.join("seeder", "b", "c")
    d.hold("seeder", range(4), complete=True)
    d.hold("b", range(4), complete=True)
    d.want("c")
    assert set(d.parents("c")) == {"seeder", "b"}
    d.close("b")
    d.wait(1.9)
    assert set(d.parents("c")) == {"seeder", "b"}
    d.wait(0.5)
    assert d.parents("c") == ["seeder"]
    assert d.renew("b").known, "what it holds is remembered as long as its lease"
    d.open("b")
    assert set(d.parents("c")) == {"seeder", "b"}


def test_a_stream_that_comes_back_in_time_changes_nothing() -> None:
    d = Driver()
    d.join("a", "c")
    d.hold("a", range(4), complete=True)
    d.want("c")
    old = d.state.cluster.present("a").stream  # type: ignore[union-attr]
    d.open("a")
    d.close("a", old)  # the old stream's end is heard of late
    d.wait(5)
    assert d.parents("c") == ["a"]
    assert len(d.all("c", ParentsAssigned)) == 1


def test_leaving_is_being_lost_at_once() -> None:
    d = Driver()
    d.join("a", "b", "c")
    d.hold("a", range(4), complete=True)
    d.hold("b", range(4), complete=True)
    d.want("c")
    d.leave("b")
    d.wait(0.3)
    assert d.parents("c") == ["a"]
    assert not d.renew("b").known


def test_hosts_are_bounded() -> None:
    d = Driver(max_hosts=1)
    d.renew("a")
    with pytest.raises(TooManyHosts, match=r"raise scheduler\.max_hosts"):
        d.renew("b")
    assert d.renew("a").known


def test_a_changed_address_is_passed_on() -> None:
    d = Driver()
    d.join("a", "c")
    d.hold("a", range(4), complete=True)
    d.want("c")
    d.renew("a", address="elsewhere:1")
    d.wait(0.3)
    assert d.all("c", ParentsAssigned)[-1].parents[0].address == "elsewhere:1"


def test_a_stream_opened_anew_is_told_everything_again() -> None:
    d = Driver()
    d.join("seeder", "c")
    d.want("c")
    d.opened("seeder")
    d.read("seeder", 0, 1)
    before = [type(a).__name__ for a in d.told["c"]]
    assert before == ["TaskDescribed", "ParentsAssigned", "PieceDigests"]
    d.forget_told()
    d.open("c")
    d.open("seeder")
    assert [type(a).__name__ for a in d.told["c"]] == ["TaskDescribed", "PieceDigests", "ParentsAssigned"]
    assert d.grant("seeder").meta == meta()
    assert d.grant("seeder").task == SPEC.task_id


def test_deadlines_move_and_pop_in_order() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 5.0)
    deadlines.set("b", 3.0)
    deadlines.set("a", 1.0)
    deadlines.set("c", 2.0)
    deadlines.set("c", None)
    assert deadlines.next() == 1.0
    assert deadlines.pop_due(4.0) == ["a", "b"]
    assert deadlines.next() is None
    assert len(deadlines) == 0


def test_deadlines_do_not_grow_with_every_move() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for step in range(10_000):
        deadlines.set("a", float(step))
    assert len(deadlines._heap) < 100
    assert deadlines.pop_due(1e9) == ["a"]
