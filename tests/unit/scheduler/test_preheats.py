"""The state of preheats: every item of every host leaves what is left exactly once, and every job ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import TooManyPreheats
from scheduler.preheats import MAX_QUEUED, Job, Jobs, PreheatOrder, Targets
from shared.protocol import Failure, PreheatItem
from shared.task.identity import TaskSpec

HOSTS = ("seeder1", "seeder2", "a", "b")
ITEMS = [PreheatItem(TaskSpec(url=f"https://origin.test/{n}"), f"file {n}", 100 * n) for n in range(1, 4)]
TASKS = [item.spec.task_id for item in ITEMS]
BAD = Failure("it is not there", 404)


def running(hosts: Any = HOSTS, readers: Any = (), items: Any = ITEMS) -> Job:
    job = Job(1, PreheatOrder("all", headers={"authorization": "secret"}), 0.0, 60.0)
    job.begin_running(items, hosts, 1.0, readers)
    return job


# --- targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (Targets(), 2),
        (Targets("all"), 4),
        (Targets("all", percent=34), 2),
        (Targets("all", percent=1), 1),
        (Targets("all", percent=100), 4),
        (Targets("all", count=3), 3),
        (Targets("all", count=30), 4),
        (Targets("seeders", count=1), 1),
        (Targets("seeders", percent=50), 1),
    ],
)
def test_seeders_come_first_and_the_choice_can_be_repeated(targets: Targets, count: int) -> None:
    chosen = targets.choose(["seeder2", "seeder1"], ["b", "a"], 7)
    assert len(chosen) == count
    assert chosen == targets.choose(["seeder1", "seeder2"], ["a", "b"], 7)
    assert set(chosen[:2]) <= {"seeder1", "seeder2"}


def test_different_preheats_choose_different_hosts() -> None:
    names = [f"host{n}" for n in range(20)]
    assert len({tuple(Targets("all", count=3).choose([], names, seed)) for seed in range(20)}) > 10


def test_nobody_can_be_chosen_where_nobody_is() -> None:
    assert Targets("all", count=3).choose([], [], 1) == []
    assert Targets("seeders").choose([], ["a"], 1) == []


# --- one job -----------------------------------------------------------------------------------------


def test_it_has_succeeded_when_every_host_holds_everything() -> None:
    job = running(("a", "b"))
    for host in ("a", "b"):
        for item, task in zip(ITEMS, TASKS, strict=True):
            assert not job.over
            assert job.brought(host, task, item.length or 0, {"peer": 10}, 5.0)
    assert (job.state, job.ended, job.failure) == ("succeeded", 5.0, None)
    assert (job.done_bytes, job.bytes["peer"]) == (1200, 60)


def test_credentials_are_forgotten_at_the_end() -> None:
    job = running(("a",))
    assert job.headers
    job.end("cancelled", None, 3.0)
    assert job.headers == {}
    assert "secret" not in repr(PreheatOrder("x", headers={"authorization": "secret"}))


def test_what_failed_makes_it_partial_and_is_named() -> None:
    job = running(("a", "b"))
    for task in TASKS:
        job.brought("a", task, 1, {}, 2.0)
    assert job.missed("b", TASKS[1], BAD, 3.0) == 1
    assert job.missed("b", TASKS[1], BAD, 3.0) == 0, "told twice"
    for task in (TASKS[0], TASKS[2]):
        job.brought("b", task, 1, {}, 4.0)
    assert (job.state, job.failure) == ("partial", BAD)
    assert [(f.item, f.host) for f in job.failures] == [(1, "b")]


def test_nothing_done_is_failed() -> None:
    job = running(("a",))
    assert job.give_up(["a"], BAD, 2.0) == 3
    assert job.state == "failed"


def test_unknown_reports_change_nothing() -> None:
    job = running(("a",))
    assert not job.brought("a", "no such task", 1, {}, 2.0)
    assert not job.brought("stranger", TASKS[0], 1, {}, 2.0)
    assert job.missed("stranger", TASKS[0], BAD, 2.0) == 0
    assert job.wants("a") == ITEMS
    assert job.wants("stranger") == []


def test_the_same_content_twice_is_brought_once() -> None:
    job = running(("a",), items=[*ITEMS, ITEMS[0]])
    assert job.wants("a") == ITEMS


def test_what_no_reader_can_read_fails_everywhere() -> None:
    job = running(HOSTS, readers=("seeder1", "seeder2"))
    assert job.missed("seeder1", TASKS[0], BAD, 2.0) == 1
    assert job.missed("a", TASKS[1], BAD, 2.0) == 1, "it is no reader: this one fails alone"
    assert job.missed("seeder2", TASKS[0], BAD, 2.0) == 3, "the last reader, and two that wait for it"
    assert job.failed[0] == 4


def test_what_a_reader_has_read_does_not_fail_elsewhere() -> None:
    job = running(HOSTS, readers=("seeder1", "seeder2"))
    job.brought("seeder1", TASKS[0], 1, {}, 2.0)
    assert job.missed("seeder2", TASKS[0], BAD, 2.0) == 1
    assert job.give_up(["seeder1", "seeder2"], BAD, 3.0) == 2 + 2 + 2 * 2
    assert {len(job.left[host]) for host in ("a", "b")} == {1}


events = st.lists(
    st.tuples(
        st.sampled_from(["brought", "missed", "give_up"]), st.sampled_from(HOSTS), st.sampled_from(TASKS)
    ),
    max_size=40,
)


@given(events, st.sets(st.sampled_from(HOSTS[:2])))
def test_any_order_of_events_ends_with_every_item_counted_once(
    told: list[tuple[str, str, str]], readers: set[str]
) -> None:
    job = running(HOSTS, readers)
    for event, host, task in told:
        if event == "brought":
            job.brought(host, task, 1, {}, 2.0)
        elif event == "missed":
            job.missed(host, task, BAD, 2.0)
        else:
            job.give_up([host], BAD, 2.0)
        left = sum(map(len, job.left.values()))
        assert job.done.total() + job.failed.total() + left == len(HOSTS) * len(ITEMS)
        assert job.over == (left == 0)
    job.give_up(job.hosts, BAD, 9.0)
    assert job.over
    assert job.state == ("succeeded" if not job.failed else "partial" if job.done else "failed")


# --- many --------------------------------------------------------------------------------------------


def test_ids_come_from_the_clock_and_never_twice() -> None:
    jobs = Jobs(history=10)
    first = jobs.add(PreheatOrder("a"), now=0, wall=1000.7, timeout=1)
    second = jobs.add(PreheatOrder("b"), now=0, wall=1000.9, timeout=1)
    third = jobs.add(PreheatOrder("c"), now=9, wall=2000.0, timeout=1)
    assert [job.id for job in (first, second, third)] == [1000, 1001, 2000]
    assert [job.shown for job in jobs] == ["c", "b", "a"]
    assert jobs.get(1001) is second


def test_old_ones_are_forgotten_and_those_that_go_on_are_not() -> None:
    jobs = Jobs(history=2)
    kept = jobs.add(PreheatOrder("kept"), now=0, wall=1, timeout=1)
    for number in range(5):
        jobs.add(PreheatOrder(str(number)), now=0, wall=10 + number, timeout=1).end("failed", BAD, 1.0)
    jobs.add(PreheatOrder("last"), now=0, wall=20, timeout=1)
    assert [job.shown for job in jobs] == ["last", "4", "3", "kept"]
    assert kept in jobs.active()


def test_items_of_those_that_are_over_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.preheats.MAX_ITEMS_KEPT", 7)
    jobs = Jobs(history=100)
    for number in range(5):
        job = jobs.add(PreheatOrder(str(number)), now=0, wall=number, timeout=1)
        job.begin_running(ITEMS, ["a"], 0.0)
        job.give_up(["a"], BAD, 1.0)
    jobs.add(PreheatOrder("last"), now=0, wall=9, timeout=1)
    assert [job.shown for job in jobs] == ["last", "4", "3"]


def test_there_are_not_more_than_so_many() -> None:
    jobs = Jobs(history=2)
    for number in range(MAX_QUEUED):
        jobs.add(PreheatOrder(str(number)), now=0, wall=1, timeout=1)
    with pytest.raises(TooManyPreheats, match="cancel"):
        jobs.add(PreheatOrder("one more"), now=0, wall=1, timeout=1)
