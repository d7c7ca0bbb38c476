"""Content that is known by its digest is read at any of the places that hosts name for it."""

from __future__ import annotations

from scheduler.places import Places
from scheduler.sourcing import ANOTHER_PLACE
from shared.protocol import (
    MAX_PLACES,
    Failure,
    PeerRegistered,
    SourceGranted,
    SourceOpened,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
)
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import SPEC, Driver, digests, meta

DIGEST = "sha256:" + "ab" * 32
SCOPE = "cd" * 16


def at(place: str, scope: str = "") -> TaskSpec:
    """The content at one of its places."""
    return TaskSpec(url=f"https://{place}.test/blob", digest=DIGEST, scope=scope)


A, B, C = at("a"), at("b"), at("c")
TASK = A.task_id


def failed(d: Driver, host: str) -> TaskFailed | None:
    told = d.all(host, TaskFailed)
    return told[-1] if told else None


# --- one place fails -----------------------------------------------------------------------------------


def test_all_places_are_one_task() -> None:
    assert A.task_id == B.task_id != SPEC.task_id


def test_who_waits_with_another_place_gets_that_one_tried_before_anybody_is_refused() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    assert d.grant("seeder").spec == A
    d.read_failed("seeder", words="not found", status=404)
    assert failed(d, "x") is failed(d, "y") is None
    assert d.grant("seeder").spec == B
    d.read_all("seeder")
    assert d.parents("x") == d.parents("y") == ["seeder"], "it is the same content"


def test_each_hears_of_its_own_place_when_all_have_failed() -> None:
    d = Driver()
    d.join("x", "y", "both", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.want("both", spec=B)
    d.want("both", spec=A)
    missing, down = Failure("not found", 404), Failure("down", 503)
    d.read_failed("seeder", words="not found", status=404)
    d.read_failed("seeder", words="down", status=503)
    assert failed(d, "x") == TaskFailed(TASK, missing, {A.url: missing})
    assert failed(d, "y") == TaskFailed(TASK, down, {B.url: down})
    assert failed(d, "both") == TaskFailed(TASK, down, {B.url: down, A.url: missing})
    assert d.task(A).waiting == {}


def test_a_failure_is_remembered_for_its_place_only() -> None:
    d = Driver()
    d.join("x", "y", "z", "seeder")
    d.want("x", spec=A)
    d.read_failed("seeder", words="not found", status=404)
    assert d.failure("x") == Failure("not found", 404)
    d.want("y", spec=A)
    assert d.failure("y") == Failure("not found", 404), "it is remembered"
    assert d.state.cluster.tally.grants == 1
    d.want("z", spec=B)
    assert d.failure("z") is None
    assert d.grant("seeder").spec == B
    d.want("x", spec=A)
    assert len(d.all("x", TaskFailed)) == 1, "somebody reads what it wants"
    d.read_all("seeder")
    assert d.parents("x") == d.parents("z") == ["seeder"]
    d.wait(6)
    d.finish("x")
    d.finish("z")


def test_a_place_is_tried_again_when_its_time_is_over() -> None:
    d = Driver()
    d.join("x", "seeder")
    d.want("x", spec=A)
    d.read_failed("seeder", words="slow down", status=429, retry_after=20.0)
    d.want("x", spec=B)
    d.read_failed("seeder", words="not found", status=404)
    d.wait(6)
    d.want("x", spec=A)
    assert len(d.all("seeder", SourceGranted)) == 2
    failure = d.failure("x")
    assert failure is not None
    assert failure.status == 429
    assert failure.retry_after == 14.0
    d.wait(15)
    d.want("x", spec=A)
    assert d.grant("seeder").spec == A


def test_when_a_place_dies_in_mid_read_another_one_goes_on() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.opened("seeder", meta())
    d.read("seeder", 0, 1, task=TASK)
    d.got("x", 0, spec=A)
    d.read_failed("seeder", words="cut", status=502)
    grant = d.grant("seeder")
    assert (grant.spec, grant.meta, grant.pieces, grant.digests) == (B, meta(), [(2, 2)], digests([0, 1]))
    assert failed(d, "x") is failed(d, "y") is None
    assert list(d.task(A).peers["x"].held) == [0]
    d.read("seeder", 2, 3, task=TASK)
    assert d.parents("x") == ["seeder"]


def test_a_place_that_is_stuck_is_left_for_another_by_the_same_reader() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A, may_read=False)
    d.want("y", spec=B, may_read=False)
    stuck = d.grant("seeder")
    d.wait(16)
    assert SourceRevoked(TASK, stuck.grant) in d.told["seeder"]
    assert d.grant("seeder").spec == B
    d.wait(40)
    assert d.readers(A) == ["seeder"], "there is nothing else left to try"
    d.wait(15)
    assert "made no progress" in str(d.failure("x"))
    assert "made no progress" in str(d.failure("y"))


def test_a_place_that_does_not_answer_is_soon_left_for_another() -> None:
    d = Driver(grant_timeout=15.0)
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    assert d.grant("seeder").spec == A
    d.wait(ANOTHER_PLACE - 0.5)
    assert d.grant("seeder").spec == A
    d.wait(1.0)
    assert d.grant("seeder").spec == B
    assert failed(d, "x") is failed(d, "y") is None
    d.wait(ANOTHER_PLACE + 1.0)
    assert d.grant("seeder").spec == B, "where all have been tried, each gets its whole time"
    d.read_all("seeder")
    assert d.parents("x") == d.parents("y") == ["seeder"]


def test_a_place_that_has_answered_gets_its_whole_time() -> None:
    d = Driver(grant_timeout=15.0)
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.opened("seeder")
    d.wait(ANOTHER_PLACE + 1.0)
    assert d.grant("seeder").spec == A


def test_a_reader_that_cannot_read_one_place_may_read_another() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A, may_read=False)
    d.want("y", spec=B, may_read=False)
    d.read_failed("seeder", words="no route to a", fault="reader")
    assert d.grant("seeder").spec == B
    d.read_failed("seeder", words="no route to b", fault="reader")
    assert d.failure("x") == Failure("no route to a", fault="reader")
    assert d.failure("y") == Failure("no route to b", fault="reader")


def test_who_must_not_cause_reads_names_no_place_for_others() -> None:
    d = Driver()
    d.join("x", "quiet", "h", "seeder")
    d.hold("h", [0], spec=A)
    d.want("quiet", spec=B, cluster_only=True)
    d.want("x", spec=A)
    d.read_failed("seeder", words="not found", status=404)
    assert d.failure("x") == Failure("not found", 404)
    assert d.readers(A) == []
    assert failed(d, "quiet") is None, "its own place has not failed"
    d.leave("h")
    d.wait(4)
    told = failed(d, "quiet")
    assert told is not None
    assert told.failure.words.startswith("https://b.test/blob is not in the cluster")
    assert list(told.places) == [B.url]


# --- who reads where -----------------------------------------------------------------------------------


def test_who_reads_for_itself_reads_at_its_own_place() -> None:
    d = Driver()
    d.join("x", "y")
    d.want("x", spec=A, may_read=False)
    d.want("y", spec=B)
    assert d.readers(A) == ["y"]
    assert d.grant("y").spec == B
    d.read_failed("y", words="not found", status=404)
    d.wait(4)
    assert d.all("x", SourceGranted) == d.all("y", SourceGranted)[1:] == []
    assert d.failure("y") == Failure("not found", 404)
    failure = d.failure("x")
    assert failure is not None
    assert failure.words.startswith("no host may read the origin of https://a.test/blob")


def test_a_seeder_that_wants_it_too_reads_at_its_own_place_first() -> None:
    d = Driver()
    d.join("x")
    d.want("x", spec=A, may_read=False)
    d.join("seeder1", "seeder2")
    first, second = d.readers(A)[0], {"seeder1": "seeder2", "seeder2": "seeder1"}[d.readers(A)[0]]
    d.want(second, spec=B)
    d.leave(first)
    assert (d.readers(A), d.grant(second).spec) == ([second], B)
    d.read_failed(second, words="not found", status=404)
    assert (d.readers(A), d.grant(second).spec) == ([second], A), "as for anybody else"
    d.read_failed(second, words="not found", status=404)
    assert d.readers(A) == []
    assert d.failure("x") == d.failure(second) == Failure("not found", 404)


def test_private_content_is_read_by_each_with_what_it_has() -> None:
    one, other = at("a", SCOPE), at("b", SCOPE)
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=one)
    d.want("y", spec=other)
    assert (d.readers(one), d.grant("x").spec) == (["x"], one)
    d.read_failed("x", words="gone", status=404)
    assert (d.readers(one), d.grant("y").spec) == (["y"], other)
    d.read_failed("y", words="gone too", status=404)
    assert (d.failure("x"), d.failure("y")) == (Failure("gone", 404), Failure("gone too", 404))
    assert d.all("seeder", SourceGranted) == []


def test_a_refusal_of_credentials_concerns_only_who_showed_them() -> None:
    private = at("a", SCOPE)
    refusal = Failure("your token has expired", 401)
    d = Driver()
    d.join("x", "y", "z")
    d.want("x", "y", spec=private)
    first = d.readers(private)[0]
    second = "y" if first == "x" else "x"
    d.read_failed(first, words=refusal.words, status=401)
    assert d.readers(private) == [second], "the other one shows its own"
    assert d.failure(first) is None
    d.read_failed(second, words=refusal.words, status=401)
    assert d.failure(first) == d.failure(second) == refusal
    d.want("z", spec=private)
    assert d.readers(private) == ["z"], "nothing is remembered against others"
    d.read_all("z")
    d.want("x", spec=private)
    assert d.parents("x") == ["z"]


def test_other_failures_of_private_content_are_those_of_the_place() -> None:
    private = at("a", SCOPE)
    d = Driver()
    d.join("x", "y")
    d.want("x", "y", spec=private)
    d.read_failed(d.readers(private)[0], words="not found", status=404)
    assert d.failure("x") == d.failure("y") == Failure("not found", 404)
    d = Driver()
    secret = TaskSpec(url="https://origin.test/secret", scope=SCOPE)
    d.join("x", "y")
    d.want("x", "y", spec=secret)
    d.read_failed(d.readers(secret)[0], words="no", status=401)
    assert d.failure("x") == d.failure("y") == Failure("no", 401), "its scope is that of the credentials"


# --- several places of one host ------------------------------------------------------------------------


def test_a_host_may_name_several_places() -> None:
    d = Driver()
    d.join("x", "seeder")
    d.want("x", spec=A)
    d.want("x", spec=B)
    d.read_failed("seeder", words="not found", status=404)
    assert failed(d, "x") is None
    assert d.grant("seeder").spec == B
    d.say("x", PeerRegistered(TASK, A))
    d.read_failed("seeder", words="not there either", status=404)
    told = failed(d, "x")
    assert told is not None
    assert told.failure == Failure("not found", 404)
    assert told.places == {A.url: Failure("not found", 404), B.url: Failure("not there either", 404)}


def test_a_place_that_was_named_too_late_is_not_among_those_that_failed() -> None:
    d = Driver()
    d.join("x", "seeder")
    d.want("x", spec=A)
    d.read_failed("seeder", words="not found", status=404)
    told = failed(d, "x")
    assert told is not None
    assert list(told.places) == [A.url]
    d.want("x", spec=B)  # it was on its way meanwhile
    assert d.grant("seeder").spec == B
    d.read_failed("seeder", words="not there either", status=404)
    told = failed(d, "x")
    assert told is not None
    assert list(told.places) == [B.url]


def test_places_are_bounded_and_those_of_use_stay() -> None:
    d = Driver()
    many = [at(f"p{n}") for n in range(MAX_PLACES + 3)]
    hosts = [f"h{n}" for n in range(len(many))]
    d.join("seeder", *hosts)
    for host, spec in zip(hosts[:MAX_PLACES], many, strict=False):
        d.want(host, spec=spec)
    places = d.task(A).places
    assert len(places) == MAX_PLACES
    d.want(hosts[MAX_PLACES], spec=many[MAX_PLACES])
    assert places.get(many[MAX_PLACES].url) is None, "all others are waited for"
    d.read_failed("seeder", words="not found", status=404)
    assert d.grant("seeder").spec == many[1]
    d.want(hosts[MAX_PLACES], spec=many[MAX_PLACES])
    assert places.get(many[0].url) is None, "which has failed"
    assert places.get(many[MAX_PLACES].url) is not None
    for _ in range(MAX_PLACES):
        d.read_failed("seeder", words="not found", status=404)
    for host in hosts[: MAX_PLACES + 1]:
        assert d.failure(host) == Failure("not found", 404)
    assert len(places) <= MAX_PLACES


def test_who_finds_no_room_for_its_place_relies_on_the_others() -> None:
    d = Driver()
    many = [at(f"p{n}") for n in range(MAX_PLACES + 1)]
    hosts = [f"h{n}" for n in range(len(many))]
    d.join("seeder", *hosts)
    for host, spec in zip(hosts, many, strict=True):
        d.want(host, spec=spec)
    for _ in range(MAX_PLACES):
        assert d.failure(hosts[-1]) is None
        d.read_failed("seeder", words="not found", status=404)
    assert d.failure(hosts[-1]) == Failure("not found", 404)
    assert d.task(A).waiting == {}


def test_room_is_made_by_what_is_not_needed_then_by_what_failed() -> None:
    places = Places(A)
    for number in range(MAX_PLACES):
        assert places.name(at(f"p{number}"), lambda: ()) == at(f"p{number}").url
    needed = {at(f"p{number}").url for number in range(MAX_PLACES)} - {at("p5").url}
    assert places.name(B, lambda: needed) == B.url
    assert places.get(at("p5").url) is None
    needed.add(B.url)
    assert places.name(C, lambda: needed) == ""
    third = places.get(at("p3").url)
    assert third is not None
    third.failure = Failure("gone")
    assert places.failed is third
    assert places.name(C, lambda: needed) == C.url
    assert places.get(third.url) is None
    assert [place.url for place in places.open([C.url, "unknown", B.url, C.url])] == [C.url, B.url]


def test_a_task_without_a_digest_has_one_place_whatever_its_url_says() -> None:
    one = TaskSpec(url="https://origin.test/f?key=1", filtered=("key",))
    other = TaskSpec(url="https://origin.test/f?key=2", filtered=("key",))
    assert one.task_id == other.task_id
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=one)
    d.want("y", spec=other)
    d.read_failed("seeder", words="not found", status=404)
    assert failed(d, "x") == failed(d, "y") == TaskFailed(one.task_id, Failure("not found", 404))


# --- wrong content -------------------------------------------------------------------------------------


def test_nobody_goes_on_with_what_turned_out_wrong() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.opened("seeder", meta())
    d.read("seeder", *range(4), task=TASK)
    d.got("x", 0, spec=A)
    d.read_failed("seeder", words="wrong digest", wrong=True)
    task = d.task(A)
    assert task.version not in (None, "v1")
    assert len(task.digests) == 0
    assert task.holders == {}
    grant = d.grant("seeder")
    assert (grant.spec, grant.pieces, grant.digests) == (B, None, {})
    assert grant.meta is not None
    assert grant.meta.version == task.version
    assert grant.meta.length is None, "which may be wrong too"
    assert d.all("x", TaskDescribed)[-1].meta == grant.meta
    d.got("x", 1, spec=A)
    assert not task.peers["x"].held, "pieces of the wrong content change nothing"
    d.read_failed("seeder", words="not found", status=404)
    assert d.failure("x") == Failure("wrong digest")


def test_a_place_is_not_blamed_for_what_was_read_elsewhere_too() -> None:
    d = Driver()
    d.join("x", "y", "seeder")
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.opened("seeder", meta())
    d.read("seeder", 0, 1, task=TASK)
    d.read_failed("seeder", words="cut")
    d.opened("seeder", meta())
    d.read("seeder", 2, 3, task=TASK)
    d.read_failed("seeder", words="wrong digest", wrong=True)
    assert failed(d, "x") is failed(d, "y") is None
    again = d.grant("seeder")
    assert again.spec == B
    assert again.meta is not None
    d.opened("seeder", meta(again.meta.version))
    d.read_failed("seeder", words="wrong digest", wrong=True)
    assert d.failure("y") == Failure("wrong digest"), "now there is nobody else to blame"
    assert d.failure("x") == Failure("cut")


def test_what_is_said_of_a_task_that_is_not_known_by_its_digest() -> None:
    d = Driver()
    d.join("x", "seeder")
    d.want("x")
    d.opened("seeder")
    d.read_failed("seeder", words="wrong digest", wrong=True)
    assert d.task().version == "v1"


# --- a restarted scheduler -----------------------------------------------------------------------------


def test_a_read_that_is_taken_over_is_that_of_the_only_place() -> None:
    d = Driver()
    d.join("x", "seeder", resuming=True)
    d.want("x", spec=A)
    d.say("seeder", SourceOpened(TASK, "other-1", meta()))
    assert d.readers(A) == ["seeder"]
    assert [grant.place for grant in d.task(A).grants.values()] == [A.url]
    d = Driver()
    d.join("x", "y", "seeder", resuming=True)
    d.want("x", spec=A)
    d.want("y", spec=B)
    d.say("seeder", SourceOpened(TASK, "other-1", meta()))
    (grant,) = d.task(A).grants.values()
    assert grant.place == ""
    d.wait(16)
    assert d.grant("seeder").spec == A, "of which place it was is not known: nothing is held against any"
