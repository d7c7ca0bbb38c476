"""Fixtures of the integration tests: clusters of real processes, and origins that count."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.cluster import Cluster
from tests.integration.origins import Origin
from tests.integration.processes import Daemon

FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends a run like Ctrl-C does, so that no daemon outlives it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test's own part failed, for the fixtures that clean up."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters with settings of their own; all are ended and checked after the test."""
    clusters: list[Cluster] = []

    def make(**settings: object) -> Cluster:
        cluster = Cluster(**settings)  # type: ignore[arg-type]
        clusters.append(cluster)
        return cluster

    yield make
    problems = []
    for cluster in clusters:
        cluster.failed = request.node.stash.get(FAILED, False)
        problems += cluster.close()
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster of the test's own in which nothing runs yet."""
    return make_cluster()


@pytest.fixture(scope="module")
def standing() -> Iterator[Cluster]:
    """A scheduler, a seeder and two peers that stand for all tests of a module."""
    cluster = Cluster()
    try:
        yield cluster.start(peers=2)
    finally:
        problems = cluster.close()
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture
def swarm(standing: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The module's standing cluster, for tests that kill nobody for good; each brings its own origin, so no
    two share content. What the daemons logged during the test is checked after it."""
    for daemon in standing.daemons:
        if not daemon.running:
            daemon.start()
    said = {daemon.name: len(daemon.log) for daemon in standing.daemons}
    yield standing
    standing.end_gets()
    if request.node.stash.get(FAILED, False):
        standing.print_logs()
    problems = [problem for daemon in standing.daemons for problem in _since(daemon, said[daemon.name])]
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


def _since(daemon: Daemon, start: int) -> list[str]:
    ended = [] if daemon.running else [f"{daemon.name} is gone:\n{daemon.log[-3000:]}"]
    return ended + daemon.bad_words(start)


@pytest.fixture
def make_origin() -> Iterator[Callable[..., Origin]]:
    """Makes origins on addresses of their own."""
    with ExitStack() as stack:
        yield lambda host="127.0.0.1": stack.enter_context(Origin(host))


@pytest.fixture
def origin(make_origin: Callable[..., Origin]) -> Origin:
    """An origin that serves nothing yet."""
    return make_origin()
