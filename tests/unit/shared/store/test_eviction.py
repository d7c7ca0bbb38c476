from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.store.eviction import Candidate, choose, choose_count, expired

candidates = st.lists(
    st.builds(
        Candidate,
        task_id=st.text("0123456789abcdef", min_size=4, max_size=4),
        size=st.integers(0, 100),
        accessed=st.floats(0, 1000),
        kept=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda candidate: candidate.task_id,
)


@given(candidates, st.integers(-10, 500))
def test_chosen_is_enough_and_no_more_than_needed(tasks: list[Candidate], needed: int) -> None:
    by_id = {task.task_id: task for task in tasks}
    chosen = [by_id[task_id] for task_id in choose(tasks, needed)]
    assert not any(task.kept for task in chosen)
    evictable = sum(task.size for task in tasks if not task.kept)
    if needed <= 0 or evictable < needed:
        assert chosen == []
    else:
        assert sum(task.size for task in chosen) >= needed
        assert sum(task.size for task in chosen[:-1]) < needed
        left = [t for t in tasks if not t.kept and t.size and t not in chosen]
        assert all(gone.accessed <= stays.accessed for gone in chosen for stays in left)


@given(candidates, st.integers(-1, 30))
def test_count_takes_the_oldest(tasks: list[Candidate], count: int) -> None:
    by_id = {task.task_id: task for task in tasks}
    chosen = [by_id[task_id] for task_id in choose_count(tasks, count)]
    free = [task for task in tasks if not task.kept]
    assert len(chosen) == min(max(0, count), len(free))
    assert all(gone.accessed <= stays.accessed for gone in chosen for stays in free if stays not in chosen)


@given(candidates, st.floats(0, 2000), st.floats(0, 500))
def test_expired_are_those_unused_for_long(tasks: list[Candidate], now: float, ttl: float) -> None:
    gone = expired(tasks, now, ttl)
    for task in tasks:
        due = ttl > 0 and not task.kept and task.accessed + ttl <= now
        assert (task.task_id in gone) == due
