"""Placement, grants, complaints, digests and checks, each on its own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.blocks import Accusations, Block, complain
from scheduler.checks import check_lease, check_report
from scheduler.digests import BATCH, DigestTable
from scheduler.grants import Applicant, Grant, choose_reader, runs, split, ungranted
from scheduler.placement import Candidate, nearness, place, stripe_count, stripe_of
from shared.errors import InvalidRequest
from shared.protocol import Failure as FailureMessage
from shared.protocol import HostLease, PeerHolding, PeerRegistered, PiecesHeld, SourceFailed, SourcePieces
from shared.task.bitmap import MAX_PIECES, Bitmap
from tests.unit.scheduler.driver import SPEC, meta


def candidate(host: str, **fields: object) -> Candidate:
    values: dict[str, object] = {
        "address": f"{host}:1",
        "role": "peer",
        "location": "",
        "slots": 8,
        "children": 0,
        "useful": True,
        "complete": False,
        "reading": False,
    }
    return Candidate(host, **(values | fields))  # type: ignore[arg-type]


RNG = random.Random(1)


def test_useful_near_and_free_parents_come_first() -> None:
    best = candidate("best", location="z/r")
    others = [
        candidate("far", location="y/r"),
        candidate("full", location="z/r", children=16),
        candidate("useless", location="z/r", useful=False),
    ]
    for _ in range(20):
        assert place([*others, best], "z/r", 1, RNG)[0].host == "best"


def test_a_source_is_added_when_none_is_among_the_best() -> None:
    near = [candidate(f"n{n}", location="z") for n in range(4)]
    chosen = place([*near, candidate("seeder", role="seeder", location="far", children=99)], "z", 3, RNG)
    assert [c.host for c in chosen][-1] == "seeder"
    assert len(chosen) == 4


def test_avoided_parents_are_the_last_resort() -> None:
    bad, good = candidate("bad", avoided=True), candidate("good")
    assert [c.host for c in place([bad, good], "", 6, RNG)] == ["good"]
    assert [c.host for c in place([bad], "", 6, RNG)] == ["bad"]
    useless = candidate("useless", useful=False)
    assert {c.host for c in place([bad, useless], "", 6, RNG)} == {"bad", "useless"}


def test_chance_mixes_equals() -> None:
    equals = [candidate(f"p{n}") for n in range(20)]
    seen = {c.host for _ in range(50) for c in place(equals, "", 3, RNG)}
    assert len(seen) == 20


def test_kept_parents_are_not_swapped_for_equals_of_no_account() -> None:
    assert (
        place([candidate("a", current=True, children=5), candidate("b", children=12)], "", 1, RNG)[0].host
        == "a"
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", 0),
        ("z", "", 0),
        ("z/r", "z/r", 1),
        ("z|r|h", "z|r|i", 2 / 3),
        ("z", "z/r", 0.5),
        ("a/r", "b/r", 0),
    ],
)
def test_nearness(one: str, other: str, expected: float) -> None:
    assert nearness(one, other) == pytest.approx(expected)


@given(st.integers(0, 5000))
def test_every_stripe_has_a_child(children: int) -> None:
    count = stripe_count(children)
    assert 1 <= count <= max(children, 1)
    taken = {stripe_of(rank, count) for rank in range(children)}
    assert len(taken) == min(count, children)


@given(st.sets(st.integers(0, 300)), st.integers(1, 6))
def test_shares_are_disjoint_and_leave_nothing_out(numbers: set[int], shares: int) -> None:
    parts = split(Bitmap(numbers), shares)
    assert 1 <= len(parts) <= shares
    assert sorted(n for part in parts for n in part) == sorted(numbers)


def test_ungranted_pieces() -> None:
    some, everything = Grant("1", "a", Bitmap([0, 1]), 0.0, "u"), Grant("2", "b", None, 0.0, "u")
    assert ungranted(None, []) is None
    assert ungranted(None, [some]) == Bitmap()
    assert ungranted(Bitmap([0, 1, 2]), [some]) == Bitmap([2])
    assert ungranted(Bitmap([0]), [everything]) == Bitmap()
    assert runs(Bitmap([0, 1, 5])) == [(0, 2), (5, 1)]
    assert runs(None) is None


def test_readers_are_seeders_first_then_who_holds_most_then_the_idle() -> None:
    applicants = [
        Applicant("peer", "peer", 100, 0, 0.0),
        Applicant("busy", "seeder", 5, 1, 0.0),
        Applicant("loaded", "seeder", 5, 0, 0.9),
        Applicant("best", "seeder", 5, 0, 0.1),
        Applicant("empty", "seeder", 0, 0, 0.0),
    ]
    order = []
    while applicants:
        chosen = choose_reader(applicants, RNG)
        assert chosen is not None
        applicants.remove(chosen)
        order.append(chosen.host)
    assert order == ["best", "loaded", "busy", "empty", "peer"]
    assert choose_reader([], RNG) is None


def test_complaints_grow_are_bounded_and_forgiven() -> None:
    block: Block | None = None
    lengths = []
    for _ in range(6):
        block = complain(block, "gone", 100.0, corrupt_for=60)
        lengths.append(block.until - 100.0)
    assert lengths == [5, 10, 20, 40, 60, 60]
    assert block is not None
    assert block.shuns(159.0)
    assert not block.avoids(160.0)
    later = complain(block, "gone", 300.0, corrupt_for=60)
    assert (later.strikes, later.until) == (1, 305.0)
    assert complain(None, "corrupt", 0.0, corrupt_for=60).shuns(59.0)
    assert complain(None, "busy", 0.0, corrupt_for=60).strikes == 0


def test_a_ban_takes_two_accusers_or_the_only_child() -> None:
    court = Accusations(60.0)
    assert not court.accuse("p", "a", 0.0, only_child=False)
    assert not court.accuse("p", "a", 1.0, only_child=False)
    assert court.accuse("p", "b", 2.0, only_child=False)
    assert court.banned("p", 61.0)
    assert not court.banned("p", 62.0)
    assert court.next_expiry() == 62.0
    assert court.expire(62.0) == ["p"]
    assert not court.accuse("q", "a", 0.0, only_child=False)
    assert not court.accuse("q", "b", 61.0, only_child=False), "the first accusation is too old"
    assert court.accuse("r", "a", 0.0, only_child=True)
    court.forget("r")
    assert not court.banned("r", 1.0)


@given(st.lists(st.dictionaries(st.integers(0, 50), st.binary(min_size=32, max_size=32), max_size=8)))
def test_the_first_digest_stays(updates: list[dict[int, bytes]]) -> None:
    table, first = DigestTable(), {}
    for update in updates:
        fresh, contradicted = table.learn(update)
        assert fresh == {n: d for n, d in update.items() if n not in first}
        assert contradicted == [n for n, d in update.items() if first.get(n, d) != d]
        for number, value in update.items():
            first.setdefault(number, value)
    assert {n: d for batch in table.batches() for n, d in batch.items()} == first
    assert all(table.get(n) == first.get(n) for n in range(51))
    assert len(table) == len(first)


def test_many_digests_come_in_batches() -> None:
    table = DigestTable()
    table.learn({n: bytes(32) for n in range(BATCH + 1)})
    assert [len(batch) for batch in table.batches()] == [BATCH, 1]
    with pytest.raises(ValueError, match="32 bytes"):
        table.learn({0: b"", 99_999: b"short"})


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "b"},
        {"address": "a b:1"},
        {"address": ""},
        {"instance": ""},
        {"upload_slots": 0},
        {"uploads": -1},
        {"location": "x" * 300},
        {"network": "x" * 300},
        {"secret": bytes(31)},
        {"secret_since": -1.0},
        {"secret_since": float("nan")},
        {"secret_since": float("inf")},
    ],
)
def test_leases_that_cannot_be_taken(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"host": "a", "instance": "1", "role": "peer", "address": "a:1"}
    with pytest.raises(InvalidRequest):
        check_lease(HostLease(**(fields | changes)), "a")  # type: ignore[arg-type]


def test_host_names_are_plain() -> None:
    check_lease(HostLease("node-1.zone_a", "1", "peer", "[::1]:1"), "node-1.zone_a")
    for name in ("", "a/b", "a\nb", "x" * 200, "-a"):
        with pytest.raises(InvalidRequest):
            check_lease(HostLease(name, "1", "peer", "a:1"), name)


@pytest.mark.parametrize(
    "report",
    [
        PeerRegistered("0" * 64, SPEC),
        PeerRegistered("short", SPEC),
        PiecesHeld(SPEC.task_id, "v1", [-1]),
        PiecesHeld(SPEC.task_id, "v1", [MAX_PIECES]),
        SourcePieces(SPEC.task_id, "g", "v1", {0: b"short"}),
        PeerHolding(SPEC.task_id, SPEC, meta(version="")),
        PeerHolding(SPEC.task_id, SPEC, meta(length=-5)),
        PeerHolding(SPEC.task_id, SPEC, meta(length=1 << 62)),
        PeerHolding(SPEC.task_id, SPEC, meta(), held=bytes(MAX_PIECES // 8 + 1)),
        SourceFailed(SPEC.task_id, "g", FailureMessage("x" * 5000)),
    ],
)
def test_reports_that_cannot_be_true(report: PeerRegistered) -> None:
    with pytest.raises(InvalidRequest):
        check_report(report)
