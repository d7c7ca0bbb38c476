"""Content is checked against its source once for the cluster, and what has changed becomes a new task."""

from __future__ import annotations

import pytest

from shared.protocol import (
    CheckGranted,
    FreshWanted,
    PeerLeft,
    PeerRegistered,
    SourceGranted,
    TaskDescribed,
    TaskFresh,
    TaskMoved,
)
from shared.task.generation import in_generation, is_generation, next_generation
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import SPEC, WALL, Driver, meta

TASK = SPEC.task_id
PRIVATE = TaskSpec(url="https://origin.test/secret", scope="ab" * 16)
ABOUT = meta(revalidate=60)


def read_once(*hosts: str) -> Driver:
    """A cluster in which the seeder has read the content for ``hosts``, who hold it too."""
    d = Driver()
    d.join("seeder", *hosts)
    d.want(*hosts)
    d.read_all("seeder", ABOUT)
    for host in hosts:
        d.got(host, *range(4))
        d.finish(host)
    return d


def moved(d: Driver, host: str) -> str:
    """The generation that the host was sent to."""
    told = d.all(host, TaskMoved)
    assert told
    assert told[-1].task == TASK
    return told[-1].generation


# --- fresh ---------------------------------------------------------------------------------------------


def test_fresh_content_is_served_at_once() -> None:
    d = read_once("a")
    d.join("b")
    d.wait(59)
    d.want("b")
    assert d.parents("b")
    assert d.all("b", TaskFresh) == [TaskFresh(TASK, 1.0)]
    d.ask("a")
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 1.0)
    assert d.checks() == []


def test_who_waits_for_the_read_is_told_how_long_it_is_fresh() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.opened("seeder", ABOUT)
    assert d.all("a", TaskFresh) == [TaskFresh(TASK, 60.0)]
    assert d.all("seeder", TaskFresh) == []


def test_content_that_is_being_read_is_not_checked() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.opened("seeder", ABOUT)
    for _ in range(9):
        d.wait(10)
        d.read("seeder", 0)
        d.progress("seeder", int(d.now))
    d.want("b")
    assert d.parents("b") == ["seeder"]
    d.ask("a")
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 0.0)
    assert d.checks() == []


def test_content_addressed_content_is_never_checked() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.read_all("seeder", meta())
    d.wait(100_000)
    d.want("b")
    assert d.parents("b")
    d.ask("a", about=meta())
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 0.0)
    assert d.checks() == []


# --- the check -----------------------------------------------------------------------------------------


def test_all_who_want_it_share_one_check_by_the_seeder() -> None:
    d = read_once("a", "b")
    d.join("c", "d")
    d.wait(61)
    d.forget_told()
    d.ask("a", "b")
    d.want("c", "d")
    check = d.check("seeder")
    assert (check.spec, check.meta, check.task) == (SPEC, ABOUT, TASK)
    assert check.patience == pytest.approx(8)
    assert all(d.told.get(host, []) == [] for host in "abcd"), "all wait"
    d.answer("seeder", expired=False)
    assert len(d.checks()) == 1
    for host in "ab":
        assert d.told[host] == [TaskFresh(TASK, 60.0)]
    for host in "cd":
        assert d.all(host, TaskDescribed)[-1].meta == ABOUT
        assert d.all(host, TaskFresh) == [TaskFresh(TASK, 60.0)]
        assert d.parents(host)
    d.wait(59)
    d.ask("a")
    assert len(d.checks()) == 1
    d.wait(2)
    d.ask("a")
    assert len(d.checks()) == 2


def test_content_that_is_always_checked() -> None:
    always = meta(revalidate=0)
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.read_all("seeder", always)
    d.got("a", *range(4))
    d.finish("a")
    for count in (1, 2, 3):
        d.ask("a", about=always)
        d.answer("seeder", expired=False)
        assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 0.0)
        assert len(d.checks()) == count


def test_changed_content_is_a_task_of_its_own() -> None:
    d = read_once("a", "b")
    d.join("c")
    d.wait(61)
    d.ask("a")
    d.want("c")
    d.answer("seeder", expired=True)
    generation = moved(d, "a")
    assert generation == f"{int((WALL + d.now) * 1000):012x}"
    assert moved(d, "c") == generation
    new = in_generation(SPEC, generation)
    d.want("a", "c", spec=new)
    assert d.readers(new) == ["seeder"]
    d.read_all("seeder", meta("v2", revalidate=60))
    assert d.all("a", TaskFresh)[-1] == TaskFresh(new.task_id, 60.0)
    d.ask("b")
    assert moved(d, "b") == generation
    assert len(d.checks()) == 1
    assert d.task().version == "v1"
    assert set(d.task().holders) == {"a", "b", "seeder"}


def test_a_reader_of_the_old_generation_is_left_alone() -> None:
    d = read_once("a")
    d.join("slow")
    d.want("slow")
    d.wait(61)
    d.ask("a")
    d.answer("seeder", expired=True)
    assert moved(d, "a")
    d.say("slow", PeerRegistered(TASK, SPEC))  # told once more
    assert d.all("slow", TaskMoved) == []
    d.say("slow", PeerLeft(TASK), PeerRegistered(TASK, SPEC, begun=True))
    assert d.all("slow", TaskMoved) == []
    assert set(d.parents("slow")) == {"a", "seeder"}
    d.say("slow", PeerLeft(TASK), PeerRegistered(TASK, SPEC))
    assert moved(d, "slow") == moved(d, "a")


def test_generations_grow_when_the_clock_does_not() -> None:
    assert next_generation("", 1.5) == "0000000005dc"
    assert next_generation("0000000005dc", 1.5) == "0000000005dd"
    assert is_generation("")
    assert is_generation("0000000005dc")
    assert not is_generation("5dc")
    assert in_generation(SPEC, "0000000005dc").logical_id == SPEC.logical_id == TASK


def test_who_must_not_cause_reads_causes_no_check() -> None:
    d = read_once("a")
    d.join("b")
    d.wait(61)
    d.want("b", cluster_only=True)
    assert d.parents("b")
    assert d.checks() == []
    d.ask("a")
    d.answer("seeder", expired=True)
    d.say("b", PeerLeft(TASK))
    d.want("b", cluster_only=True)
    assert moved(d, "b") == moved(d, "a"), "it gets the current generation, if any"


def test_content_that_nobody_holds_is_read_and_not_checked() -> None:
    d = read_once("a")
    d.join("b")
    d.wait(61)
    d.leave("seeder")
    d.leave("a")
    d.want("b")
    assert d.readers() == ["b"]
    assert d.checks() == []


# --- who checks ----------------------------------------------------------------------------------------


def test_without_a_seeder_one_who_asked_checks() -> None:
    d = Driver()
    d.join("a", "b")
    d.hold("a", range(4), about=ABOUT, complete=True)
    d.hold("b", range(4), about=ABOUT, complete=True)
    d.ask("a", may_read=False)
    assert d.checks() == []
    assert d.all("a", TaskFresh) == [TaskFresh(TASK, 60.0, stale=True)], "nobody can: it stays served"
    d.wait(61)
    d.ask("b")
    assert [host for host, _ in d.checks()] == ["b"]


def test_seeders_that_do_not_read_the_scheme_are_not_asked() -> None:
    d = Driver()
    d.join("seeder1", schemes=("http",))
    d.join("a", schemes=("http", "https"))
    d.hold("a", range(4), about=ABOUT, complete=True)
    d.ask("a")
    assert [host for host, _ in d.checks()] == ["a"]


def test_private_content_is_checked_only_by_who_asked_for_it() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    for host in ("a", "b", "seeder"):
        d.hold(host, range(4), about=ABOUT, complete=True, spec=PRIVATE)
    d.ask("a", spec=PRIVATE)
    assert [host for host, _ in d.checks(PRIVATE)] == ["a"]
    d.answer("a", expired=None)
    assert d.all("a", TaskFresh) == [TaskFresh(PRIVATE.task_id, 60.0, stale=True)]


@pytest.mark.parametrize("way", ["silent", "left", "lost", "cannot"])
def test_a_checker_that_does_not_answer_is_replaced_once(way: str) -> None:
    d = read_once("a")
    d.wait(61)
    d.join("seeder2", "seeder3")
    d.ask("a")
    ((first, _),) = d.checks()
    late = d.check(first).grant

    def fail(host: str) -> None:
        if way == "silent":
            d.wait(10)
        elif way == "left":
            d.leave(host)
        elif way == "lost":
            d.close(host)
            d.wait(10)
        else:
            d.answer(host, expired=None)

    fail(first)
    second = d.checks()[-1][0]
    assert len(d.checks()) == 2
    assert second != first
    assert d.all("a", TaskFresh) == [TaskFresh(TASK, 60.0)], "only that of the read"
    if way == "silent":
        d.answer(first, expired=True, grant=late)
        assert d.all("a", TaskMoved) == [], "its word comes too late"
    fail(second)
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 60.0, stale=True)
    assert len(d.all("a", TaskFresh)) == 2
    assert len(d.checks()) == 2
    d.wait(61)
    d.ask("a")
    assert len(d.checks()) == 3, "and is tried again when the time has come"


# --- stale ---------------------------------------------------------------------------------------------


def test_a_source_in_trouble_leaves_content_served_as_stale() -> None:
    d = read_once("a", "b")
    d.join("c", "d")
    d.wait(61)
    d.forget_told()
    d.ask("a")
    d.want("c")
    d.answer("seeder", expired=False, failed=True)
    assert d.all("a", TaskFresh) == d.all("c", TaskFresh) == [TaskFresh(TASK, 60.0, stale=True)]
    assert d.parents("c")
    assert len(d.checks()) == 1, "one failure is enough: the source is protected"
    assert d.state.cluster.tally.checks == {"failed": 1}
    d.wait(20)
    d.ask("b")
    d.want("d")
    assert d.all("b", TaskFresh) == d.all("d", TaskFresh) == [TaskFresh(TASK, 40.0, stale=True)]
    assert len(d.checks()) == 1


def test_a_good_check_ends_that() -> None:
    d = read_once("a")
    d.wait(61)
    d.ask("a")
    d.answer("seeder", expired=False, failed=True)
    d.wait(61)
    d.ask("a")
    assert d.all("a", TaskFresh)[-1].stale, "nothing is said before the answer"
    d.answer("seeder", expired=False)
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 60.0)
    d.join("b")
    d.want("b")
    assert d.all("b", TaskFresh) == [TaskFresh(TASK, 60.0)]


def test_a_read_ends_that_too() -> None:
    d = read_once("a")
    d.wait(61)
    d.ask("a")
    d.answer("seeder", expired=False, failed=True)
    d.leave("a")
    d.join("b")
    d.want("b")
    d.leave("seeder")
    assert d.all("b", TaskFresh)[-1].stale
    d.opened("b", ABOUT)
    d.join("c")
    d.want("c")
    assert d.all("c", TaskFresh) == [TaskFresh(TASK, 60.0)]


def test_content_that_is_always_checked_is_stale_while_it_cannot_be() -> None:
    always = meta(revalidate=0)
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.read_all("seeder", always)
    d.want("b")
    d.answer("seeder", expired=False, failed=True)
    assert d.all("b", TaskFresh) == [TaskFresh(TASK, 0.0, stale=True)]
    assert d.parents("b")
    d.ask("seeder", about=always)
    d.answer("seeder", expired=False)
    assert d.all("seeder", TaskFresh) == [TaskFresh(TASK, 0.0)]


def test_after_a_restart_hosts_tell_what_is_stale() -> None:
    d = Driver()
    d.join("seeder", "a", resuming=True)
    d.hold("seeder", range(4), about=ABOUT, complete=True, fresh=20.0, stale=True)
    d.want("a")
    assert d.all("a", TaskFresh) == [TaskFresh(TASK, 20.0, stale=True)]
    d.join("b")
    d.hold("b", range(4), about=ABOUT, complete=True, fresh=50.0)
    d.ask("a")
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 50.0), "somebody could ask"
    d.hold("a", range(4), about=ABOUT, complete=True, fresh=55.0, stale=True)
    d.ask("a")
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 50.0)


# --- who checks, and how long --------------------------------------------------------------------------


def test_a_checker_whose_stream_was_broken_is_told_again() -> None:
    d = read_once("a")
    d.wait(61)
    d.ask("a")
    d.close("seeder")
    d.forget_told()
    d.wait(1)
    d.open("seeder")
    d.answer("seeder", expired=False)
    assert d.all("a", TaskFresh) == [TaskFresh(TASK, 60.0)]
    assert d.state.cluster.tally.checks == {"valid": 1}


def test_a_folder_takes_longer_to_check_than_a_file() -> None:
    folder = TaskSpec(url="https://origin.test/folder/", tree="files")
    d = Driver()
    d.join("seeder")
    d.hold("seeder", range(4), about=ABOUT, complete=True, spec=folder)
    d.ask("seeder", spec=folder)
    d.wait(50)
    assert d.all("seeder", TaskFresh) == []
    assert d.check("seeder").patience == pytest.approx(48)
    d.answer("seeder", expired=False)
    assert len(d.all("seeder", TaskFresh)) == 1


def test_an_answer_that_nobody_waits_for_any_more_counts() -> None:
    d = read_once("a")
    d.join("b")
    d.wait(61)
    d.want("b")
    d.say("b", PeerLeft(TASK))
    d.leave("b")
    d.answer("seeder", expired=False)
    d.ask("a")
    assert d.all("a", TaskFresh)[-1] == TaskFresh(TASK, 60.0)
    assert len(d.checks()) == 1
    assert d.state.cluster.present("b") is None


def test_what_hosts_make_up_is_not_believed() -> None:
    d = read_once("a")
    d.join("b")
    d.wait(61)
    d.ask("a")
    given = d.check("seeder")
    d.told["b"] = [given]
    d.answer("b", expired=True)
    assert d.all("a", TaskMoved) == []
    d.answer("seeder", expired=True, grant="another")
    assert d.all("a", TaskMoved) == []
    for wrong in (
        FreshWanted(TASK, SPEC, meta(revalidate=float("nan"))),
        FreshWanted(TASK, SPEC, meta(revalidate=-1)),
        FreshWanted(in_generation(SPEC, "zz").task_id, in_generation(SPEC, "zz"), ABOUT),
        FreshWanted(TASK, PRIVATE, ABOUT),
    ):
        d.say("b", wrong)
    d.hold("b", range(4), about=ABOUT, fresh=float("inf"))
    assert d.state.cluster.tally.invalid == 5
    assert d.state.cluster.generations == {}


# --- restarts ------------------------------------------------------------------------------------------


def test_after_a_restart_hosts_tell_what_is_fresh() -> None:
    d = Driver()
    d.join("seeder", "a", resuming=True)
    d.want("a")
    d.hold("seeder", range(4), about=ABOUT, complete=True, fresh=20.0)
    d.wait(19)
    assert d.parents("a") == ["seeder"]
    d.ask("seeder")
    assert d.all("seeder", TaskFresh)[-1] == TaskFresh(TASK, 1.0)
    d.wait(2)
    d.ask("seeder")
    assert len(d.checks()) == 1


def test_after_a_restart_hosts_have_time_to_tell() -> None:
    d = Driver()
    d.join("seeder", "a", "b", resuming=True)
    d.hold("seeder", range(4), about=ABOUT, complete=True)
    d.ask("seeder")
    d.want("a")
    assert d.checks() == []
    d.hold("b", range(4), about=ABOUT, complete=True, fresh=20.0)
    assert d.all("seeder", TaskFresh) == [TaskFresh(TASK, 20.0)]
    assert set(d.parents("a")) == {"seeder", "b"}
    assert d.checks() == []
    other = TaskSpec(url="https://origin.test/other")
    d.hold("seeder", range(4), about=ABOUT, complete=True, spec=other)
    d.ask("seeder", spec=other)
    d.wait(3)
    assert len(d.checks(other)) == 1, "nobody has told"


def test_after_a_restart_the_greatest_generation_counts() -> None:
    d = Driver()
    d.join("seeder", "a", "b", "c", resuming=True)
    older, newer = in_generation(SPEC, "0000000005dc"), in_generation(SPEC, "0000000005dd")
    d.hold("a", range(4), about=ABOUT, complete=True)
    d.ask("a")
    d.want("c")
    d.hold("b", range(4), about=meta("v3", revalidate=60), complete=True, spec=newer, fresh=5.0)
    assert moved(d, "a") == moved(d, "c") == newer.generation
    d.hold("seeder", range(4), about=meta("v2", revalidate=60), complete=True, spec=older, fresh=50.0)
    assert d.all("seeder", TaskMoved) == [TaskMoved(older.task_id, newer.generation)]
    d.want("a", "c", spec=newer)
    assert d.parents("c") == ["b"]
    assert d.checks() == []
    assert not d.all("seeder", SourceGranted)


def test_a_generation_that_only_a_host_knows_is_taken_over() -> None:
    d = read_once("a")
    d.join("b")
    newer = in_generation(SPEC, "ffff00000000")
    d.want("b", spec=newer)
    assert d.readers(newer) == ["seeder"]
    d.wait(61)
    d.ask("a")
    assert moved(d, "a") == newer.generation
    d.read_all("seeder", meta("v2", revalidate=1))
    d.wait(61)
    d.ask("seeder", spec=newer, about=meta("v2", revalidate=1))
    d.answer("seeder", expired=True)
    assert d.all("seeder", TaskMoved)[-1].generation == "ffff00000001"


def test_an_old_version_of_the_same_task_hears_of_the_current_one() -> None:
    d = read_once("a")
    d.join("b")
    d.ask("b", about=meta("v0", revalidate=60))
    assert d.all("b", TaskDescribed)[-1].meta == ABOUT
    assert d.all("b", TaskFresh) == [TaskFresh(TASK, 60.0)]


def test_generations_are_forgotten_with_their_tasks() -> None:
    d = read_once("a")
    d.wait(61)
    d.ask("a")
    d.answer("seeder", expired=True)
    assert d.state.cluster.generations
    d.leave("a")
    d.leave("seeder")
    d.wait(61)
    assert d.state.cluster.tasks == {}
    assert d.state.cluster.generations == {}


def test_no_room_for_a_task_that_is_asked_about() -> None:
    d = Driver(max_tasks=1)
    d.join("a", "b", "seeder")
    d.want("a")
    other = TaskSpec(url="https://origin.test/other")
    d.ask("b", spec=other)
    assert d.all("b", TaskFresh) == [TaskFresh(other.task_id, 0.0, stale=True)]
    assert d.all("seeder", CheckGranted) == []
