from __future__ import annotations

from shared.protocol import ParentsAssigned, ParentsWanted, TaskRemoved
from tests.unit.scheduler.driver import SPEC, Driver, digests, meta


def test_peers_that_hold_pieces_become_parents_of_each_other() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a", "b")
    d.opened("seeder")
    d.read("seeder", 0, 1)
    d.got("a", 0)
    d.got("b", 1)
    d.wait(1)
    assert set(d.parents("a")) == {"seeder", "b"}
    assert set(d.parents("b")) == {"seeder", "a"}


def test_lists_are_bounded_but_always_have_a_source() -> None:
    d = Driver(parents=3)
    d.join("seeder", "child", *(f"h{n}" for n in range(20)))
    d.hold("seeder", range(4), complete=True)
    for n in range(20):
        d.hold(f"h{n}", range(4), complete=True)
    for seed in range(10):
        d.want("child")
        assert 3 <= len(d.parents("child")) <= 4, seed
        assert "seeder" in d.parents("child")


def test_no_list_is_sent_that_changes_nothing() -> None:
    d = Driver()
    d.join("a", "h")
    d.hold("h", range(4), complete=True)
    d.want("a")
    for _ in range(5):
        d.say("a", ParentsWanted(SPEC.task_id))
        d.wait(1)
    assert len(d.all("a", ParentsAssigned)) == 1


def test_lists_for_one_child_keep_their_distance() -> None:
    d = Driver(parents=40)
    hosts = [f"h{n}" for n in range(20)]
    children = [f"c{n}" for n in range(60)]
    d.join(*hosts, *children)
    d.hold("h0", range(4), complete=True)
    d.want(*children)
    d.wait(1)
    d.forget_told()
    for host in hosts[1:]:
        d.hold(host, range(4), complete=True)
    assert len(d.all("c0", ParentsAssigned)) <= 1
    d.wait(0.25)
    assert len(d.all("c0", ParentsAssigned)) <= 2
    assert len(d.parents("c0")) == 20


def test_a_draining_host_gets_no_new_children_but_keeps_those_it_has() -> None:
    d = Driver()
    d.join("a", "b", "h1", "h2")
    d.hold("h1", range(4), complete=True)
    d.hold("h2", range(4), complete=True)
    d.want("a")
    d.renew("h1", draining=True)
    d.want("b")
    assert "h1" in d.parents("a")
    assert d.parents("b") == ["h2"]


def test_a_parent_that_failed_is_avoided_for_a_while() -> None:
    d = Driver()
    d.join("a", "h1", "h2")
    d.hold("h1", range(4), complete=True)
    d.hold("h2", range(4), complete=True)
    d.want("a")
    d.wait(1)
    d.complain("a", "h1", "stalled")
    assert d.parents("a") == ["h2"]
    d.wait(4.9)
    assert d.parents("a") == ["h2"]
    d.wait(0.2)
    assert set(d.parents("a")) == {"h1", "h2"}
    d.complain("a", "h1", "gone")
    d.wait(9.9)
    assert d.parents("a") == ["h2"], "the second time it is avoided twice as long"
    d.wait(0.3)
    assert set(d.parents("a")) == {"h1", "h2"}


def test_the_only_parent_is_kept_after_one_failure_and_replaced_by_a_reader_after_three() -> None:
    d = Driver()
    d.join("a", "h")
    d.hold("h", range(4), complete=True)
    d.want("a")
    d.complain("a", "h", "gone")
    d.wait(1)
    assert d.parents("a") == ["h"]
    assert d.readers() == []
    d.complain("a", "h", "gone")
    d.complain("a", "h", "gone")
    assert d.readers() == ["a"]
    d.wait(0.3)
    assert d.parents("a") == []


def test_a_busy_parent_does_not_count_as_failing() -> None:
    d = Driver()
    d.join("a", "h")
    d.hold("h", range(4), complete=True)
    d.want("a")
    for _ in range(10):
        d.complain("a", "h", "busy")
    assert d.parents("a") == ["h"]
    assert d.readers() == []


def test_wrong_bytes_for_two_children_ban_the_host_for_all() -> None:
    d = Driver()
    d.join("a", "b", "c", "bad", "good")
    d.hold("bad", range(4), complete=True)
    d.hold("good", range(4), complete=True)
    d.want("a", "b", "c")
    d.complain("a", "bad", "corrupt")
    d.wait(1)
    assert d.parents("a") == ["good"]
    assert set(d.parents("c")) == {"bad", "good"}
    d.complain("b", "bad", "corrupt")
    d.wait(1)
    assert d.parents("c") == ["good"]
    d.wait(58)
    d.want("c")
    assert d.parents("c") == ["good"]
    d.wait(3)
    assert set(d.parents("c")) == {"bad", "good"}
    assert d.state.cluster.present("bad").corrupt_reports == 2  # type: ignore[union-attr]


def test_wrong_bytes_for_the_only_child_have_the_origin_read_again() -> None:
    d = Driver()
    d.join("a", "bad", "seeder")
    d.hold("bad", range(4), complete=True)
    d.want("a")
    d.complain("a", "bad", "corrupt")
    assert d.readers() == ["seeder"]
    assert d.grant("seeder").digests == digests(range(4))
    d.wait(0.1)
    assert d.parents("a") == []


def test_a_banned_reader_loses_its_grant() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a", may_read=False)
    d.join("seeder2")
    d.opened("seeder1")
    d.read("seeder1", 0)
    d.complain("a", "seeder1", "corrupt")
    assert d.readers() == ["seeder2"]


def test_children_of_a_seeder_get_disjoint_stripes() -> None:
    d = Driver()
    children = [f"c{n}" for n in range(4)]
    d.join("seeder", *children)
    d.want(*children)
    d.opened("seeder")
    d.wait(1)
    stripes = {d.all(c, ParentsAssigned)[-1].parents[0].stripe for c in children}
    assert stripes == {(0, 4), (1, 4), (2, 4), (3, 4)}
    d.read("seeder", 0, 1, 2, 3)
    for number in range(4):
        d.got("c3", number)
    d.finish("c3")
    d.wait(1)
    stripes = {
        parent.stripe
        for c in children[:3]
        for parent in d.all(c, ParentsAssigned)[-1].parents
        if parent.host == "seeder"
    }
    assert stripes == {(0, 3), (1, 3), (2, 3)}


def test_one_child_alone_has_no_stripe() -> None:
    d = Driver()
    d.join("seeder", "a")
    d.hold("seeder", range(4), complete=True)
    d.want("a")
    assert d.all("a", ParentsAssigned)[-1].parents[0].stripe is None
    assert d.all("a", ParentsAssigned)[-1].parents[0].complete


def test_content_that_a_host_removed_is_not_asked_of_it() -> None:
    d = Driver()
    d.join("a", "h", "seeder")
    d.hold("h", range(4), complete=True)
    d.want("a")
    d.say("h", TaskRemoved(SPEC.task_id))
    d.wait(0.1)
    assert d.parents("a") == []
    assert d.readers() == ["seeder"]


def test_a_big_swarm_spreads_over_its_holders() -> None:
    d = Driver()
    peers = [f"p{n}" for n in range(100)]
    d.join("seeder", *peers)
    d.want(*peers)
    d.opened("seeder", meta(pieces=64))
    d.read("seeder", *range(64))
    for n, peer in enumerate(peers):
        d.got(peer, n % 64)
        d.wait(0.02)
    d.wait(1)
    children = d.state.cluster.children
    assert all(4 <= len(d.parents(peer)) <= 7 for peer in peers)
    assert max(children[peer] for peer in peers) <= 25
    assert sum(1 for peer in peers if children[peer]) >= 60
    for peer in peers:
        d.finish(peer)
    assert not +children
