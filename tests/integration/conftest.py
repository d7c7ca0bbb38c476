"""Fixtures of the integration tests: a cluster of real processes and origins that count."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.cluster import Cluster
from tests.integration.origins import Origin

FAILED = pytest.StashKey[bool]()


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
    """A cluster in which nothing runs yet."""
    return make_cluster()


@pytest.fixture
def make_origin() -> Iterator[Callable[..., Origin]]:
    """Makes origins on addresses of their own."""
    with ExitStack() as stack:
        yield lambda host="127.0.0.1": stack.enter_context(Origin(host))


@pytest.fixture
def origin(make_origin: Callable[..., Origin]) -> Origin:
    """An origin that serves nothing yet."""
    return make_origin()
