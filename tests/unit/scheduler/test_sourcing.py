from __future__ import annotations

from structlog.testing import capture_logs

from shared.loudness import MOST
from shared.protocol import (
    Failure,
    PeerLeft,
    PeerRegistered,
    PieceDigests,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourceOpened,
    SourcePieces,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskRemoved,
)
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import SPEC, Driver, digest, digests, meta

PRIVATE = TaskSpec(url="https://origin.test/secret", scope="ab" * 16)


def test_a_seeder_is_told_to_read_first_and_only_one() -> None:
    d = Driver()
    d.join("a", "b", "seeder1", "seeder2")
    d.want("a", "b")
    assert len(d.readers()) == 1
    reader = d.readers()[0]
    assert reader.startswith("seeder")
    grant = d.grant(reader)
    assert (grant.spec, grant.meta, grant.pieces, grant.digests) == (SPEC, None, None, {})


def test_the_least_loaded_seeder_reads() -> None:
    d = Driver()
    d.join("a")
    d.join("seeder1", uploads=7)
    d.join("seeder2", uploads=1)
    d.want("a")
    assert d.readers() == ["seeder2"]
    other = TaskSpec(url="https://origin.test/other")
    d.want("a", spec=other)
    assert d.readers(other) == ["seeder1"], "who reads already is not the first choice"


def test_without_a_seeder_a_registered_peer_that_may_reads() -> None:
    d = Driver()
    d.join("a", "b", "c")
    d.want("a", may_read=False)
    assert d.readers() == []
    d.want("b")
    assert d.readers() == ["b"]


def test_private_content_is_read_only_by_who_asked_for_it() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a", spec=PRIVATE)
    assert d.readers(PRIVATE) == ["a"]
    d = Driver()
    d.join("a", "seeder")
    d.want("a", spec=PRIVATE, may_read=False)
    d.wait(4)
    failure = d.failure("a")
    assert failure is not None
    assert "only a host that was given them may read it" in failure.words


def test_only_hosts_that_read_the_scheme_are_told_to() -> None:
    d = Driver()
    d.join("seeder1", schemes=("http", "file"))
    d.join("seeder2", schemes=("https",))
    d.join("a", schemes=("http",))
    d.want("a", may_read=False)
    assert d.readers() == ["seeder2"]


def test_a_scheme_that_nobody_reads_is_told_with_those_that_somebody_does() -> None:
    d = Driver()
    d.join("seeder", schemes=("http", "file"))
    d.join("a", schemes=("http",))
    d.want("a", may_read=False)
    d.wait(4)
    failure = d.failure("a")
    assert failure is not None
    assert "no host in the cluster reads https:// (they read: file, http): install a plugin" in failure.words


def test_private_content_of_a_scheme_that_the_asker_does_not_read() -> None:
    d = Driver()
    d.join("seeder", schemes=("https",))
    d.join("a", schemes=("http",))
    d.want("a", spec=PRIVATE, may_read=False)
    d.wait(4)
    failure = d.failure("a")
    assert failure is not None
    assert "none of those reads https://" in failure.words


def test_everyone_hears_what_the_reader_found() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a", "b")
    d.opened("seeder")
    d.read("seeder", 0, 1)
    for host in ("a", "b"):
        assert d.all(host, TaskDescribed)[-1].meta == meta()
        assert d.all(host, PieceDigests)[-1] == PieceDigests(SPEC.task_id, "v1", digests([0, 1]))
        assert d.parents(host) == ["seeder"]
    assert d.all("seeder", TaskDescribed) == []


def test_who_comes_late_hears_it_at_once() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.read_all("seeder")
    d.want("b")
    assert [type(x).__name__ for x in d.told["b"]] == ["TaskDescribed", "PieceDigests", "ParentsAssigned"]
    assert d.readers() == []
    assert len(d.all("seeder", SourceGranted)) == 1


def test_a_lost_reader_is_replaced_at_once_and_reads_only_what_nobody_holds() -> None:
    d = Driver()
    d.join("a", "b", "seeder1")
    d.want("a", "b")
    d.join("seeder2")
    d.opened("seeder1")
    d.read("seeder1", 0, 1)
    d.got("a", 0)
    d.leave("seeder1")
    assert d.readers() == ["seeder2"]
    grant = d.grant("seeder2")
    assert grant.pieces == [(1, 3)]
    assert grant.meta == meta()
    assert grant.digests == digests([0, 1])


def test_a_reader_whose_stream_breaks_is_replaced_after_the_grace() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a")
    d.join("seeder2")
    d.close("seeder1")
    d.wait(1.9)
    assert d.readers() == ["seeder1"]
    d.wait(0.2)
    assert d.readers() == ["seeder2"]
    assert d.state.cluster.tally.taken_back == 1


def test_a_restarted_reader_loses_its_grant_to_the_next() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a")
    first = d.grant("seeder1").grant
    d.renew("seeder1", instance="seeder1-2")
    d.open("seeder1")
    assert d.readers() == ["seeder1"] or d.readers() == ["a"]
    assert first not in d.task().grants
    assert all(count >= 0 for count in d.state.cluster.reads.values())


def test_a_draining_host_gets_no_grant_and_loses_the_one_it_has() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a", may_read=False)
    d.join("seeder2")
    d.renew("seeder1", draining=True)
    assert d.readers() == ["seeder2"]
    assert d.all("seeder1", SourceRevoked)[-1].grant == d.grant("seeder1").grant


def test_a_read_without_progress_goes_to_another() -> None:
    d = Driver()
    d.join("a", "seeder1", "seeder2")
    d.want("a", may_read=False)
    first = d.readers()[0]
    d.wait(14)
    d.progress(first, 100)
    d.wait(14)
    assert d.readers() == [first], "slow is not stuck"
    d.progress(first, 100)
    d.wait(2)
    assert d.readers() == [{"seeder1": "seeder2", "seeder2": "seeder1"}[first]]
    assert d.all(first, SourceRevoked)


def test_a_stuck_read_that_nobody_else_can_do_gets_more_time_then_all_are_told() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a", may_read=False)
    d.wait(59)
    assert d.readers() == ["seeder"]
    d.wait(2)
    assert d.readers() == []
    failure = d.failure("a")
    assert failure is not None
    assert "made no progress" in failure.words


def test_a_failed_reader_is_followed_by_others_each_once_then_all_fail() -> None:
    d = Driver()
    d.join("a", "seeder1", "seeder2")
    d.want("a")
    tried = []
    for _ in range(3):
        assert d.failure("a") is None
        tried.append(d.readers()[0])
        d.read_failed(tried[-1], words="no route", fault="reader")
    assert sorted(tried) == ["a", "seeder1", "seeder2"]
    assert tried[-1] == "a"
    assert d.failure("a") == Failure("no route", fault="reader")
    assert d.task().waiting == {}


def test_an_origin_failure_reaches_all_and_is_remembered() -> None:
    d = Driver()
    d.join("a", "b", "c", "seeder1", "seeder2")
    d.want("a", "b")
    d.read_failed(d.readers()[0], words="not found", status=404)
    for host in ("a", "b"):
        assert d.failure(host) == Failure("not found", 404)
    d.want("c")
    assert d.failure("c") == Failure("not found", 404)
    assert d.state.cluster.tally.grants == 1
    d.wait(5.1)
    d.want("c")
    assert len(d.readers()) == 1, "after a while it is tried again"


def test_retry_after_keeps_a_failure_longer_but_not_for_ever() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.read_failed("seeder", words="slow down", status=429, retry_after=3600.0)
    d.wait(50)
    d.want("a")
    failure = d.failure("a")
    assert failure is not None
    assert failure.status == 429
    assert failure.retry_after is not None
    assert 0 < failure.retry_after <= 10
    d.wait(11)
    d.want("a")
    assert d.readers() == ["seeder"]


def test_those_who_have_everybody_they_need_are_not_failed_with_the_others() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.opened("seeder", meta(pieces=2))
    d.read("seeder", 0, 1)
    d.read_failed("seeder", words="gone", status=500)
    assert d.failure("a") is None
    assert d.parents("a") == ["seeder"]


def test_cluster_only_never_reads_and_fails_at_once_where_nobody_has_it() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a", cluster_only=True)
    assert d.readers() == []
    failure = d.failure("a")
    assert failure is not None
    assert failure.fault == "request"
    assert failure.words == (
        "https://origin.test/file is not in the cluster and --no-origin forbids reading its origin"
    )


def test_cluster_only_takes_what_others_have_read_read_or_hold() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("b")
    d.want("a", cluster_only=True)
    assert d.failure("a") is None
    d.read_all("seeder")
    assert "seeder" in d.parents("a")


def test_cluster_only_fails_when_the_last_holder_of_a_piece_is_gone() -> None:
    d = Driver()
    d.join("a", "b", "c")
    d.hold("b", [0, 1])
    d.hold("c", [2, 3])
    d.want("a", cluster_only=True)
    d.wait(10)
    assert d.failure("a") is None
    d.leave("c")
    d.wait(4)
    assert d.failure("a") is not None


def test_a_secret_in_the_url_is_not_in_the_words() -> None:
    d = Driver()
    d.join("a")
    spec = TaskSpec(url="https://origin.test/f?token=hush")
    d.want("a", spec=spec, cluster_only=True)
    failure = d.failure("a")
    assert failure is not None
    assert "hush" not in failure.words


def test_a_new_version_makes_everything_before_it_void() -> None:
    d = Driver()
    d.join("a", "b", "h", "seeder")
    d.hold("h", range(4), complete=True)
    d.want("a")
    d.got("a", 0)
    d.leave("h")
    assert d.readers() == ["seeder"]
    d.opened("seeder", meta("v2", 5))
    task = d.task()
    assert task.version == "v2"
    assert len(task.digests) == 0
    assert d.all("a", TaskDescribed)[-1].meta.version == "v2"
    assert set(task.holders) == {"seeder"}
    d.got("a", 1, version="v1")
    assert not task.peers["a"].held, "reports of the old version change nothing"
    d.read("seeder", 0, version="v1")
    assert len(task.digests) == 0


def test_holders_that_do_not_wait_hear_of_a_new_version_too() -> None:
    d = Driver()
    d.join("a", "h", "seeder")
    d.hold("h", [0, 1])
    d.want("a")
    assert d.readers() == ["seeder"]
    d.opened("seeder", meta("v2"))
    assert d.all("h", TaskDescribed)[-1].meta.version == "v2"


def test_a_length_that_becomes_known_is_told() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.opened("seeder", meta(length=None))
    d.read("seeder", 0, 1)
    assert d.task().count is None
    grant = d.grant("seeder")
    d.say("seeder", SourceFinished(grant.task, grant.grant, meta(pieces=2)))
    assert d.all("a", TaskDescribed)[-1].meta.length == 2000
    assert d.task().complete(d.task().peers["seeder"])
    assert d.readers() == []
    assert d.failure("a") is None


def test_a_read_of_unknown_length_that_breaks_is_begun_again_by_another() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a", may_read=False)
    d.join("seeder2")
    d.opened("seeder1", meta(length=None))
    d.read("seeder1", 0, 1)
    d.leave("seeder1")
    assert d.readers() == ["seeder2"]
    assert d.grant("seeder2").pieces is None
    assert d.grant("seeder2").digests == digests([0, 1])


def test_the_first_digest_of_a_piece_stays() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.opened("seeder")
    d.read("seeder", 0)
    grant = d.grant("seeder")
    d.say("seeder", SourcePieces(grant.task, grant.grant, "v1", {0: bytes(32), 1: digest(1)}))
    assert d.task().digests.get(0) == digest(0)
    assert d.task().digests.get(1) == digest(1)
    assert d.state.cluster.tally.contradictions == 1


def test_a_stale_grant_is_revoked_once_but_its_pieces_count() -> None:
    d = Driver()
    d.join("a", "seeder1")
    d.want("a", may_read=False)
    d.join("seeder2")
    d.opened("seeder1")
    old = d.grant("seeder1").grant
    d.renew("seeder1", draining=True)
    d.renew("seeder1", draining=False)
    assert d.readers() == ["seeder2"]
    d.forget_told()
    d.say(
        "seeder1",
        SourcePieces(SPEC.task_id, old, "v1", digests([0])),
        SourcePieces(SPEC.task_id, old, "v1", digests([1])),
    )
    assert d.all("seeder1", SourceRevoked) == [SourceRevoked(SPEC.task_id, old)]
    assert list(d.task().peers["seeder1"].held) == [0, 1]
    d.say("seeder1", SourceFailed(SPEC.task_id, old, Failure("x", 500)))
    assert d.failure("a") is None


def test_another_hosts_grant_is_not_ones_own() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.opened("a", meta("evil"), grant=d.grant("seeder").grant)
    assert d.task().meta is None


def test_a_reader_that_finishes_without_its_pieces_is_not_asked_for_ever() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a", may_read=False)
    for _ in range(3):
        if not d.readers():
            break
        grant = d.grant("seeder")
        d.opened("seeder")
        d.say("seeder", SourceFinished(grant.task, grant.grant, meta()))
    failure = d.failure("a")
    assert failure is not None
    assert "left pieces out" in failure.words
    assert d.state.cluster.tally.grants == 1


def test_a_reader_that_cuts_the_same_version_otherwise_is_replaced() -> None:
    d = Driver()
    d.join("a", "h", "seeder1", "seeder2")
    d.hold("h", [0])
    d.want("a")
    first = d.readers()[0]
    d.opened(first, meta("v1", 9))
    assert d.readers() != [first]
    assert d.task().meta == meta()


def test_an_empty_content_needs_nobody() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a")
    d.opened("seeder", meta(pieces=0))
    grant = d.grant("seeder")
    d.say("seeder", SourceFinished(grant.task, grant.grant, meta(pieces=0)))
    d.want("b")
    d.wait(5)
    assert d.readers() == []
    assert d.all("b", TaskDescribed)[-1].meta.length == 0
    assert d.failure("b") is None


def test_a_peer_that_leaves_gives_its_read_up() -> None:
    d = Driver()
    d.join("a", "b")
    d.want("a")
    d.want("b")
    assert d.readers() == ["a"]
    d.finish("a", version="none")
    assert d.readers() == ["b"]


def test_a_seeder_goes_on_for_a_while_when_nobody_waits_any_more() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.finish("a")
    for received in range(1, 30):
        d.wait(1)
        d.progress("seeder", received)
    assert d.readers() == ["seeder"]
    d.wait(2)
    assert d.readers() == []


def test_several_readers_get_pieces_of_their_own() -> None:
    d = Driver(origin_readers=2)
    d.join("a", "seeder1", "seeder2")
    d.want("a")
    assert len(d.readers()) == 1, "before the length is known there is nothing to share out"
    first = d.readers()[0]
    old = d.grant(first).grant
    d.opened(first, meta(pieces=20))
    assert sorted(d.readers()) == ["seeder1", "seeder2"]
    shares = [d.grant(host).pieces for host in ("seeder1", "seeder2")]
    assert sorted(shares, key=str) == [[(0, 10)], [(10, 10)]]
    assert SourceRevoked(SPEC.task_id, old) in d.told[first]


def test_a_refused_peer_that_did_not_hear_it_is_told_when_it_listens() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a", "b")
    d.close("a")
    d.read_failed("seeder", words="gone", status=410)
    assert d.failure("b") is not None
    assert d.failure("a") is None
    d.open("a")
    assert d.failure("a") == Failure("gone", 410)
    assert "a" not in d.task().peers


def test_a_seeder_that_comes_just_in_time_is_used() -> None:
    d = Driver()
    d.join("a")
    d.want("a", may_read=False)
    d.wait(2)
    d.join("seeder")
    assert d.readers() == ["seeder"]


def test_a_task_that_nobody_holds_or_wants_is_forgotten_after_a_minute() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    d.read_failed("seeder", status=404)
    d.wait(59)
    assert SPEC.task_id in d.state.cluster.tasks
    d.wait(2)
    assert d.state.cluster.tasks == {}
    assert not d.state.cluster._tasks_of.get("a")


def test_tasks_are_bounded_and_the_longest_idle_go_first() -> None:
    d = Driver(max_tasks=2)
    d.join("a", "h")
    specs = [TaskSpec(url=f"https://origin.test/{n}") for n in range(4)]
    d.hold("h", [0], spec=specs[0])
    d.hold("h", [0], spec=specs[1])
    d.want("a", spec=specs[2])
    assert set(d.state.cluster.tasks) == {specs[1].task_id, specs[2].task_id}
    d.want("h", spec=specs[1])
    d.want("a", spec=specs[3])
    failed = d.all("a", TaskFailed)
    assert failed[-1].task == specs[3].task_id
    assert "max_tasks" in failed[-1].failure.words


def test_a_report_that_cannot_be_true_is_left_out_and_the_rest_counts() -> None:
    d = Driver()
    d.join("a", "seeder")
    wrong = PeerRegistered("0" * 64, SPEC)
    d.say("a", wrong, PeerRegistered(SPEC.task_id, SPEC))
    assert set(d.state.cluster.tasks) == {SPEC.task_id}
    assert d.state.cluster.tally.invalid == 1


def test_reports_about_unknown_tasks_change_nothing() -> None:
    d = Driver()
    d.join("a")
    d.got("a", 1)
    d.finish("a")
    d.complain("a", "b")
    d.say("a", SourceOpened(SPEC.task_id, "g", meta()))
    assert d.state.cluster.tasks == {}
    assert d.all("a", SourceRevoked) == [], "the task may still be told of"
    d.wait(4)
    d.say("a", SourceOpened(SPEC.task_id, "g", meta()))
    assert d.state.cluster.tasks == {}
    assert d.all("a", SourceRevoked) == [SourceRevoked(SPEC.task_id, "g")]


# --- readers without network ---------------------------------------------------------------------------


def offline(d: Driver, host: str) -> None:
    """The read of a host fails for it has no network."""
    given = d.grant(host)
    failure = Failure("Network is unreachable", fault="reader")
    d.say(host, SourceFailed(given.task, given.grant, failure, offline=True))


def test_a_lone_reader_without_network_tries_again() -> None:
    d = Driver()
    d.join("a")
    d.want("a")
    for tries in range(1, 5):
        assert len(d.all("a", SourceGranted)) == tries
        offline(d, "a")
        assert d.readers() == [], "not at once"
        d.wait(3.1)
    assert d.failure("a") is None
    d.opened("a")
    d.read("a", 0, 1)
    offline(d, "a")
    d.wait(0.6)
    assert d.readers() == ["a"], "what was read is another beginning"
    d.read_all("a")
    assert d.failure("a") is None


def test_a_reader_without_network_is_given_up_in_the_end() -> None:
    d = Driver()
    d.join("a")
    d.want("a")
    began = d.now
    while d.failure("a") is None:
        assert d.now - began <= 16
        if d.readers():
            offline(d, "a")
        d.wait(0.25)
    assert d.now - began >= 15
    assert d.failure("a").words == "Network is unreachable"  # type: ignore[union-attr]


def test_others_read_at_once_for_who_has_no_network() -> None:
    d = Driver()
    d.join("a", "b", "c")
    d.want("a", "b")
    [first] = d.readers()
    offline(d, first)
    [second] = d.readers()
    assert second != first
    d.wait(5)
    assert d.readers() == [second], "who has a network goes on"
    offline(d, second)
    [third] = d.readers()
    assert third == first, "it may have one by now"


def test_a_reader_that_comes_back_is_not_waited_for() -> None:
    """All are offline; one who comes is asked at once."""
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    offline(d, "seeder")
    offline(d, "a")
    assert d.readers() == []
    d.join("seeder2")
    d.want("a")
    assert d.readers() == ["seeder2"]


def test_who_wants_it_no_more_leaves_nothing_to_try() -> None:
    d = Driver()
    d.join("a")
    d.want("a")
    offline(d, "a")
    d.say("a", PeerLeft(SPEC.task_id))
    d.wait(20)
    assert len(d.all("a", SourceGranted)) == 1
    d.want("a")
    assert d.readers() == ["a"], "another time"


def test_a_reader_that_was_offline_and_then_fails_is_not_tried_again() -> None:
    d = Driver()
    d.join("a")
    d.want("a")
    offline(d, "a")
    d.wait(2)
    d.read_failed("a", fault="reader")
    assert d.failure("a") is not None
    assert len(d.all("a", SourceGranted)) == 2


def test_nonsense_does_not_fill_the_log() -> None:
    """Anybody of the network may report to a host's scheduler, as often as he likes."""
    d = Driver()
    d.join("a")
    with capture_logs() as lines:
        d.say("a", *[TaskRemoved("none")] * 1000)
    assert d.state.cluster.tally.invalid == 1000
    assert sum(line["log_level"] == "warning" for line in lines) == MOST
