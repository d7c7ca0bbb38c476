"""Random lives of a cluster; what must hold at every moment, and that waiting ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.freshness import Check
from scheduler.needs import need_of
from scheduler.tasks import PeerState, Task
from scheduler.zones import EVERYTHING, near
from shared.protocol import (
    Assignment,
    Failure,
    ParentsAssigned,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    SourceChecked,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourcePieces,
    SourceProgress,
    SourceRevoked,
    TaskDescribed,
    TaskFailed,
    TaskMeta,
    TaskMoved,
    TaskRemoved,
)
from shared.task.bitmap import Bitmap
from shared.task.generation import in_generation
from shared.task.identity import TaskSpec
from tests.unit.scheduler.driver import Driver, digests, meta

PEERS = ("a", "b", "c", "d")
SEEDERS = ("seeder1", "seeder2")
HOSTS = PEERS + SEEDERS
PUBLIC = TaskSpec(url="https://origin.test/public")
PRIVATE = TaskSpec(url="https://origin.test/private", scope="cd" * 16)
DIGEST = "sha256:" + "ab" * 32
PLACES = tuple(TaskSpec(url=f"https://{place}.test/blob", digest=DIGEST) for place in "uvw")
SECRET_PLACES = tuple(TaskSpec(url=spec.url, digest=DIGEST, scope="ef" * 16) for spec in PLACES)
SPECS = (PUBLIC, PRIVATE, *PLACES, *SECRET_PLACES)
PIECES = 12
REVALIDATE = 3.0

hosts = st.sampled_from(HOSTS)
peers = st.sampled_from(PEERS)
specs = st.sampled_from(SPECS)
numbers = st.lists(st.integers(0, PIECES - 1), max_size=6, unique=True)


def described(version: str, **fields: Any) -> TaskMeta:
    """What is told of a version."""
    return meta(version, PIECES, revalidate=REVALIDATE, **fields)


class CheckedDriver(Driver):
    """Checks every parent list and every grant at the moment it is sent."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(seed, **settings)
        self.checked: set[str] = set()

    def take(self, decisions: list[tuple[str, Assignment]]) -> None:
        cluster = self.state.cluster
        for child, assignment in decisions:
            if isinstance(assignment, ParentsAssigned):
                listed = [parent.host for parent in assignment.parents]
                assert child not in listed
                assert len(listed) == len(set(listed))
                assert len(listed) <= self.config.parents + 1
                for host in listed:
                    present = cluster.present(host)
                    assert present is not None
                    assert present.live
            if isinstance(assignment, SourceGranted):
                assert cluster.present(child) is not None
                self.check_place(child, assignment)
            if isinstance(assignment, TaskFailed):
                check_words(assignment)
        super().take(decisions)

    def check_place(self, reader: str, given: SourceGranted) -> None:
        """Who named places reads at one of them; of content with a scope nobody else reads."""
        task = self.state.cluster.tasks.get(given.task)
        told_again = given.grant in self.checked
        self.checked.add(given.grant)
        if task is None or told_again or not given.spec.digest or given.grant not in task.grants:
            return
        peer = task.waiting.get(reader)
        named = {} if peer is None or peer.cluster_only else peer.places
        if given.spec.scope or any(may_read for may_read in named.values()):
            own = [place for url in named if (place := task.places.get(url)) and named[url]]
            usable = [place.url for place in own if place.failure is None and reader not in place.tried]
            assert given.spec.url in usable or (not usable and not given.spec.scope)


def check_words(told: TaskFailed) -> None:
    """A host hears of its own places only, and of each what happened there."""
    for url, failure in told.places.items():
        if failure.words.startswith("failed at") and failure is not told.failure:
            assert failure.words == f"failed at {url}"
    if told.places and told.failure.words.startswith("failed at"):
        assert told.failure.words.removeprefix("failed at ") in told.places


class Cluster(RuleBasedStateMachine):
    """Hosts come, go, want, read, give and fail in any order."""

    @initialize(
        readers=st.integers(1, 3),
        seed=st.integers(0, 9),
        absent=st.sets(hosts, max_size=4),
        wanting=st.sets(peers),
        placed=st.lists(st.tuples(peers, st.sampled_from(PLACES)), max_size=5),
        secretly=st.booleans(),
    )
    def begin(
        self,
        readers: int,
        seed: int,
        absent: set[str],
        wanting: set[str],
        placed: list[tuple[str, TaskSpec]],
        secretly: bool,
    ) -> None:
        self.d = CheckedDriver(seed, origin_readers=readers, parents=2)
        self.versions: dict[str, int] = defaultdict(lambda: 1)
        self.seen_digests: dict[tuple[str, str, int], bytes] = {}
        self.restarts = 0
        self.d.join(*(host for host in HOSTS if host not in absent))
        self.d.want(*(host for host in PEERS if host in wanting), spec=PUBLIC)
        for host, place in placed:
            self.d.want(host, spec=SECRET_PLACES[PLACES.index(place)] if secretly else place)

    # --- helpers

    def version(self, spec: TaskSpec) -> str:
        return f"v{self.versions[spec.task_id]}"

    def about(self, spec: TaskSpec) -> Any:
        return described(self.version(spec))

    def task(self, spec: TaskSpec) -> Task | None:
        return self.d.state.cluster.tasks.get(spec.task_id)

    def present(self, host: str) -> bool:
        return self.d.state.cluster.present(host) is not None

    def granted(self, host: str) -> list[SourceGranted]:
        """Grants that the host was told of and not to stop."""
        revoked = {r.grant for r in self.d.all(host, SourceRevoked)}
        return [g for g in self.d.all(host, SourceGranted) if g.grant not in revoked]

    # --- hosts

    @rule(host=hosts)
    def join(self, host: str) -> None:
        self.d.join(host)

    @rule(host=hosts)
    def restart(self, host: str) -> None:
        self.restarts += 1
        self.d.join(host, instance=f"{host}-{self.restarts}x")

    @rule(host=hosts)
    def leave(self, host: str) -> None:
        self.d.leave(host)

    @rule(host=hosts)
    def break_stream(self, host: str) -> None:
        self.d.close(host)

    @precondition(lambda self: any(self.present(h) for h in HOSTS))
    @rule(data=st.data())
    def reopen_stream(self, data: st.DataObject) -> None:
        self.d.open(data.draw(st.sampled_from([h for h in HOSTS if self.present(h)])))

    @rule(host=hosts, draining=st.booleans())
    def drain(self, host: str, draining: bool) -> None:
        if self.present(host):
            self.d.renew(host, draining=draining)

    @rule(host=hosts, zone=st.sampled_from(["", "A", "B"]))
    def move(self, host: str, zone: str) -> None:
        if self.present(host):
            self.d.renew(host, network=zone)

    # --- wanting and holding

    @rule(host=peers, spec=specs, may_read=st.booleans(), cluster_only=st.booleans())
    def want(self, host: str, spec: TaskSpec, may_read: bool, cluster_only: bool) -> None:
        self.d.want(host, spec=spec, may_read=may_read, cluster_only=cluster_only)

    @rule(host=peers, spec=specs, pieces=numbers)
    def go_on(self, host: str, spec: TaskSpec, pieces: list[int]) -> None:
        """The task had another owner, and the host was downloading it."""
        about = self.about(spec)
        held = Bitmap(pieces).to_bytes()
        self.d.say(
            host,
            PeerRegistered(spec.task_id, spec, begun=True),
            PeerHolding(spec.task_id, spec, about, held, digests(pieces, about.version)),
        )

    @rule(host=hosts, spec=specs, pieces=numbers, grant=st.sampled_from(["x-1", "x-2", "y-1"]))
    def read_for_another_scheduler(self, host: str, spec: TaskSpec, pieces: list[int], grant: str) -> None:
        version = self.version(spec)
        if pieces:
            self.d.say(host, SourcePieces(spec.task_id, grant, version, digests(pieces, version)))
        else:
            self.d.say(host, SourceProgress(spec.task_id, grant, 1000))

    @rule(host=hosts, spec=specs, pieces=numbers, complete=st.booleans(), old=st.booleans())
    def report_holding(self, host: str, spec: TaskSpec, pieces: list[int], complete: bool, old: bool) -> None:
        about = described("v0") if old else self.about(spec)
        held = list(range(PIECES)) if complete else pieces
        known = digests(held, about.version)
        bits = Bitmap(held).to_bytes()
        self.d.say(host, PeerHolding(spec.task_id, spec, about, bits, known, complete))

    @rule(host=peers, spec=specs, pieces=numbers)
    def get_pieces(self, host: str, spec: TaskSpec, pieces: list[int]) -> None:
        self.d.got(host, *pieces, version=self.version(spec), spec=spec)

    @rule(host=peers, spec=specs)
    def finish(self, host: str, spec: TaskSpec) -> None:
        self.d.finish(host, self.version(spec), spec)

    @rule(host=peers, spec=specs)
    def give_up(self, host: str, spec: TaskSpec) -> None:
        self.d.say(host, PeerLeft(spec.task_id))

    @rule(host=hosts, spec=specs)
    def evict(self, host: str, spec: TaskSpec) -> None:
        self.d.say(host, TaskRemoved(spec.task_id))

    @rule(child=peers, parent=hosts, spec=specs, reason=st.sampled_from(["corrupt", "gone", "busy"]))
    def complain(self, child: str, parent: str, spec: TaskSpec, reason: str) -> None:
        self.d.complain(child, parent, reason, spec)

    # --- checking

    @rule(host=hosts, spec=specs, may_read=st.booleans())
    def ask(self, host: str, spec: TaskSpec, may_read: bool) -> None:
        self.d.ask(host, about=self.about(spec), spec=spec, may_read=may_read)

    @precondition(lambda self: any(self.checks()))
    @rule(expired=st.sampled_from([True, True, False, None]))
    def check(self, expired: bool | None) -> None:
        for task_id, check in list(self.checks()):
            self.d.say(check.host, SourceChecked(task_id, check.id, expired))

    def checks(self) -> Iterator[tuple[str, Check]]:
        for task in self.d.state.cluster.tasks.values():
            if task.freshness.check is not None:
                yield task.id, task.freshness.check

    @rule(host=hosts, spec=specs)
    def follow(self, host: str, spec: TaskSpec) -> None:
        generation = self.d.state.cluster.generations.get(spec.logical_id, "")
        if any(move.generation == generation for move in self.d.all(host, TaskMoved)):
            self.d.want(host, spec=in_generation(spec, generation))

    # --- reading

    @rule(host=hosts, changed=st.booleans(), known=st.booleans())
    def origin_answers(self, host: str, changed: bool, known: bool) -> None:
        for given in self.granted(host)[-1:]:
            self.versions[given.task] += changed
            self.d.opened(host, described(f"v{self.versions[given.task]}", length=-1 if known else None))

    @rule(host=hosts, pieces=numbers)
    def read_pieces(self, host: str, pieces: list[int]) -> None:
        for given in self.granted(host)[-1:]:
            version = f"v{self.versions[given.task]}"
            self.d.say(host, SourcePieces(given.task, given.grant, version, digests(pieces, version)))

    @rule(host=hosts, honestly=st.booleans())
    def finish_reading(self, host: str, honestly: bool) -> None:
        for given in self.granted(host)[-1:]:
            version = f"v{self.versions[given.task]}"
            about = described(version)
            if honestly:
                self.d.opened(host, about)
                everything = digests(range(PIECES), version)
                self.d.say(host, SourcePieces(given.task, given.grant, version, everything))
            self.d.say(host, SourceFinished(given.task, given.grant, about))

    @rule(
        host=hosts,
        fault=st.sampled_from(["origin", "reader", "request"]),
        status=st.sampled_from([401, 404, 500]),
        wrong=st.booleans(),
        offline=st.booleans(),
    )
    def reading_fails(self, host: str, fault: Any, status: int, wrong: bool, offline: bool) -> None:
        for given in self.granted(host)[-1:]:
            failure = Failure(f"failed at {given.spec.url}", status, fault=fault)
            self.d.say(host, SourceFailed(given.task, given.grant, failure, wrong, offline))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.5, 6.0, 20.0]), renewing=st.booleans())
    def time_passes(self, seconds: float, renewing: bool) -> None:
        self.d.wait(seconds, renewing=renewing)

    # --- what always holds

    @invariant()
    def few_read_at_once(self) -> None:
        cluster = self.d.state.cluster
        for task in cluster.tasks.values():
            assert len(task.grants) <= self.d.config.origin_readers
            assert len({g.host for g in task.grants.values()}) == len(task.grants)
            for grant in task.grants.values():
                assert cluster.serving(grant.host)
                if task.spec.scope:
                    assert grant.host in task.peers
                if grant.place:
                    place = task.places.get(grant.place)
                    assert place is not None
                    assert place.failure is None
        total = sum(len(task.grants) for task in cluster.tasks.values())
        assert sum(cluster.reads.values()) == total

    @invariant()
    def lists_of_now_are_alive(self) -> None:
        """Once every list that is due was sent, no list names a host that is not live."""
        cluster = self.d.state.cluster
        for task in cluster.tasks.values():
            for peer in task.waiting.values():
                host = cluster.present(peer.host)
                if host is None or host.stream is None or peer.host in task.dirty:
                    continue
                for parent in peer.parents or ():
                    present = cluster.present(parent.host)
                    assert present is not None
                    assert present.live
                    assert parent.host in task.holders

    @invariant()
    def every_class_has_one_carrier_in_each_zone(self) -> None:
        cluster = self.d.state.cluster
        for task in cluster.tasks.values():
            readers = {grant.host for grant in task.grants.values() if grant.opened}
            for zone in ("A", "B"):
                waiting = [h for h in task.waiting if cluster.zone(h) == zone and h not in readers]
                live = {h for h in waiting if cluster.live(h)}
                shares = task.crews[zone].carriers.shares if zone in task.crews else {}
                coming = task.crews[zone].carriers._coming if zone in task.crews else []
                assert shares.keys() == live
                total = sum(shares.values()) + sum(share for _, _, share in coming)
                assert total == (EVERYTHING if live else 0)

    @invariant()
    def far_is_who_stands_in_another_zone(self) -> None:
        cluster = self.d.state.cluster
        for task in cluster.tasks.values():
            for peer in task.waiting.values():
                host = cluster.present(peer.host)
                if host is None or host.stream is None or peer.host in task.dirty:
                    continue
                crew = task.crews.get(host.zone)
                for parent in peer.parents or ():
                    assert parent.far != near(host.zone, cluster.zone(parent.host))
                    if parent.far and crew is not None and peer.host in crew.ranks:
                        assert parent.carries == crew.carriers.of(peer.host)

    @invariant()
    def waiting_is_never_in_vain(self) -> None:
        cluster, now = self.d.state.cluster, self.d.now
        for task in cluster.tasks.values():
            waiting = cluster.live_waiting(task)
            need = need_of(
                task,
                waiting,
                lambda h, task=task: cluster.serving(h) and not task.accusations.banned(h, now),  # type: ignore[misc]
                now,
            )
            if need is not None:
                patient = task.unmet_since is not None and (
                    now <= task.unmet_since + self.d.config.reader_patience
                )
                settling = task.settles_at is not None and now <= task.settles_at
                assert task.grants or patient or settling, "somebody reads, or the wait has an end"

    @invariant()
    def who_asks_gets_an_answer(self) -> None:
        cluster = self.d.state.cluster
        for task in cluster.tasks.values():
            freshness = task.freshness
            settling = task.settles_at is not None and self.d.now <= task.settles_at
            assert not freshness.asking or freshness.check is not None or settling
            if freshness.check is not None:
                assert freshness.check.deadline <= self.d.now + self.d.config.check_timeout
                assert not cluster.superseded(task)
                assert cluster.present(freshness.check.host) is not None
            assert all(cluster.present(host) is not None for host in freshness.asking)
            assert not (freshness.asking.keys() & task.waiting.keys()) or task.meta is not None

    @invariant()
    def digests_never_change(self) -> None:
        for task in self.d.state.cluster.tasks.values():
            for batch in task.digests.batches():
                for number, value in batch.items():
                    key = (task.id, task.version or "", number)
                    assert self.seen_digests.setdefault(key, value) == value

    @invariant()
    def the_books_are_right(self) -> None:
        cluster = self.d.state.cluster
        listed: dict[str, int] = {}
        for task in cluster.tasks.values():
            for host, peer in task.peers.items():
                assert (peer.state is PeerState.WAITING) == (host in task.waiting)
                assert (host in task.holders) == (bool(peer.held) or task.reading(host))
                assert cluster.present(host) is not None
                for parent in peer.parents or ():
                    listed[parent.host] = listed.get(parent.host, 0) + 1
            assert set(task.waiting) <= set(task.peers)
            assert set(task.holders) <= set(task.peers)
            assert {g.host for g in task.grants.values()} <= set(task.peers)
            assert task.dirty <= set(task.waiting)
        assert dict(+cluster.children) == listed

    @invariant()
    def who_lacks_pieces_that_others_hold_has_parents(self) -> None:
        cluster, now = self.d.state.cluster, self.d.now
        for task in cluster.tasks.values():
            for child in task.waiting.values():
                host = cluster.present(child.host)
                if child.parents or host is None or host.stream is None:
                    continue
                for peer in task.holders.values():
                    usable = cluster.serving(peer.host) and not task.accusations.banned(peer.host, now)
                    if usable and peer is not child and not child.avoids(peer.host, now):
                        assert not peer.held - child.held

    @invariant()
    def time_has_something_to_do_later_only(self) -> None:
        self.d.wait(0.002)
        due = self.d.state.next_deadline()
        assert due is None or due > self.d.now

    def teardown(self) -> None:
        """Let everybody be well again: all who wait are served or told, and all is forgotten in the end."""
        if not hasattr(self, "d"):
            return
        d = self.d
        for host in list(HOSTS):
            if self.present(host):
                d.leave(host)
        d.wait(130)
        assert d.state.cluster.tasks == {}
        assert d.state.cluster.generations == {}
        assert not d.state.cluster._tasks_of
        assert not d.state.cluster.unmet
        assert d.state.next_deadline() is None
        assert not any(
            isinstance(a, TaskDescribed) and not a.meta.version for t in d.told.values() for a in t
        )


Cluster.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCluster = Cluster.TestCase
