"""A task that was going on before this scheduler knew it: its owner in the ring is gone, and this one is next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.strangers import MAX_STRANGERS, Strangers
from shared.protocol import (
    CheckGranted,
    FreshWanted,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    SourceFinished,
    SourceOpened,
    SourceProgress,
    SourceRevoked,
    TaskRemoved,
)
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import SPEC, Driver, digests, meta

HOSTS = ("a", "b", "c", "d", "e")
PIECES = 20
ABOUT = meta(pieces=PIECES)
THEIRS = "ffffffffffff-1"
"""The grant of the scheduler that is gone."""


def ring(*, known_for: float = 10, **settings: Any) -> Driver:
    """The next member, at which all hosts have had leases for a while."""
    d = Driver(**settings)
    d.join(*HOSTS)
    d.wait(known_for)
    return d


def goes_on(d: Driver, host: str, pieces: Sequence[int] = (), *, begun: bool = True) -> None:
    """What a host tells of its download when the task has got another owner."""
    held = Bitmap(pieces).to_bytes()
    d.say(
        host,
        PeerRegistered(SPEC.task_id, SPEC, begun=begun),
        PeerHolding(SPEC.task_id, SPEC, ABOUT, held, digests(pieces)),
    )


def test_who_reads_already_goes_on_and_nobody_reads_beside() -> None:
    d = ring()
    goes_on(d, "b", [0, 1])
    d.wait(0.5)
    goes_on(d, "c")
    assert d.readers() == []
    d.wait(1.5)
    goes_on(d, "a", [0, 1, 2, 3])
    d.read("a", 4, grant=THEIRS)
    assert d.readers() == ["a"]
    d.wait(0.5)
    assert "a" in d.parents("b")
    d.wait(1.5)
    goes_on(d, "d")
    goes_on(d, "e", [2], begun=False)
    for number in range(5, PIECES):
        d.read("a", number, grant=THEIRS)
        d.wait(1)
    d.say("a", SourceFinished(SPEC.task_id, THEIRS, ABOUT))
    d.wait(30)
    tally = d.state.cluster.tally
    assert (tally.grants, tally.grants_adopted, tally.taken_back) == (0, 1, 0)
    assert d.readers() == []
    assert d.all("a", SourceRevoked) == []


def test_when_the_reader_is_gone_as_well_another_one_reads_what_is_missing() -> None:
    d = ring()
    for host, pieces in (("b", [0, 1]), ("c", [1, 2]), ("d", []), ("e", [3])):
        goes_on(d, host, pieces)
        d.wait(0.5)
    assert d.readers() == []
    d.wait(0.9)
    assert d.readers() == []
    d.wait(0.2)
    (reader,) = d.readers()
    assert reader in "bc", "who holds most"
    assert d.grant(reader).pieces == [(4, PIECES - 4)]


def test_who_had_begun_nothing_but_was_told_of_elsewhere_waits_as_well() -> None:
    """The first to tell is one that had nothing yet when the owner died."""
    d = ring()
    d.want("b", taken_over=True)
    assert d.readers() == []
    d.wait(0.3)
    goes_on(d, "a", [0, 1])
    d.read("a", 2, grant=THEIRS)
    d.wait(10)
    assert d.state.cluster.tally.grants == 0
    assert d.parents("b") == ["a"]


def test_the_time_counts_from_the_first_who_tells() -> None:
    d = ring()
    goes_on(d, "b")
    d.wait(2.9)
    goes_on(d, "c")
    assert d.readers() == []
    d.wait(0.2)
    assert len(d.readers()) == 1


def test_what_others_hold_ends_the_waiting() -> None:
    d = ring()
    goes_on(d, "b")
    d.hold("c", range(PIECES), about=ABOUT, complete=True)
    d.wait(0.3)
    assert d.parents("b") == ["c"]
    d.wait(10)
    assert d.state.cluster.tally.grants == 0


def test_a_new_download_is_granted_at_once() -> None:
    d = ring()
    d.want("a")
    assert d.readers() == ["a"]


def test_a_new_download_of_what_goes_on_waits_with_the_others() -> None:
    d = ring()
    goes_on(d, "b")
    d.want("a")
    assert d.readers() == []
    d.wait(3.1)
    assert len(d.readers()) == 1


def test_cluster_only_is_refused_when_all_have_told() -> None:
    d = ring()
    d.want("a", begun=True, cluster_only=True)
    d.wait(2.9)
    assert d.failure("a") is None
    d.wait(0.3)
    failure = d.failure("a")
    assert failure is not None
    assert failure.fault == "request"


def test_a_read_under_way_is_preferred_to_one_that_was_granted_just_now() -> None:
    d = ring()
    d.want("b")
    assert d.readers() == ["b"]
    mine = d.grant("b").grant
    goes_on(d, "a", [0, 1])
    d.read("a", 2, grant=THEIRS)
    assert d.readers() == ["a"]
    assert d.all("b", SourceRevoked) == [SourceRevoked(SPEC.task_id, mine)]
    d.wait(0.5)
    assert d.parents("b") == ["a"]


def test_who_was_granted_what_it_reads_already_goes_on_with_that() -> None:
    d = ring()
    d.want("a")
    mine = d.grant("a").grant
    goes_on(d, "a", [0, 1])
    d.read("a", 2, grant=THEIRS)
    assert list(d.task().grants) == [THEIRS]
    assert d.all("a", SourceRevoked) == [SourceRevoked(SPEC.task_id, mine)]


def test_a_read_that_was_answered_here_goes_on() -> None:
    d = ring()
    d.want("b")
    d.opened("b", ABOUT)
    goes_on(d, "a", [0, 1])
    d.read("a", 2, grant=THEIRS)
    assert d.readers() == ["b"]
    assert d.all("a", SourceRevoked) == [SourceRevoked(SPEC.task_id, THEIRS)]
    assert list(d.task().peers["a"].held) == [0, 1, 2], "what was read counts"


def test_of_two_reads_under_way_one_goes_on() -> None:
    """Two networks have become one."""
    d = ring()
    goes_on(d, "a", [0, 1])
    d.read("a", 2, grant=THEIRS)
    goes_on(d, "b", [0])
    d.read("b", 1, grant="eeeeeeeeeeee-1")
    assert d.readers() == ["a"]
    assert d.all("b", SourceRevoked) == [SourceRevoked(SPEC.task_id, "eeeeeeeeeeee-1")]


def test_reads_that_are_told_of_before_the_task_is() -> None:
    d = ring()
    d.read("a", 0, grant=THEIRS)
    d.say("a", SourceProgress(SPEC.task_id, THEIRS, 5000))
    assert d.all("a", SourceRevoked) == []
    goes_on(d, "a", [0, 1])
    assert d.readers() == [], "it will tell"
    d.say("a", SourceProgress(SPEC.task_id, THEIRS, 9000))
    assert d.readers() == ["a"]
    goes_on(d, "b")
    d.wait(0.5)
    assert d.parents("b") == ["a"], "it was answered long ago"


def test_reads_of_what_never_becomes_known_are_ended() -> None:
    d = ring()
    for _ in range(4):
        d.say("a", SourceProgress(SPEC.task_id, THEIRS, 5000))
        assert d.all("a", SourceRevoked) == []
        d.wait(0.9)
    d.say("a", SourceProgress(SPEC.task_id, THEIRS, 5000))
    assert d.all("a", SourceRevoked) == [SourceRevoked(SPEC.task_id, THEIRS)]


def test_a_reader_whose_stream_is_not_open_yet_is_waited_for() -> None:
    d = Driver()
    d.join("b", "seeder")
    d.renew("a")
    goes_on(d, "a", [0])
    d.read("a", 1, grant=THEIRS)
    d.say("b", PeerRegistered(SPEC.task_id, SPEC))
    assert d.readers() == []
    d.open("a")
    d.read("a", 2, grant=THEIRS)
    assert d.readers() == ["a"]


def test_a_seeder_that_read_for_others_may_tell_it_first() -> None:
    d = Driver()
    d.join("seeder", "a", "b")
    d.wait(10)
    d.hold("seeder", [0, 1], about=ABOUT)
    d.want("b")
    assert d.readers() == [], "somebody had begun it"
    d.wait(1)
    d.read("seeder", 2, grant=THEIRS)
    assert d.readers() == ["seeder"]
    assert d.state.cluster.tally.grants == 0


def test_what_a_host_kept_from_before_its_start_makes_nobody_wait() -> None:
    d = ring()
    d.join("new")
    d.hold("new", [0, 1], about=ABOUT)
    d.want("new")
    assert len(d.readers()) == 1


def test_a_task_that_was_here_before_and_comes_back() -> None:
    """Another member had it meanwhile; what is remembered of it says nothing of who reads it now."""
    d = ring()
    goes_on(d, "a", [0, 1])
    d.wait(4)
    assert d.readers() == ["a"]
    d.say("a", PeerLeft(SPEC.task_id), TaskRemoved(SPEC.task_id))
    assert d.readers() == []
    d.wait(20)
    assert SPEC.task_id in d.state.cluster.tasks
    goes_on(d, "b", [0])
    assert d.readers() == []
    d.wait(1)
    goes_on(d, "a", [0, 1, 2])
    d.read("a", 3, grant=THEIRS)
    assert d.readers() == ["a"]


def test_a_share_of_a_read_is_all_that_its_reader_owes() -> None:
    """What the other scheduler granted is not known: pieces that are left out are read by somebody, also by it."""
    d = Driver()
    d.join("a")
    d.wait(10)
    goes_on(d, "a", [0, 1])
    d.read("a", 2, 3, grant=THEIRS)
    d.say("a", SourceFinished(SPEC.task_id, THEIRS, ABOUT))
    d.wait(3.1)
    assert d.readers() == ["a"]
    assert d.grant("a").pieces == [(4, PIECES - 4)]
    assert d.failure("a") is None


def test_a_read_without_progress_is_not_taken_over_again() -> None:
    d = ring()
    goes_on(d, "a", [0, 1])
    goes_on(d, "b")
    d.say("a", SourceProgress(SPEC.task_id, THEIRS, 5000))
    assert d.readers() == ["a"]
    d.wait(16)
    assert d.readers() == ["b"]
    d.say("a", SourceProgress(SPEC.task_id, THEIRS, 5000))
    assert d.readers() == ["b"]
    assert d.all("a", SourceRevoked)[-1] == SourceRevoked(SPEC.task_id, THEIRS)


def test_pieces_of_another_version_are_no_read_to_take_over() -> None:
    d = ring()
    d.hold("b", [0, 1], about=meta("v2", PIECES))
    goes_on(d, "c")
    d.read("a", 5, grant=THEIRS)
    assert d.readers() == []


def test_an_opened_read_brings_its_metadata() -> None:
    d = ring()
    d.want("b", begun=True)
    d.say("a", SourceOpened(SPEC.task_id, THEIRS, ABOUT))
    assert d.readers() == ["a"]
    d.wait(0.5)
    assert d.parents("b") == ["a"]


def test_several_readers_go_on_with_their_shares() -> None:
    d = ring(origin_readers=2)
    goes_on(d, "a", [0, 1])
    goes_on(d, "b", [10, 11])
    d.read("a", 2, grant=THEIRS)
    d.read("b", 12, grant="ffffffffffff-2")
    d.read("a", 13, grant="ffffffffffff-3")
    assert d.readers() == ["a", "b"]
    assert d.all("a", SourceRevoked) == [SourceRevoked(SPEC.task_id, "ffffffffffff-3")]


def test_tasks_settle_on_their_own() -> None:
    d = ring()
    goes_on(d, "a")
    other = TaskSpec(url="https://origin.test/other")
    d.want("b", spec=other)
    assert d.readers(other) == ["b"]
    assert d.readers() == []


def test_questions_wait_for_what_others_know_of_it() -> None:
    d = ring()
    about = meta(pieces=PIECES, revalidate=60)
    held = Bitmap([0, 1]).to_bytes()
    d.say("a", PeerHolding(SPEC.task_id, SPEC, about, held, digests([0, 1])))
    d.say("b", FreshWanted(SPEC.task_id, SPEC, about))
    d.wait(1)
    assert d.all("b", CheckGranted) == []
    whole = Bitmap(range(PIECES)).to_bytes()
    d.say("c", PeerHolding(SPEC.task_id, SPEC, about, whole, digests(range(PIECES)), complete=True, fresh=30))
    d.wait(10)
    assert [d.all(host, CheckGranted) for host in HOSTS] == [[]] * 5


@settings(max_examples=60, deadline=None)
@given(
    delays=st.lists(st.floats(0, 2.8), min_size=5, max_size=5),
    alive=st.booleans(),
    early=st.booleans(),
    known_for=st.sampled_from([0.0, 10.0]),
)
def test_the_owner_of_a_download_dies(
    delays: list[float], alive: bool, early: bool, known_for: float
) -> None:
    """All who notice tell one after the other: a reader goes on undisturbed; without one, another reads soon."""
    d = ring(known_for=known_for)
    began, received = d.now, 0
    telling = sorted(zip(delays, HOSTS, strict=True))
    first = next(delay for delay, host in telling if alive or host != "a")

    def go_on_reading() -> None:
        nonlocal received
        received += 1
        d.say("a", SourceProgress(SPEC.task_id, THEIRS, 1000 * received))
        d.read("a", min(7 + received, PIECES - 1), grant=THEIRS)

    for delay, host in telling:
        d.wait(began + delay - d.now)
        if host != "a":
            goes_on(d, host, range("bcde".index(host) + 1))
        elif alive:
            if early:
                go_on_reading()
            goes_on(d, "a", range(8 + received))
            go_on_reading()
        else:
            d.leave("a")
        if "a" in d.readers():
            go_on_reading()
    tally = d.state.cluster.tally
    if not alive:
        d.wait(max(0.0, began + first + 3.01 - d.now))
        assert tally.grants == 1
        assert d.grant(d.readers()[0]).pieces == [(4, PIECES - 4)]
        return
    for _ in range(20):
        d.wait(1)
        go_on_reading()
    d.say("a", SourceFinished(SPEC.task_id, THEIRS, ABOUT))
    d.wait(30)
    assert (tally.grants, tally.grants_adopted, tally.taken_back) == (0, 1, 0)
    assert d.all("a", SourceRevoked) == []


def test_strangers_are_bounded() -> None:
    strangers = Strangers()
    for number in range(3 * MAX_STRANGERS):
        assert strangers.known_for(f"g{number}", 1.0) == 0.0
        strangers.adopt(f"h{number}")
    assert strangers.known_for("g0", 5.0) == 0.0, "forgotten"
    assert strangers.known_for(f"g{3 * MAX_STRANGERS - 1}", 5.0) == 4.0
    assert strangers.was_adopted(f"h{3 * MAX_STRANGERS - 1}")
    assert not strangers.was_adopted("h0")
    assert len(strangers._heard) == len(strangers._adopted) == MAX_STRANGERS
