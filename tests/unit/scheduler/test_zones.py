from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.zones import CLASSES, EVERYTHING, HANDOVER, Carriers, bits, deal, mask, near, zone_of
from shared.protocol import HostLease, Parent, ParentsAssigned, ParentsWanted
from tests.unit.scheduler.driver import SPEC, Driver, meta


def lease(**fields: str) -> HostLease:
    return HostLease("h", "1", "peer", "h:1", **fields)  # type: ignore[arg-type]


def follow(carriers: Carriers, *hosts: str, now: float = 0.0, fresh: bool = False, held: int = 0) -> set[str]:
    return carriers.follow(list(hosts), now, held=lambda: held, fresh=fresh)


def whole(carriers: Carriers) -> bool:
    """Every class has exactly one carrier."""
    shares = list(carriers.shares.values())
    return sum(shares) == EVERYTHING and all(not a & b for i, a in enumerate(shares) for b in shares[i + 1 :])


def test_the_zone_of_a_host() -> None:
    assert zone_of(lease()) == ""
    assert zone_of(lease(network="10.0.1.0/24")) == "10.0.1.0/24"
    assert zone_of(lease(location="z1/rack", network="10.0.1.0/24")) == "z1"
    assert zone_of(lease(location="z1|rack")) == "z1"


def test_hosts_of_no_known_zone_are_near_to_everybody() -> None:
    assert near("a", "a")
    assert near("", "a")
    assert near("a", "")
    assert not near("a", "b")


@given(st.integers(1, 100))
def test_classes_are_dealt_one_by_one(number: int) -> None:
    hosts = [f"h{n}" for n in range(number)]
    shares = deal(hosts)
    assert list(shares) == hosts
    assert sorted(n for share in shares.values() for n in bits(share)) == list(range(CLASSES))
    for n in range(min(number, CLASSES)):
        assert bits(shares[f"h{n}"]) == list(range(n, CLASSES, min(number, CLASSES)))


def test_before_anything_crosses_all_share_alike() -> None:
    carriers = Carriers()
    assert follow(carriers, "a", fresh=True) == {"a"}
    assert carriers.of("a") == EVERYTHING
    assert follow(carriers, "a", "b", fresh=True) == {"a", "b"}
    assert bits(carriers.of("b")) == list(range(1, CLASSES, 2))


def test_newcomers_get_nothing_that_may_be_on_its_way() -> None:
    carriers = Carriers()
    follow(carriers, "a")
    assert follow(carriers, "a", "b", "c") == set()
    assert carriers.of("a") == EVERYTHING
    assert carriers.of("b") == carriers.of("stranger") == 0


def test_only_what_the_dead_carried_changes_hands() -> None:
    carriers = Carriers()
    follow(carriers, "a", "b", "c", "d", fresh=True)
    before = dict(carriers.shares)
    assert follow(carriers, "a", "b", "d") == {"a", "b", "c", "d"}
    assert whole(carriers)
    for host in "abd":
        assert before[host] & carriers.of(host) == before[host]
    assert max(share.bit_count() for share in carriers.shares.values()) <= 22


def test_a_host_that_carries_nothing_takes_over_first() -> None:
    carriers = Carriers()
    follow(carriers, "a", "b", fresh=True)
    follow(carriers, "a", "b", "c")
    before = dict(carriers.shares)
    assert follow(carriers, "b", "c") == {"a", "c"}
    assert carriers.shares == {"b": before["b"], "c": before["a"]}


def test_a_long_transfer_is_levelled_after_what_is_on_its_way_has_come() -> None:
    carriers = Carriers()
    follow(carriers, "a", now=100.0)
    follow(carriers, "a", "b", now=100.0)
    when = carriers.next_look()
    assert carriers.level(when, held=50, lacking=100) == set(), "it is over soon"
    when = carriers.next_look()
    assert carriers.level(when, held=5, lacking=100) == {"a"}
    given = EVERYTHING & ~carriers.of("a")
    assert given.bit_count() == CLASSES // 2
    assert carriers.of("b") == 0, "not yet"
    assert carriers.hand_over(when) == set()
    assert carriers.next_look() >= when + HANDOVER
    assert carriers.hand_over(carriers.next_look()) == {"b"}
    assert carriers.of("b") == given
    assert carriers.next_look() == float("inf")
    assert whole(carriers)


def test_what_was_handed_over_to_the_dead_is_not_lost() -> None:
    carriers = Carriers()
    follow(carriers, "a")
    follow(carriers, "a", "b", "c")
    assert carriers.level(50.0, held=1, lacking=100) == {"a"}
    follow(carriers, "b", "c", now=51.0)
    follow(carriers, "c", now=52.0)
    carriers.hand_over(1000.0)
    assert carriers.shares == {"c": EVERYTHING}


steps = st.lists(
    st.tuples(st.sets(st.integers(0, 70), max_size=70), st.booleans(), st.floats(0, 30)), max_size=12
)


@given(steps)
def test_every_class_has_one_carrier_whoever_comes_and_goes(
    changes: list[tuple[set[int], bool, float]],
) -> None:
    carriers, now = Carriers(), 0.0
    for hosts, fresh, pause in changes:
        now += pause
        before = dict(carriers.shares)
        changed = follow(carriers, *(f"h{n}" for n in sorted(hosts)), now=now, fresh=fresh)
        assert changed == {h for h in before.keys() | carriers.shares if before.get(h, 0) != carriers.of(h)}
        carriers.hand_over(now)
        carriers.level(now, held=1, lacking=50)
        coming = sum(share for _, _, share in carriers._coming)
        assert sum(carriers.shares.values()) + coming == (EVERYTHING if hosts else 0)
        if carriers._coming:
            carriers.hand_over(now := carriers.next_look() + 1000)
        assert not hosts or whole(carriers)


def test_shares_and_classes() -> None:
    assert bits(mask([3, 5, 63])) == [3, 5, 63]
    assert mask(range(CLASSES)) == EVERYTHING


# --- parent lists ------------------------------------------------------------------------------------


def last(d: Driver, host: str) -> dict[str, Parent]:
    return {parent.host: parent for parent in d.all(host, ParentsAssigned)[-1].parents}


def two_zones(d: Driver) -> None:
    d.join("seeder", "a1", "a2", network="A")
    d.join("b1", "b2", network="B")


def test_stripes_count_the_children_of_one_zone() -> None:
    d = Driver()
    two_zones(d)
    d.hold("seeder", range(8), about=meta(pieces=8), complete=True)
    d.want("a1", "b1", "a2", "b2")
    d.wait(1)
    assert {last(d, a)["seeder"].stripe for a in ("a1", "a2")} == {(0, 2), (1, 2)}
    far = last(d, "b1")["seeder"]
    assert (far.far, far.stripe, far.carries) == (True, None, EVERYTHING)
    assert last(d, "b2")["seeder"].carries == 0


def test_all_who_wait_when_the_origin_answers_share_what_crosses() -> None:
    d = Driver()
    two_zones(d)
    d.want("a1", "b1", "a2", "b2")
    d.opened("seeder", meta(pieces=8))
    d.wait(1)
    assert last(d, "b1")["seeder"].carries == mask(range(0, CLASSES, 2))
    assert last(d, "b2")["seeder"].carries == mask(range(1, CLASSES, 2))
    assert not last(d, "a1")["seeder"].far


def test_what_the_zone_has_is_had_from_the_zone() -> None:
    d = Driver()
    two_zones(d)
    d.hold("seeder", range(4), complete=True)
    d.hold("b1", [0, 1])
    d.want("b2")
    assert set(last(d, "b2")) == {"b1", "seeder"}
    d.hold("b1", range(4), complete=True)
    d.wait(1)
    d.want("b2")
    assert set(last(d, "b2")) == {"b1"}
    d.complain("b2", "b1", "gone")
    d.wait(1)
    assert last(d, "b2")["seeder"].far, "the one near by fails"
    d.wait(10)
    assert set(last(d, "b2")) == {"b1"}


def test_a_reader_near_by_will_have_everything() -> None:
    d = Driver()
    d.join("seeder", "b1", network="B")
    d.join("a1", network="A")
    d.want("b1")
    d.opened("seeder", meta(pieces=4))
    d.hold("a1", [0])
    d.wait(1)
    assert d.parents("b1") == ["seeder"]


def test_who_holds_what_would_have_to_cross_is_among_the_parents() -> None:
    d = Driver(parents=2)
    d.join("seeder", network="A")
    near_by = [f"n{n}" for n in range(6)]
    d.join("b1", *near_by, network="B")
    d.hold("seeder", range(8), about=meta(pieces=8), complete=True)
    for n, name in enumerate(near_by):
        d.hold(name, [n], about=meta(pieces=8))
    d.want("b1")
    assert set(d.parents("b1")) == {*near_by, "seeder"}


def test_a_parent_of_another_zone_is_kept() -> None:
    d = Driver()
    holders = [f"a{n}" for n in range(10)]
    d.join(*holders, network="A")
    d.join("b1", "b2", network="B")
    for name in holders:
        d.hold(name, range(8), about=meta(pieces=8), complete=True)
    d.want("b1", "b2")
    before = {p.host for p in last(d, "b1").values() if p.far}
    for _ in range(5):
        d.got("b1", 0)
        d.got("b2", 0)
        d.say("b1", ParentsWanted(SPEC.task_id))
        d.wait(1)
        assert {p.host for p in last(d, "b1").values() if p.far} == before
    assert len(before) == 2


def test_who_moves_to_another_zone_gets_other_parents() -> None:
    d = Driver()
    two_zones(d)
    d.hold("seeder", range(4), complete=True)
    d.want("b1")
    assert last(d, "b1")["seeder"].far
    d.renew("b1", network="A")
    d.wait(1)
    assert not last(d, "b1")["seeder"].far
