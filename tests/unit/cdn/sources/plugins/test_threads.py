"""Calls in threads: given up, stopped, and never letting anything out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import trio

from cdn.sources.plugins.threads import STOPS, Job, Stop
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import gate

# What ends an endless loop may hit it in a callback of the garbage collector, which can only be reported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def explain(error: BaseException) -> SourceError:
    return SourceError(type(error).__name__)


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def started(job: Job[object]) -> threading.Thread:
    thread = threading.Thread(target=job.run, daemon=True)
    thread.start()
    return thread


def test_a_value_and_an_error() -> None:
    job = Job(lambda: 5, explain)
    job.run()
    assert (job.value, job.error, job.settled, job.succeeded) == (5, None, True, True)
    for error in (ValueError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit):

        def fails(error: type[BaseException] = error) -> None:
            raise error

        failed = Job(fails, explain)
        failed.run()
        assert str(failed.error) == error.__name__
        assert failed.error is not None
        assert failed.error.__context__ is None
        assert not failed.succeeded


def test_an_endless_loop_is_stopped() -> None:
    begun = threading.Event()

    def endless() -> None:
        while True:
            begun.set()

    job: Job[object] = Job(endless, explain)
    thread = started(job)
    begun.wait()
    assert job.stop()
    thread.join()
    assert job.settled
    assert not job.succeeded
    assert job.cpu() > 0
    assert not job.stop()


def test_what_catches_everything_is_stopped_so_often_and_then_left_alone() -> None:
    begun = threading.Semaphore(0)
    caught: list[type[BaseException]] = []

    def stubborn() -> None:
        while len(caught) < STOPS:
            try:
                begun.release()
                while True:
                    pass
            except BaseException as error:  # noqa: BLE001 - that is the bad plugin
                caught.append(type(error))

    job: Job[object] = Job(stubborn, explain)
    thread = started(job)
    for _ in range(STOPS):
        begun.acquire()
        assert job.stop()
    thread.join()
    assert caught == [Stop] * STOPS
    assert job.succeeded


@pytest.mark.parametrize("stops", range(1, STOPS + 1))
def test_a_stop_that_comes_at_any_moment_does_not_get_out(stops: int, eager: None) -> None:
    """Many short jobs in one thread, stopped from another while they begin, run and end."""
    jobs: list[Job[object]] = []
    escaped: list[BaseException] = []
    over = threading.Event()

    def many() -> None:
        try:
            for _ in range(300):
                job: Job[object] = Job(lambda: sum(range(50)), explain)
                jobs.append(job)
                job.run()
            sum(range(1000))  # whatever is still on its way would arrive here
        except BaseException as error:  # noqa: BLE001 - what must not happen
            escaped.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=many)
    thread.start()
    while not over.is_set():
        for job in jobs[-1:]:
            for _ in range(stops):
                job.stop()
    thread.join()
    assert not escaped
    assert all(job.settled for job in jobs)


def test_nothing_runs_that_was_given_up_before_it_began() -> None:
    ran: list[int] = []
    ended: list[object] = []
    job: Job[object] = Job(lambda: ran.append(1), explain, ended=ended.append)
    assert job.abandon()
    job.run()
    assert not ran
    assert ended == [job]


def test_the_result_of_a_call_that_was_given_up_is_let_go() -> None:
    results: list[object] = []
    done = threading.Event()
    with gate() as door:

        def late() -> str:
            door.wait()
            return "late"

        job: Job[object] = Job(late, explain, discard=results.append, ended=lambda _: done.set())
        started(job)
        door.entered.acquire()
        assert job.abandon()
        assert repr(job) == "<Job abandoned>"
    done.wait()
    assert results == ["late"]
    assert not job.abandon()


async def test_it_runs_in_trios_threads_as_well() -> None:
    begun = threading.Event()

    def endless() -> None:
        while True:
            begun.set()

    job: Job[object] = Job(endless, explain)
    finish: Callable[[], object] = job.stop
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, job.run)
        await trio.to_thread.run_sync(begun.wait)
        assert finish()
    assert job.settled
