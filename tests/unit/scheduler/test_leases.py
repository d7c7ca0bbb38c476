from __future__ import annotations

import random
from itertools import permutations

import pytest

from scheduler.config import SchedulerConfig, ring_config
from scheduler.deadlines import Deadlines
from scheduler.errors import SameHost, TooManyHosts
from scheduler.state import ClusterState
from scheduler.views import host_views
from shared.protocol import HostLease, LeaseGranted, ParentsAssigned
from tests.unit.scheduler.driver import SPEC, Driver, meta


def test_the_first_lease_is_unknown_and_renewals_are_known() -> None:
    d = Driver()
    granted = d.renew("a")
    assert (granted.known, granted.ttl, granted.scheduler) == (False, 10.0, "test")
    assert d.renew("a").known


def test_the_oldest_secret_that_a_host_tells_becomes_that_of_all() -> None:
    young, old, odd = b"y" * 32, b"o" * 32, b"a" * 32
    d = Driver()
    assert d.renew("without").secret == b"", "a host that knows of none, and none to make"
    assert d.renew("a", secret=young, secret_since=200.0).secret == young
    granted = d.renew("b", secret=old, secret_since=100.0)
    assert (granted.secret, granted.secret_since) == (old, 100.0)
    assert d.renew("a", secret=young, secret_since=200.0).secret == old
    assert d.renew("without").secret == old
    d.leave("b")
    assert d.renew("a", secret=young, secret_since=200.0).secret == old
    assert d.renew("c", secret=odd, secret_since=100.0).secret == odd, "of the same age, the smaller one"
    assert d.renew("b", secret=old, secret_since=100.0).secret == odd
    assert "secret" not in str(host_views(d.state.cluster))


def test_schedulers_agree_on_a_secret_whoever_tells_first() -> None:
    told = [("a", b"y" * 32, 30.0), ("b", b"o" * 32, 10.0), ("c", b"x" * 32, 20.0)]
    for order in permutations(told):
        d = Driver()
        for host, secret, since in order:
            d.renew(host, secret=secret, secret_since=since, resuming=host == "a")
        assert (d.state.cluster.secret, d.state.cluster.secret_since) == (b"o" * 32, 10.0)


def test_secrets_are_not_shown() -> None:
    secret = b"hush" * 8
    assert "hush" not in repr(HostLease("a", "1", "peer", "a:1", secret=secret))
    assert "hush" not in repr(LeaseGranted("s", 10.0, known=True, secret=secret))


def test_the_scheduler_has_a_secret_where_no_host_has() -> None:
    made, young, old = b"m" * 32, b"y" * 32, b"o" * 32
    state = ClusterState(SchedulerConfig(), now=0, rng=random.Random(1), wall=1000.0, secret=made)
    granted, _ = state.renew(HostLease("none", "1", "peer", "none:1"), 0)
    assert (granted.secret, granted.secret_since) == (made, 1000.0)
    granted, _ = state.renew(HostLease("a", "1", "peer", "a:1", secret=young, secret_since=1001.0), 5)
    assert granted.secret == made
    granted, _ = state.renew(HostLease("b", "1", "peer", "b:1", secret=old, secret_since=999.0), 5)
    assert granted.secret == old


def test_a_scheduler_makes_no_secret_where_a_host_has_one() -> None:
    state = ClusterState(SchedulerConfig(), now=0, rng=random.Random(1), wall=1000.0, secret=b"m" * 32)
    granted, _ = state.renew(HostLease("a", "1", "peer", "a:1", secret=b"y" * 32, secret_since=2000.0), 0)
    assert (granted.secret, granted.secret_since) == (b"y" * 32, 2000.0)


def test_a_lease_tells_how_often_the_stream_beats_and_a_first_one_is_renewed_soon() -> None:
    d = Driver(lease=120.0, beat=1.2)
    first, second = d.renew("a"), d.renew("a")
    assert (first.beat, second.beat) == (1.2, 1.2)
    assert (first.ttl, second.ttl) == (10.0, 120.0)
    d.wait(100, renewing=False)
    assert d.state.knows("a")


def test_the_ring_has_long_leases_and_quick_beats() -> None:
    config = ring_config(SchedulerConfig(origin_readers=3))
    assert (config.lease, config.beat, config.origin_readers) == (600.0, 1.0, 3)


# --- the same id twice ---------------------------------------------------------------------------------


def lease_of(d: Driver, instance: str, source: str) -> LeaseGranted:
    granted, decisions = d.state.renew(HostLease("a", instance, "peer", "a:1"), d.now, source)
    d.take(decisions)
    return granted


def test_a_second_process_with_the_same_id_elsewhere_is_refused() -> None:
    d = Driver()
    lease_of(d, "one", "10.0.0.1")
    d.open("a")
    with pytest.raises(SameHost, match=r"here at 10\.0\.0\.1.*host-id") as caught:
        lease_of(d, "two", "10.0.0.2")
    assert caught.value.status == 409
    assert d.state.knows("a", "one")
    assert d.state.cluster.tally.same_host == 1
    assert lease_of(d, "one", "10.0.0.1").known


@pytest.mark.parametrize("source", ["10.0.0.1", ""])
def test_a_process_that_starts_again_on_the_same_machine_takes_over_at_once(source: str) -> None:
    d = Driver()
    lease_of(d, "one", "10.0.0.1")
    d.open("a")
    assert not lease_of(d, "two", source).known
    assert d.state.knows("a", "two")


def test_a_process_whose_stream_has_ended_is_replaced_from_anywhere() -> None:
    d = Driver()
    lease_of(d, "one", "10.0.0.1")
    d.open("a")
    d.close("a")
    assert not lease_of(d, "two", "10.0.0.2").known


def test_a_process_that_has_not_been_heard_of_lately_is_replaced_from_anywhere() -> None:
    """Its machine lost its power: nobody has ended its stream."""
    d = Driver()
    lease_of(d, "one", "10.0.0.1")
    d.open("a")
    d.wait(4.9, renewing=False)
    with pytest.raises(SameHost):
        lease_of(d, "two", "10.0.0.2")
    d.wait(0.2, renewing=False)
    assert not lease_of(d, "two", "10.0.0.2").known


def test_a_host_may_come_from_another_address_than_before() -> None:
    d = Driver()
    lease_of(d, "one", "10.0.0.1")
    d.open("a")
    assert lease_of(d, "one", "192.168.0.1").known
    with pytest.raises(SameHost, match=r"192\.168\.0\.1"):
        lease_of(d, "two", "10.0.0.1")


# --- gone, and back ------------------------------------------------------------------------------------


def test_a_host_that_is_forgotten_while_its_stream_is_open_leaves_its_read_and_its_children() -> None:
    """It is frozen: its connections are there, and nobody reads or answers at its end."""
    d = Driver(lease=120.0)
    d.join("a", "b", "c")
    d.hold("b", [0], about=meta(pieces=4))
    d.want("a")
    d.want("c", may_read=False)
    assert d.readers() == ["a"]
    d.opened("a")
    d.read("a", 1, 2)
    d.wait(0.3)
    assert set(d.parents("c")) == {"a", "b"}
    d.want("b")
    d.leave("a")
    assert d.readers() == ["b"]
    d.wait(0.3)
    assert d.parents("c") == ["b"]
    assert not d.say("a"), "its reports are not taken"
    with pytest.raises(KeyError):
        d.open("a")
    assert not d.renew("a").known
    d.open("a")
    d.hold("a", [0, 1, 2])
    d.wait(0.3)
    assert set(d.parents("c")) == {"a", "b"}


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
