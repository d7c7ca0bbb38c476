"""Who decides for which task, and who was told what of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.swarm import ownership, ring
from shared.swarm.ownership import Ownership
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec

SPEC = TaskSpec("https://origin.example/file")
LATER = in_generation(SPEC, "00018bcfe568")
TASKS = [f"{number:064x}" for number in range(50)]


class Book:
    def __init__(self, *members: str) -> None:
        self.specs: dict[str, TaskSpec] = {}
        self.of = Ownership(self.specs.get)
        for member in members:
            self.of.add(member)

    def usable(self, *members: str) -> set[str]:
        return set(self.of.decide(frozenset(members)))


def test_those_that_can_be_used_decide_and_else_those_that_last_could() -> None:
    book = Book("a", "b", "c")
    assert book.of.owner(SPEC.task_id) == ""
    book.usable()
    assert book.of.deciding == {"a", "b", "c"}
    assert book.usable("a", "b") == {"c"}
    assert book.usable() == set()
    assert book.of.deciding == {"a", "b"}
    book.of.remove("a")
    assert book.usable() == set()
    assert book.of.deciding == {"b"}
    book.of.remove("b")
    book.usable()
    assert book.of.deciding == {"c"}
    assert book.usable("c") == set()
    assert book.of.owner("anything") == "c"


def test_all_generations_of_a_content_belong_together() -> None:
    members = frozenset(f"host-{number}" for number in range(20))
    book = Book(*members)
    book.usable(*members)
    assert book.of.owner(SPEC.task_id) == ring.owner(members, SPEC.task_id)
    assert book.of.owner(LATER.task_id) == ring.owner(members, LATER.task_id), "not known to be a generation"
    book.of.note(LATER.task_id, LATER)
    assert book.of.owner(LATER.task_id) == ring.owner(members, SPEC.task_id)
    other = Book(*members)
    other.specs[LATER.task_id] = LATER
    other.usable(*members)
    assert other.of.owner(LATER.task_id) == ring.owner(members, SPEC.task_id)


@given(st.lists(st.frozensets(st.sampled_from("abcdefg")), max_size=150), st.randoms(use_true_random=False))
def test_whoever_came_and_went_before_the_ring_is_what_counts(
    steps: list[frozenset[str]], rng: random.Random
) -> None:
    book = Book(*"abcdefg")
    for usable in steps:
        book.of.decide(usable)
        for task in rng.sample(TASKS, 5):
            assert book.of.owner(task) == ring.owner(book.of.deciding, task)


def test_a_spec_of_another_task_says_nothing() -> None:
    members = [f"host-{number}" for number in range(20)]
    book = Book(*members)
    book.usable(*members)
    for task in TASKS:
        before = book.of.owner(task)
        book.of.note(task, LATER)
        assert book.of.owner(task) == before


def test_who_was_told_is_told_again_when_it_may_have_lost_it() -> None:
    book = Book("a", "b")
    book.usable("a", "b")
    for task in TASKS:
        assert not book.of.is_told(task)
        assert not book.of.was_told(task)
        book.of.tell(task, 0.0)
        assert book.of.is_told(task)
    of_a = [task for task in TASKS if book.of.owner(task) == "a"]
    assert 0 < len(of_a) < len(TASKS)
    assert book.usable("b") == {"a"}
    assert [task for task in TASKS if not book.of.is_told(task)] == of_a
    book.usable("a", "b")
    assert [task for task in TASKS if not book.of.is_told(task)] == of_a, "what was on its way to it is lost"
    book.of.tell(of_a[0], 1.0)
    assert book.of.is_told(of_a[0])
    book.of.drop(of_a[0], 2.0)
    assert not book.of.was_told(of_a[0])
    assert not book.of.leaving
    book.usable("b")
    book.of.tell(of_a[1], 3.0)
    book.usable("a", "b")
    book.of.drop(of_a[1], 4.0)
    assert list(book.of.farewells("b", 4.0, 9)) == [of_a[1]]


def test_the_former_owner_is_taken_leave_of_once_and_not_if_it_has_it_again() -> None:
    book = Book("a", "b")
    book.usable("a")
    for task in TASKS:
        book.of.tell(task, 0.0)
    book.usable("a", "b")
    of_b = [task for task in TASKS if book.of.owner(task) == "b"]
    for task in of_b:
        book.of.tell(task, 10.0)
    assert book.of.leaving
    assert list(book.of.farewells("a", 9.0, 100)) == []
    assert list(book.of.farewells("a", 10.0, 3)) == of_b[:3]
    book.usable("a")
    book.of.tell(of_b[3], 11.0)
    book.usable("a", "b")
    book.of.tell(of_b[3], 12.0)
    book.usable("a")
    assert of_b[3] not in list(book.of.farewells("a", 11.0, 1))
    book.usable("a", "b")
    assert set(book.of.farewells("a", 11.0, 100)) <= set(of_b[4:])
    book.of.take_leave("a", of_b[5], 20.0)
    book.of.forgotten("a")
    assert list(book.of.farewells("a", 99.0, 100)) == []
    book.of.take_leave("nobody", of_b[5], 20.0)
    assert not book.of.leaving


def test_what_happened_without_a_scheduler_is_told_to_the_first() -> None:
    book = Book()
    book.of.tell(SPEC.task_id, 0.0)
    assert book.of.was_told(SPEC.task_id)
    assert not book.of.is_told(SPEC.task_id)
    book.of.add("a")
    book.usable("a")
    assert not book.of.is_told(SPEC.task_id)
    book.of.tell(SPEC.task_id, 0.0)
    assert book.of.is_told(SPEC.task_id)
    assert not book.of.leaving


def test_what_nobody_here_has_any_more_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "REMEMBERED", 10)
    book = Book("a", "b")
    book.usable("a", "b")
    for number in range(1000):
        spec = in_generation(TaskSpec(f"https://origin.example/{number}"), LATER.generation)
        if number < 30:
            book.specs[spec.task_id] = spec
        book.of.note(spec.task_id, spec)
        book.of.owner(spec.task_id)
        book.of.tell(spec.task_id, 0.0)
    assert all(book.of.is_told(task) for task in book.specs)
    assert len(book.of._told) <= 100
    assert len(book.of._keys) <= 100
    assert len(book.of._owners) <= 100
