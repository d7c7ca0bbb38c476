"""A cluster of made-up hosts around a ClusterState: says things in their name and keeps what they are told."""

from __future__ import annotations

import random
from typing import Any, TypeVar

from blake3 import blake3

from scheduler.config import SchedulerConfig
from scheduler.state import ClusterState
from scheduler.tasks import Task
from shared.protocol import (
    Assignment,
    CheckGranted,
    Failure,
    FreshWanted,
    HostLease,
    LeaseGranted,
    ParentFailed,
    ParentsAssigned,
    PeerFinished,
    PeerHolding,
    PeerLeft,
    PeerRegistered,
    PiecesHeld,
    Report,
    Reports,
    SourceChecked,
    SourceFailed,
    SourceFinished,
    SourceGranted,
    SourceOpened,
    SourcePieces,
    SourceProgress,
    TaskFailed,
    TaskMeta,
)
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec

A = TypeVar("A", bound=Assignment)

SPEC = TaskSpec(url="https://origin.test/file")
PIECE = 1000
WALL = 1_700_000_000.0
"""Unix seconds at the driver's time 0."""


def meta(
    version: str = "v1", pieces: int = 4, *, length: int | None = -1, revalidate: float | None = None
) -> TaskMeta:
    """Metadata of a content of so many full pieces (length None: not known yet)."""
    return TaskMeta(version, PIECE, pieces * PIECE if length == -1 else length, revalidate=revalidate)


def digest(number: int, version: str = "v1") -> bytes:
    """The digest of a piece."""
    return blake3(f"{version} {number}".encode()).digest()


def digests(numbers: Any, version: str = "v1") -> dict[int, bytes]:
    """Digests of several pieces."""
    return {n: digest(n, version) for n in numbers}


class Driver:
    """``told[host]`` is everything that a host was told, in order; ``now`` is the time."""

    def __init__(self, seed: int = 1, **settings: Any) -> None:
        self.now = 1000.0
        self.config = SchedulerConfig(**settings)
        self.state = ClusterState(
            self.config, now=self.now, rng=random.Random(seed), name="test", wall=self.now + WALL
        )
        self.told: dict[str, list[Assignment]] = {}
        self.instances: dict[str, str] = {}
        self._streams = 0

    # --- hosts

    def renew(self, host: str, *, instance: str | None = None, **fields: Any) -> LeaseGranted:
        """A lease, without a stream."""
        if instance is not None:
            self.instances[host] = instance
        lease = HostLease(
            host=host,
            instance=self.instances.setdefault(host, f"{host}-1"),
            role=fields.pop("role", "seeder" if host.startswith("seeder") else "peer"),
            address=fields.pop("address", f"{host}:65002"),
            **fields,
        )
        granted, decisions = self.state.renew(lease, self.now)
        self.take(decisions)
        return granted

    def join(self, *hosts: str, **fields: Any) -> None:
        """Leases and streams."""
        for host in hosts:
            self.renew(host, **fields)
            self.open(host)

    def open(self, host: str) -> int:
        """An assignment stream."""
        self._streams += 1
        self.take(self.state.stream_opened(host, self._streams, self.now))
        return self._streams

    def close(self, host: str, stream: int | None = None) -> None:
        """The stream breaks."""
        present = self.state.cluster.present(host)
        if present is not None and (stream is not None or present.stream is not None):
            number = stream if stream is not None else present.stream
            assert number is not None
            self.take(self.state.stream_closed(host, number, self.now))

    def leave(self, host: str) -> None:
        self.take(self.state.leave(host, self.now))

    # --- reports

    def say(self, host: str, *reports: Report) -> bool:
        """A batch of reports; gives whether the host is known."""
        batch = Reports(self.instances.get(host, "?"), list(reports))
        taken, decisions = self.state.report(host, batch, self.now)
        self.take(decisions)
        return taken.known

    def want(self, *hosts: str, spec: TaskSpec = SPEC, **fields: Any) -> None:
        for host in hosts:
            self.say(host, PeerRegistered(spec.task_id, spec, **fields))

    def hold(
        self, host: str, pieces: Any, *, about: TaskMeta | None = None, spec: TaskSpec = SPEC, **fields: Any
    ) -> None:
        about = about or meta()
        known = fields.pop("digests", digests(pieces, about.version))
        held = Bitmap(pieces).to_bytes()
        self.say(host, PeerHolding(spec.task_id, spec, about, held, known, **fields))

    def got(self, host: str, *pieces: int, version: str = "v1", spec: TaskSpec = SPEC) -> None:
        self.say(host, PiecesHeld(spec.task_id, version, list(pieces)))

    def finish(self, host: str, version: str = "v1", spec: TaskSpec = SPEC) -> None:
        self.say(host, PeerFinished(spec.task_id, version), PeerLeft(spec.task_id))

    def complain(self, child: str, parent: str, reason: str = "gone", spec: TaskSpec = SPEC) -> None:
        self.say(child, ParentFailed(spec.task_id, parent, reason))

    # --- checking

    def ask(self, *hosts: str, about: TaskMeta | None = None, spec: TaskSpec = SPEC, **fields: Any) -> None:
        """The hosts hold the content and are to give it out."""
        for host in hosts:
            self.say(host, FreshWanted(spec.task_id, spec, about or meta(revalidate=60), **fields))

    def check(self, host: str) -> CheckGranted:
        """The last check that the host was told to make."""
        return self.all(host, CheckGranted)[-1]

    def checks(self, spec: TaskSpec = SPEC) -> list[tuple[str, CheckGranted]]:
        """All checks that anybody was told to make."""
        return [
            (host, check)
            for host in self.told
            for check in self.all(host, CheckGranted)
            if check.task == spec.task_id
        ]

    def answer(
        self, host: str, expired: bool | None, *, grant: str | None = None, failed: bool = False
    ) -> None:
        """The outcome of the host's last check."""
        given = self.check(host)
        self.say(host, SourceChecked(given.task, grant or given.grant, expired, failed))

    # --- reading

    def grant(self, host: str) -> SourceGranted:
        """The last grant that the host was told of."""
        return self.all(host, SourceGranted)[-1]

    def opened(self, host: str, about: TaskMeta | None = None, *, grant: str | None = None) -> None:
        given = self.grant(host) if grant is None else None
        task = given.task if given is not None else SPEC.task_id
        self.say(host, SourceOpened(task, grant or given.grant, about or meta()))  # type: ignore[union-attr]

    def read(
        self, host: str, *pieces: int, version: str = "v1", grant: str | None = None, task: str | None = None
    ) -> None:
        grant_id = grant or self.grant(host).grant
        self.say(host, SourcePieces(task or SPEC.task_id, grant_id, version, digests(pieces, version)))

    def progress(self, host: str, received: int) -> None:
        given = self.grant(host)
        self.say(host, SourceProgress(given.task, given.grant, received))

    def read_all(self, host: str, about: TaskMeta | None = None) -> None:
        """Open, read everything, finish."""
        about = about or meta()
        given = self.grant(host)
        self.opened(host, about)
        assert about.length is not None
        self.read(host, *range(-(-about.length // PIECE)), version=about.version, task=given.task)
        self.say(host, SourceFinished(given.task, given.grant, about))

    def read_failed(self, host: str, **fields: Any) -> None:
        given = self.grant(host)
        words, wrong = fields.pop("words", "it failed"), fields.pop("wrong", False)
        self.say(host, SourceFailed(given.task, given.grant, Failure(words, **fields), wrong))

    # --- time

    def wait(self, seconds: float, *, renewing: bool = True) -> None:
        """Let time pass, doing what is due at the very time it is."""
        end = self.now + seconds
        next_renewal = self.now if renewing else end + 1
        for _ in range(100_000):
            due = self.state.next_deadline()
            if renewing and next_renewal <= min(end, due if due is not None else end):
                self.now = max(self.now, next_renewal)
                for host in list(self.instances):
                    present = self.state.cluster.present(host)
                    if present is not None:
                        _, decisions = self.state.renew(present.lease, self.now)
                        self.take(decisions)
                next_renewal += self.config.lease / 3
            elif due is not None and due <= end:
                self.now = max(self.now, due)
                decisions, _ = self.state.tick(self.now)
                self.take(decisions)
            else:
                self.now = end
                return
        raise AssertionError("the state is never done")

    # --- what was told

    def take(self, decisions: list[tuple[str, Assignment]]) -> None:
        for host, assignment in decisions:
            self.told.setdefault(host, []).append(assignment)

    def all(self, host: str, kind: type[A]) -> list[A]:
        """All assignments of a kind that the host was told."""
        return [a for a in self.told.get(host, []) if isinstance(a, kind)]

    def forget_told(self) -> None:
        self.told.clear()

    def parents(self, host: str) -> list[str]:
        """The host's current list of parents, as it was told."""
        lists = self.all(host, ParentsAssigned)
        return [parent.host for parent in lists[-1].parents] if lists else []

    def failure(self, host: str) -> Failure | None:
        failed = self.all(host, TaskFailed)
        return failed[-1].failure if failed else None

    def task(self, spec: TaskSpec = SPEC) -> Task:
        return self.state.cluster.tasks[spec.task_id]

    def readers(self, spec: TaskSpec = SPEC) -> list[str]:
        task = self.state.cluster.tasks.get(spec.task_id)
        return [grant.host for grant in task.grants.values()] if task is not None else []
