"""Fixtures of the LAN's tests, and the figures that they tell at the end of a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab.lan import LanLab

FAILED = pytest.StashKey[bool]()
FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends a run like Ctrl-C does, so that no process and no namespace outlives it."""
    config.stash[FIGURES] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test's own part failed, for the fixtures that clean up."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How long things took: told, not asserted."""
    if config.stash[FIGURES]:
        terminalreporter.section("figures of the LAN")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes lines that are shown at the end of the run."""

    def add(line: str) -> None:
        request.config.stash[FIGURES].append(f"{request.node.name}: {line}")

    return add


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[LanLab]:
    """A LAN in which nothing runs yet."""
    assert os.geteuid() == 0, "the lab builds network namespaces: run it as root"
    made = LanLab()
    yield made
    problems = made.close(failed=request.node.stash.get(FAILED, False))
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)
