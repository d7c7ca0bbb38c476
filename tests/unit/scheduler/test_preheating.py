"""Preheats in a cluster of made-up hosts: who is told what, and that all of them come to an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.preheat_views import job_detail, job_view
from scheduler.preheating import RESOLVE_GRACE, RESOLVE_PATIENCE
from scheduler.preheats import Job, PreheatOrder, Targets
from shared.protocol import (
    Failure,
    Preheated,
    PreheatItem,
    PreheatOver,
    PreheatWanted,
    Resolved,
    ResolveWanted,
)
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import Driver

FILE = TaskSpec(url="https://origin.test/file")
SECRET = TaskSpec(url="https://origin.test/secret", scope="ab" * 16)
LAYERS = [PreheatItem(TaskSpec(url=f"oci://r.test/a@{n}"), f"layer {n}", 100) for n in range(3)]
IMAGE = PreheatOrder("r.test/a:1", image="r.test/a:1", targets=Targets("all"))
LOGIN = {"authorization": "Basic c2VjcmV0"}


class Preheater(Driver):
    """Hosts that take preheats."""

    def renew(self, host: str, **fields: Any) -> Any:
        return super().renew(host, **{"preheats": True, **fields})

    def order(self, order: PreheatOrder) -> Job:
        job, decisions = self.state.preheat(order, self.now)
        self.take(decisions)
        return job

    def file(self, to: Targets = Targets("all"), **fields: Any) -> Job:  # noqa: B008 - it is frozen
        return self.order(PreheatOrder("file", specs=(FILE,), targets=to, **fields))

    def cancel(self, job: Job) -> None:
        self.take(self.state.cancel_preheat(job, self.now))

    def told_to_bring(self, host: str) -> list[list[str]]:
        return [[item.what for item in wanted.items] for wanted in self.all(host, PreheatWanted)]

    def resolvers(self) -> list[str]:
        return [host for host in self.told if self.all(host, ResolveWanted)]

    def resolve(self, job: Job, **fields: Any) -> None:
        self.say(job.resolver, Resolved(job.id, **{"items": LAYERS, "image": "r.test/a:1", **fields}))

    def bring(self, host: str, job: Job, *tasks: str, failure: Failure | None = None) -> None:
        for task in tasks or [item.spec.task_id for item in job.wants(host)]:
            self.say(host, Preheated(job.id, task, 100, {"origin": 100}, failure))


@pytest.fixture
def d() -> Preheater:
    driver = Preheater()
    driver.join("seeder1", "seeder2", "a", "b")
    return driver


# --- files -------------------------------------------------------------------------------------------


def test_a_file_goes_to_the_hosts_at_once(d: Preheater) -> None:
    job = d.file()
    assert job.state == "running"
    assert {host: d.told_to_bring(host) for host in d.told} == {
        host: [["https://origin.test/file"]] for host in ("seeder1", "seeder2", "a", "b")
    }
    for host in ("a", "b", "seeder1", "seeder2"):
        d.bring(host, job)
    assert job.state == "succeeded"
    assert all(d.all(host, PreheatOver) for host in ("a", "b", "seeder1", "seeder2"))
    assert d.state.cluster.tally.preheat_jobs == {"succeeded": 1}
    assert d.state.cluster.tally.preheat_items == {"succeeded": 4}
    assert d.state.cluster.tally.preheat_bytes == {"origin": 400}


def test_hosts_that_take_no_preheats_are_left_out(d: Preheater) -> None:
    d.join("old", preheats=False)
    d.join("leaving", draining=True)
    assert set(d.file().hosts) == {"seeder1", "seeder2", "a", "b"}


def test_seeders_are_waited_for_a_little(d: Preheater) -> None:
    empty = Preheater()
    job = empty.file(Targets("seeders"))
    empty.wait(1.0)
    assert job.state == "queued"
    empty.join("seeder1")
    assert job.state == "running"
    without = empty.file(Targets("seeders"))
    empty.cancel(job)
    assert without.state == "running"


def test_without_a_seeder_it_says_what_to_do() -> None:
    d = Preheater()
    d.join("a")
    job = d.file(Targets("seeders"))
    d.wait(5.0)
    assert job.state == "failed"
    assert job.failure is not None
    assert "start one, or choose other hosts (--to all)" in job.failure.words


def test_credentials_are_told_to_seeders_only(d: Preheater) -> None:
    order = PreheatOrder("s", specs=(SECRET,), targets=Targets("all"), headers=LOGIN)
    job = d.order(order)
    for host in ("seeder1", "seeder2"):
        [wanted] = d.all(host, PreheatWanted)
        assert (wanted.headers, wanted.may_read) == (LOGIN, True)
    for host in ("a", "b"):
        [wanted] = d.all(host, PreheatWanted)
        assert (wanted.headers, wanted.may_read) == ({}, False)
    assert "c2VjcmV0" not in repr(d.all("seeder1", PreheatWanted)) + repr(job)
    view = repr(job_detail(d.state.cluster, job, d.now)) + repr(job_view(d.state.cluster, job, d.now))
    assert "c2VjcmV0" not in view
    assert "ab" * 16 not in view


def test_without_a_seeder_nobody_is_told_credentials() -> None:
    d = Preheater()
    d.join("a")
    job = d.order(PreheatOrder("s", specs=(SECRET,), targets=Targets("all"), headers=LOGIN))
    assert job.failure is not None
    assert "only seeders are told" in job.failure.words
    assert d.all("a", PreheatWanted) == []


# --- images ------------------------------------------------------------------------------------------


def test_one_seeder_looks_at_the_image_and_then_all_are_told(d: Preheater) -> None:
    job = d.order(IMAGE)
    assert job.state == "resolving"
    [resolver] = d.resolvers()
    assert resolver.startswith("seeder")
    d.resolve(job, notes=["a note"])
    assert job.state == "running"
    assert job.notes == ["a note"]
    for host in ("seeder1", "seeder2", "a", "b"):
        assert d.told_to_bring(host) == [["layer 0", "layer 1", "layer 2"]]
    assert job_view(d.state.cluster, job, d.now)["bytes"]["total"] == 1200


def test_the_image_is_wrong(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.resolve(job, items=[], failure=Failure("there is no such image", 404))
    assert (job.state, job.failure) == ("failed", Failure("there is no such image", 404))
    assert len(d.resolvers()) == 1, "another host would only hear the same"


def test_another_host_looks_when_the_first_one_cannot(d: Preheater) -> None:
    job = d.order(IMAGE)
    first = job.resolver
    d.resolve(job, items=[], failure=Failure("no route", fault="reader"))
    assert job.state == "resolving"
    assert job.resolver not in ("", first)
    d.resolve(job, items=[], failure=Failure("no route either", fault="reader"))
    assert job.resolver in ("a", "b"), "no seeder is left"
    for _ in range(2):
        d.resolve(job, items=[], failure=Failure("nowhere", fault="reader"))
    assert job.state == "failed"
    assert job.failure is not None
    assert job.failure.words == "nowhere"


@pytest.mark.parametrize("event", ["leaves", "is lost", "is slow", "is another process"])
def test_another_host_looks_when_the_first_one(event: str, d: Preheater) -> None:
    job = d.order(IMAGE)
    first = job.resolver
    if event == "leaves":
        d.leave(first)
    elif event == "is lost":
        d.close(first)
        d.wait(d.config.stream_grace)
    elif event == "is slow":
        d.wait(RESOLVE_PATIENCE + RESOLVE_GRACE)
    else:
        d.renew(first, instance="another")
        d.close(first)
        d.wait(d.config.stream_grace)
    assert job.resolver not in ("", first)
    d.say(first, Resolved(job.id, items=LAYERS))
    assert job.state == "resolving", "its answer comes too late"


def test_a_resolver_whose_stream_breaks_is_told_again(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.close(job.resolver)
    d.open(job.resolver)
    assert len(d.all(job.resolver, ResolveWanted)) == 2
    d.resolve(job)
    assert job.state == "running"


def test_only_hosts_that_read_registries_look_at_images() -> None:
    d = Preheater()
    d.join("seeder1", schemes=("https",))
    d.join("a", schemes=("https", "oci", "oci-descriptor"))
    assert d.order(IMAGE).resolver == "a"


def test_credentials_of_an_image_wait_for_a_seeder() -> None:
    d = Preheater()
    d.join("a")
    job = d.order(PreheatOrder("i", image="i", headers=LOGIN))
    assert d.resolvers() == []
    d.wait(5.0)
    assert job.failure is not None
    assert "only seeders are told" in job.failure.words
    assert job.headers == {}


def test_credentials_of_a_public_image_are_not_told_on(d: Preheater) -> None:
    job = d.order(PreheatOrder("i", image="i", headers=LOGIN, targets=Targets("all")))
    assert d.all(job.resolver, ResolveWanted)[0].headers == LOGIN
    d.resolve(job)
    assert job.headers == {}
    assert all(not wanted.headers for host in job.hosts for wanted in d.all(host, PreheatWanted))
    assert all(wanted.may_read for host in job.hosts for wanted in d.all(host, PreheatWanted))


def test_the_seeders_own_login(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.resolve(job, private=True, own_login=True)
    for host in job.hosts:
        [wanted] = d.all(host, PreheatWanted)
        assert (wanted.own_login, wanted.may_read) == (host.startswith("seeder"),) * 2


# --- hosts come and go -------------------------------------------------------------------------------


def test_a_host_whose_stream_breaks_is_told_what_is_left(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.resolve(job)
    d.bring("a", job, LAYERS[1].spec.task_id)
    d.close("a")
    d.open("a")
    assert d.told_to_bring("a")[-1] == ["layer 0", "layer 2"]


def test_a_host_that_restarts_in_time_is_told_again(d: Preheater) -> None:
    job = d.file()
    d.leave("a")
    d.wait(d.config.lease / 2)
    assert job.wants("a")
    d.join("a", instance="a-2")
    assert len(d.told_to_bring("a")) == 2
    d.wait(3 * d.config.lease)
    d.bring("a", job)
    assert not job.failed


@pytest.mark.parametrize("leaves", [True, False])
def test_a_host_that_does_not_come_back_fails_alone(leaves: bool, d: Preheater) -> None:
    job = d.file()
    for host in ("b", "seeder1", "seeder2"):
        d.bring(host, job)
    if leaves:
        d.leave("a")
        d.wait(d.config.lease + 1)
    else:
        d.close("a")
        d.wait(d.config.lease + 1, renewing=False)
    assert job.state == "partial"
    [failure] = job.failures
    assert failure.host == "a"
    assert "before it had all of it" in failure.failure.words


def test_what_cannot_be_brought_is_named(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.resolve(job)
    for host in job.hosts:
        d.bring(host, job, LAYERS[1].spec.task_id, failure=Failure("it is not there", 404))
        d.bring(host, job)
    assert job.state == "partial"
    [failure] = job_detail(d.state.cluster, job, d.now)["failures"]
    assert (failure["what"], failure["words"], failure["count"]) == ("layer 1", "it is not there", 4)


# --- time and turns ----------------------------------------------------------------------------------


def test_it_ends_when_its_time_is_over(d: Preheater) -> None:
    job = d.file(timeout=30.0)
    d.bring("a", job)
    d.wait(31.0)
    assert (job.state, job.failed.total()) == ("partial", 3)
    assert "within 30.0s" in job.failures[0].failure.words
    assert d.all("b", PreheatOver)


def test_no_order_takes_longer_than_is_allowed() -> None:
    d = Preheater(preheat_timeout=20.0)
    d.join("a")
    job = d.file(timeout=1000.0)
    d.wait(21.0)
    assert job.over


def test_others_wait_for_their_turn() -> None:
    d = Preheater(preheat_jobs=2)
    d.join("a")
    jobs = [d.file() for _ in range(4)]
    assert [job.state for job in jobs] == ["running", "running", "queued", "queued"]
    d.bring("a", jobs[1])
    assert jobs[2].state == "running"
    d.cancel(jobs[0])
    assert jobs[3].state == "running"


def test_one_that_waits_ends_when_its_time_is_over() -> None:
    d = Preheater(preheat_jobs=1)
    d.join("a")
    d.file()
    waiting = d.file(timeout=10.0)
    d.wait(11.0)
    assert (waiting.state, waiting.began) == ("failed", None)


def test_one_that_cannot_begin_does_not_keep_others_waiting() -> None:
    d = Preheater(preheat_jobs=1)
    d.join("a")
    stuck, other = d.file(Targets("seeders")), d.file()
    assert (stuck.state, other.state) == ("queued", "running")
    d.wait(5.0)
    assert stuck.state == "queued", "it is not its turn"
    d.bring("a", other)
    d.wait(5.0)
    assert stuck.state == "failed"


def test_a_cancelled_one_is_over_for_its_hosts(d: Preheater) -> None:
    job = d.file()
    d.bring("a", job)
    d.cancel(job)
    d.cancel(job)
    assert job.state == "cancelled"
    assert [bool(d.all(host, PreheatOver)) for host in ("a", "b", "seeder1")] == [False, True, True]
    assert d.state.cluster.tally.preheat_jobs == {"cancelled": 1}
    d.bring("b", job, FILE.task_id)
    assert d.state.cluster.tally.preheat_items == {"succeeded": 1}


def test_reports_that_cannot_be_true_are_left_out(d: Preheater) -> None:
    job = d.order(IMAGE)
    d.resolve(job, items=LAYERS * 4000)
    assert job.state == "resolving"
    d.resolve(job)
    d.say("a", Preheated(job.id, LAYERS[0].spec.task_id, -1))
    d.say("a", Preheated(job.id, LAYERS[0].spec.task_id, 1, {"a host's name": 1}))
    d.say("a", Preheated(job.id + 1, LAYERS[0].spec.task_id, 1))
    assert len(job.wants("a")) == 3
    assert d.state.cluster.tally.invalid == 3


# --- anything ----------------------------------------------------------------------------------------

NAMES = ("seeder1", "seeder2", "a", "b")
hosts = st.sampled_from(NAMES)
ORDERS = (
    IMAGE,
    PreheatOrder("file", specs=(FILE,), targets=Targets("all")),
    PreheatOrder("secret", specs=(SECRET,), targets=Targets("all", count=3), headers=LOGIN),
    PreheatOrder("image", image="r.test/b", headers=LOGIN, timeout=15.0),
)


class Anything(RuleBasedStateMachine):
    """Hosts come, go, resolve, bring and fail in any order."""

    @initialize(absent=st.sets(hosts), turns=st.integers(1, 3))
    def begin(self, absent: set[str], turns: int) -> None:
        self.d = Preheater(preheat_jobs=turns, preheat_timeout=120.0)
        self.jobs: list[Job] = []
        self.d.join(*(name for name in NAMES if name not in absent))

    def active(self) -> Iterator[Job]:
        return (job for job in self.jobs if not job.over)

    @rule(order=st.sampled_from(ORDERS))
    @precondition(lambda self: len(self.jobs) < 6)
    def order(self, order: PreheatOrder) -> None:
        self.jobs.append(self.d.order(order))

    @rule(host=hosts)
    def join(self, host: str) -> None:
        self.d.join(host)

    @rule(host=hosts)
    def restart(self, host: str) -> None:
        self.d.join(host, instance=f"{host} again")

    @rule(host=hosts)
    def leave(self, host: str) -> None:
        self.d.leave(host)

    @rule(host=hosts)
    def break_stream(self, host: str) -> None:
        self.d.close(host)

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0, 40.0]), renewing=st.booleans())
    def wait(self, seconds: float, renewing: bool) -> None:
        self.d.wait(seconds, renewing=renewing)

    @rule(fault=st.sampled_from([None, "origin", "reader"]), private=st.booleans())
    def resolve(self, fault: Any, private: bool) -> None:
        for job in list(self.active()):
            if job.resolver:
                failure = None if fault is None else Failure("it failed", fault=fault)
                self.d.resolve(job, failure=failure, private=private)

    @rule(host=hosts, number=st.integers(0, 2), bad=st.booleans())
    def bring(self, host: str, number: int, bad: bool) -> None:
        for job in list(self.active()):
            if number < len(job.items):
                failure = Failure("it failed") if bad else None
                self.d.bring(host, job, job.items[number].spec.task_id, failure=failure)

    @rule()
    def cancel(self) -> None:
        for job in list(self.active())[:1]:
            self.d.cancel(job)

    @invariant()
    def credentials_are_with_seeders_and_jobs_that_go_on(self) -> None:
        for host in ("a", "b"):
            told = [*self.d.all(host, PreheatWanted), *self.d.all(host, ResolveWanted)]
            assert not any(message.headers for message in told)
        assert not any(job.headers for job in self.jobs if job.over)

    @invariant()
    def counts_add_up(self) -> None:
        for job in self.jobs:
            if job.state in ("running", "succeeded", "partial"):
                left = sum(map(len, job.left.values()))
                assert job.done.total() + job.failed.total() + left == len(job.items) * len(job.left)
        assert self.d.state.cluster.tally.preheat_jobs.total() == sum(job.over for job in self.jobs)

    def teardown(self) -> None:
        self.d.wait(6 * 121.0)
        assert all(job.over for job in self.jobs)


Anything.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestAnything = Anything.TestCase
