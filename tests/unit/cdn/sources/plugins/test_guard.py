"""Who is charged for memory, who is stopped, and what the process may have meanwhile."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterator

import pytest

from cdn.sources.plugins.guard import SLACK, STOP_AGAIN, Account, Use, Watch
from cdn.sources.plugins.memory import DataLimit, Memory, parse_status, process_memory
from cdn.sources.plugins.threads import Job
from tests.unit.cdn.fakes import MIB

LIMIT = 100 * MIB


class FakeLimit(DataLimit):
    """Only notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: int | None = None

    def set(self, limit: int) -> None:
        self.bytes = limit

    def lift(self) -> None:
        self.bytes = None


class FakeUse(Use):
    """Takes the processor time that the test says."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.seconds = 0.0

    def cpu(self) -> float:
        return self.seconds


class FakeJob(Job[None]):
    """Notes its stops; ``runs`` tells for how many of them it goes on."""

    def __init__(self, runs: int = 1) -> None:
        super().__init__(lambda: None, lambda error: None)  # type: ignore[arg-type, return-value]
        self.stops = 0
        self._runs = runs

    def stop(self) -> bool:
        self.stops += 1
        return self.stops <= self._runs


class Process:
    """What a watch sees of a process, and the watch; its thread never starts."""

    def __init__(self) -> None:
        self.memory = Memory(1000 * MIB, 2000 * MIB)
        self.busy = 0.0
        self.now = 0.0
        self.limit = FakeLimit()
        self.watch = Watch(
            probe=lambda: self.memory,
            limit=self.limit,
            clock=lambda: self.now,
            busy=lambda: self.busy,
        )
        self.watch._awake = lambda: None  # type: ignore[method-assign]

    def passes(self, gained: int) -> None:
        """A tick in which the process gains memory and takes a tenth of a second of the processor's time."""
        self.memory = Memory(self.memory.anonymous + gained, self.memory.data + gained)
        self.now += 0.1
        self.busy += 0.1
        self.watch.tick()

    def begin(self, account: Account) -> FakeUse:
        use = FakeUse(account)
        self.watch.begin(use)
        return use


@pytest.fixture
def process() -> Process:
    return Process()


def test_who_was_busy_pays(process: Process) -> None:
    eats, idles = process.begin(Account(LIMIT)), process.begin(Account(LIMIT))
    for _ in range(4):
        eats.seconds += 0.09
        idles.seconds += 0.01
        process.passes(25 * MIB)
    assert round(eats.charged / MIB) == 90
    assert round(idles.charged / MIB) == 10
    assert (eats.exceeded, idles.exceeded) == (False, False)
    eats.seconds += 0.09
    process.passes(25 * MIB)
    assert (eats.exceeded, idles.exceeded) == (True, False)


def test_what_is_given_back_is_not_charged(process: Process) -> None:
    use = process.begin(Account(LIMIT))
    for _ in range(50):
        use.seconds += 0.1
        process.passes(90 * MIB)
        use.seconds += 0.1
        process.passes(-90 * MIB)
    assert not use.exceeded
    assert use.charged == 0


def test_nobody_is_charged_with_more_than_the_process_has_gained(process: Process) -> None:
    use = process.begin(Account(LIMIT))
    for _ in range(50):
        use.seconds += 0.1
        process.passes(90 * MIB)
        process.passes(-90 * MIB)  # (somebody else's, then)
    assert not use.exceeded


def test_what_a_plugin_does_at_a_time_counts_together(process: Process) -> None:
    account, cancelled = Account(LIMIT), []
    first, second = process.begin(account), process.begin(account)
    with second.cancelled_by(lambda: cancelled.append("second")):
        for _ in range(3):
            first.seconds += 0.04
            second.seconds += 0.06
            process.passes(30 * MIB)
        assert (first.exceeded, second.exceeded) == (False, False)
        first.seconds += 0.04
        second.seconds += 0.06
        process.passes(30 * MIB)
        assert (first.exceeded, second.exceeded) == (False, True), "the greater of the two"
    assert cancelled == ["second"]
    process.passes(0)
    assert not first.exceeded, "what was stopped does not count any more"


def test_a_use_that_is_over_is_forgotten(process: Process) -> None:
    use = process.begin(Account(LIMIT))
    process.watch.end(use)
    use.seconds = 0.1
    process.passes(200 * MIB)
    assert not use.exceeded
    assert process.limit.bytes is None
    del use
    use = process.begin(Account(LIMIT))
    del use  # nobody ended it
    process.passes(0)
    assert process.limit.bytes is None


def test_no_limit(process: Process) -> None:
    use = process.begin(Account(0))
    use.seconds = 0.1
    process.passes(2000 * MIB)
    assert not use.exceeded
    assert process.limit.bytes is None


def test_the_bound_moves_with_the_process_but_not_for_who_was_stopped(process: Process) -> None:
    use, job = process.begin(Account(LIMIT)), FakeJob()
    assert process.limit.bytes == 2000 * MIB + LIMIT + SLACK
    process.passes(500 * MIB)
    assert process.limit.bytes == 2500 * MIB + LIMIT + SLACK
    use.enter(job)
    use.seconds = 0.1
    process.passes(200 * MIB)
    assert use.exceeded
    bound = process.limit.bytes
    process.passes(200 * MIB)
    process.begin(Account(LIMIT))
    assert process.limit.bytes == bound
    use.leave(job)
    process.passes(0)
    assert process.limit.bytes == 2900 * MIB + LIMIT + SLACK


def test_late_jobs_are_stopped_again_and_again(process: Process) -> None:
    job = FakeJob(runs=2)
    process.watch.late(job, after=1.0)
    process.passes(0)
    assert job.stops == 0
    process.now = 1.0
    process.watch.tick()
    process.watch.tick()
    assert job.stops == 1
    for expected in (2, 3, 3):
        process.now += STOP_AGAIN
        process.watch.tick()
        assert job.stops == expected
    assert repr(process.watch) == "<Watch of 0 uses, 0 late>"


def test_a_process_that_cannot_be_looked_at_is_not_bounded() -> None:
    limit = FakeLimit()
    watch = Watch(probe=lambda: None, limit=limit)
    watch._awake = lambda: None  # type: ignore[method-assign]
    use = Use(Account(LIMIT))
    watch.begin(use)
    watch.tick()
    assert limit.bytes is None
    assert not use.exceeded


# --- the system's side ----------------------------------------------------------------------------


def test_status() -> None:
    text = b"Name:\tx\nVmData:\t    2000 kB\nRssAnon:\t 100 kB\nVmRSS:\t 900 kB\nVmSwap:\t 5 kB\n"
    assert parse_status(text) == Memory(105 * 1024, 2000 * 1024)
    assert parse_status(b"VmRSS: 900 kB\nVmData: 5 kB\n") == Memory(900 * 1024, 5 * 1024)
    assert parse_status(b"VmRSS: 900 kB\n") is None
    assert parse_status(b"VmData:\nVmRSS: x kB\n") == Memory(0, 0)


def test_this_process() -> None:
    before = process_memory()
    with mmap.mmap(-1, 16 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(bytes(16 * MIB))
        after = process_memory()
    assert before is not None
    assert after is not None
    assert after.anonymous - before.anonymous > 12 * MIB
    assert after.data > 12 * MIB


@pytest.fixture
def soft() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.usefixtures("soft")
def test_the_limit_is_put_back() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (60 * 1024 * MIB, hard))
    limit = DataLimit()
    limit.lift()
    limit.set(50 * 1024 * MIB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == (50 * 1024 * MIB, hard)
    limit.set(70 * 1024 * MIB)
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 60 * 1024 * MIB, "never more than there was"
    limit.lift()
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 60 * 1024 * MIB
