from __future__ import annotations

import pytest

from shared.task.generation import in_generation, is_generation, next_generation
from shared.task.identity import TaskSpec

SPEC = TaskSpec("https://origin.example/file")


def test_a_generation_is_the_time_in_milliseconds() -> None:
    assert next_generation("", 1.5) == "0000000005dc"
    assert next_generation("", 1_700_000_000.0) == "018bcfe56800"


@pytest.mark.parametrize("before", ["0000000005dc", "018bcfe56800", "ffff00000000"])
def test_generations_grow_when_the_clock_does_not(before: str) -> None:
    after = next_generation(before, 1.5)
    assert after > before
    assert int(after, 16) == int(before, 16) + 1
    assert len(after) == len(before)


def test_what_may_be_a_generation() -> None:
    for text in ("", "0000000005dc"):
        assert is_generation(text)
    for text in ("5dc", "0000000005DC", "0000000005dcz", "zzzzzzzzzzzz", "0000000005dc\n"):
        assert not is_generation(text)


def test_generations_are_tasks_of_one_content() -> None:
    later = in_generation(SPEC, "0000000005dc")
    assert later.task_id != SPEC.task_id == SPEC.logical_id == later.logical_id
    assert in_generation(later, "") == SPEC
    assert in_generation(later, later.generation) is later
