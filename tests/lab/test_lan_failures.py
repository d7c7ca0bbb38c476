"""A host of a LAN without a scheduler fails, idle or in the middle of a transfer, and comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.integration.net import wait_until
from tests.integration.origins import MIB, Gate, random_content
from tests.lab.conftest import FAILED
from tests.lab.lan import LanHost, LanLab, owner_of
from tests.lab.network import MBIT

pytestmark = pytest.mark.root

CONTENT = random_content(16 * MIB + 1, seed=52)
HALF = 8 * MIB

_numbers = itertools.count()


class Standing:
    """Five hosts and an origin that stand for all tests of this module."""

    def __init__(self, lab: LanLab) -> None:
        network = lab.network()
        self.lab = lab
        self.origin = lab.origin(network)
        self.hosts = [lab.host(network, role) for role in ("up", "peer", "up", "peer", "peer")]

    def heal(self) -> None:
        """Undo whatever a test has left, and have everybody find everybody."""
        for host in self.hosts:
            bring_back(host)
        self.lab.wait_found(self.hosts)

    def add_file(self, owner: LanHost, gate: Gate | None = None) -> tuple[str, str]:
        """A new file that ``owner`` decides for: path and URL."""
        while True:
            path = f"/file-{next(_numbers)}"
            url = self.origin.url + path
            if owner_of(url, self.hosts) == owner.id:
                return path, self.origin.add(path, CONTENT, gate=gate)


@pytest.fixture(scope="module")
def built() -> Iterator[Standing]:
    lab = LanLab()
    try:
        yield Standing(lab)
    finally:
        problems = lab.close()
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture
def standing(built: Standing, request: pytest.FixtureRequest) -> Iterator[Standing]:
    built.heal()
    said = {host.name: len(host.log) for host in built.hosts}
    yield built
    built.lab.end_gets()
    if request.node.stash.get(FAILED, False):
        built.lab.print_logs()
    problems = [problem for host in built.hosts for problem in host.bad_words(said[host.name])]
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


def fail(host: LanHost, fault: str) -> None:
    """Let a host fail in one of four ways."""
    if fault == "killed":
        host.kill()
    elif fault == "frozen":
        host.freeze()
    elif fault == "unplugged":
        host.machine.unplug()
    else:
        host.machine.cables[0].down()


def bring_back(host: LanHost) -> None:
    """Undo all that ``fail`` does."""
    cable = host.machine.cables[0]
    cable.limit(0)
    cable.plug()
    cable.up()
    host.thaw()
    if not host.running:
        host.start(wait=False)


def come_back(standing: Standing, host: LanHost, figure: Callable[[str], None]) -> None:
    """Bring a host back and see that it is used again: it is seen by all, and gives what it alone has."""
    bring_back(host)
    figure(f"it was back in all views after {standing.lab.wait_found(standing.hosts):.1f} s")
    other, *_ = (one for one in standing.hosts if one is not host)
    path, url = standing.add_file(other)
    host.get(url, CONTENT)
    got = other.get(url, CONTENT)
    assert got.sources["peer"] + got.sources["seeder"] == len(CONTENT)
    assert standing.origin.count(path).body == len(CONTENT)


def test_idle_hosts_fail_and_come_back(standing: Standing, figure: Callable[[str], None]) -> None:
    *staying, down, killed, frozen = standing.hosts
    for host, fault in ((down, "down"), (killed, "killed"), (frozen, "frozen")):
        fail(host, fault)
    figure(f"three that failed at once were used no more after {standing.lab.wait_found(staying):.1f} s")
    path, url = standing.add_file(frozen)
    standing.lab.get_all(url, staying, CONTENT)
    assert standing.origin.count(path).body == len(CONTENT)
    for host in (down, killed, frozen):
        bring_back(host)
    figure(f"they were back in all views after {standing.lab.wait_found(standing.hosts):.1f} s")
    for host in (down, killed, frozen):
        got = host.get(url, CONTENT)
        assert got.sources["origin"] == 0
    assert standing.origin.count(path).body == len(CONTENT)


@pytest.mark.parametrize("fault", ["killed", "unplugged", "frozen"])
def test_the_one_that_decides_fails(standing: Standing, figure: Callable[[str], None], fault: str) -> None:
    reader, other, late, _, victim = standing.hosts
    gate = Gate(HALF)
    path, url = standing.add_file(victim, gate)
    gets = [reader.start_get(url)]
    gate.wait_reached()
    gets.append(other.start_get(url))
    wait_until(lambda: other.held(url) >= HALF // 2, "the other has begun")
    fail(victim, fault)
    gets.append(late.start_get(url))
    lost = standing.lab.wait_lost(victim, [host for host in standing.hosts if host is not victim])
    figure(f"it was used no more after {lost:.1f} s")
    wait_until(lambda: late.held(url) >= HALF // 2, "one that came later has begun")
    gate.open()
    for get in gets:
        get.wait().check(CONTENT)
    assert standing.origin.count(path).body <= 2 * len(CONTENT)
    figure(f"the origin was read {standing.origin.count(path).body / len(CONTENT):.2f} times")
    come_back(standing, victim, figure)


@pytest.mark.parametrize("fault", ["killed", "unplugged", "frozen"])
def test_the_one_that_reads_the_origin_fails(
    standing: Standing, figure: Callable[[str], None], fault: str
) -> None:
    owner, first, second, _, victim = standing.hosts
    gate = Gate(HALF)
    path, url = standing.add_file(owner, gate)
    reading = victim.start_get(url)
    gate.wait_reached()
    gets = [first.start_get(url), second.start_get(url)]
    wait_until(lambda: min(first.held(url), second.held(url)) >= HALF // 2, "the others have begun")
    fail(victim, fault)
    gate.open()
    lost = standing.lab.wait_lost(victim, [host for host in standing.hosts if host is not victim])
    figure(f"it was used no more after {lost:.1f} s")
    for get in gets:
        get.wait().check(CONTENT)
    come_back(standing, victim, figure)
    if fault == "killed":
        reading.wait().check_failed()
    else:
        reading.wait().check(CONTENT)
    assert standing.origin.count(path).body <= 2 * len(CONTENT)
    figure(f"the origin was read {standing.origin.count(path).body / len(CONTENT):.2f} times")


@pytest.mark.parametrize("fault", ["killed", "unplugged", "frozen"])
def test_a_parent_fails(standing: Standing, figure: Callable[[str], None], fault: str) -> None:
    owner, first, second, _, victim = standing.hosts
    path, url = standing.add_file(owner)
    victim.get(url, CONTENT)
    victim.machine.limit(16 * MBIT)
    gets = [first.start_get(url), second.start_get(url)]
    wait_until(lambda: min(first.held(url), second.held(url)) >= MIB, "the others have begun")
    fail(victim, fault)
    lost = standing.lab.wait_lost(victim, [host for host in standing.hosts if host is not victim])
    figure(f"it was used no more after {lost:.1f} s")
    for get in gets:
        get.wait().check(CONTENT)
    assert standing.origin.count(path).body <= 2 * len(CONTENT)
    victim.machine.limit(0)
    come_back(standing, victim, figure)
