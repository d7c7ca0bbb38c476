"""A LAN without a scheduler, in network namespaces with real multicast: as root.

How soon hosts find each other, how soon a newcomer is of use, what it costs to have many of them, and how soon one that
fails is used no more. All machines of the lab share the cores of this one, so what takes CPU (starting a
process, above all) takes longer here than on machines of their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.common import GIB, MIB, Plan, Row, Samples, cpu_seconds
from tests.integration.net import wait_until
from tests.integration.origins import Gate, random_content
from tests.lab.lan import LanHost, LanLab
from tests.lab.mdns_noise import Noise, ghosts
from tests.lab.network import Network

HOSTS = 5
MANY = 50
SIZE = 8 * MIB
POLL = 0.02
SETTLED = 12.0
"""Seconds after which nothing of a start is left to do."""
EACH = 60 * MIB
"""Memory of a host, and some more."""
AT_ONCE = 5
"""Hosts that are started together where there are many."""


def measure(plan: Plan) -> list[Row]:
    """All figures of the LAN, which only root can measure."""
    if os.geteuid() != 0:
        return [Row("a LAN in network namespaces", "measured as root only")]
    return [*_start(plan), *_cost(plan), *_failures(plan)]


@contextmanager
def _lab() -> Iterator[LanLab]:
    with LanLab() as lab:
        lab.environ["DRAGONET_LOG_LEVEL"] = "warning"
        yield lab


# --- finding each other ----------------------------------------------------------------------------------


def _start(plan: Plan) -> list[Row]:
    """Five hosts that start at once, and one of them that comes later with a content that another waits for."""
    ready, together, seen, useful = Samples(), Samples(), Samples(), Samples()
    for run in range(plan.runs):
        with _lab() as lab:
            network = lab.network()
            hosts = [lab.add(network) for _ in range(HOSTS)]
            began = time.monotonic()
            for host in hosts:
                host.start(wait=False)
            for host in hosts:
                wait_until(lambda host=host: _tells(host), "it has a local API", 60, POLL)
            ready.add(time.monotonic() - began)
            lab.wait_found(hosts)
            together.add(time.monotonic() - began)
            _one_comes_later(lab, network, hosts, run, seen, useful)
    return [
        _bounded(
            f"{HOSTS} hosts start at once, until each has found all others",
            together,
            3.0,
            f"until all their processes answer: {ready.spread()}",
        ),
        _bounded("a newcomer, from the start of its process until all others use it", seen, 3.0),
        _bounded("the same, until it has given its first piece to one that waited for it", useful, 3.0),
    ]


def _one_comes_later(
    lab: LanLab, network: Network, hosts: Sequence[LanHost], run: int, seen: Samples, useful: Samples
) -> None:
    waiting, *others, newcomer = hosts
    origin = lab.origin(network)
    content = random_content(SIZE, seed=run)
    url = origin.add("/file", content)
    newcomer.get(url, content)
    newcomer.terminate()
    newcomer.wait()
    lab.wait_lost(newcomer, [waiting, *others])
    gate = Gate()
    origin.change("/file", gate=gate)  # from now on nobody gets anything from there
    get = waiting.start_get(url)
    gate.wait_reached()
    began = time.monotonic()
    newcomer.start(wait=False)
    wait_until(lambda: waiting.held(url) > 0, "the newcomer has given a piece", poll=POLL)
    useful.add(time.monotonic() - began)
    _wait_used(newcomer, [waiting, *others])
    seen.add(time.monotonic() - began)
    get.wait().check(content)
    gate.open()


# --- what it costs -----------------------------------------------------------------------------------------


def _cost(plan: Plan) -> list[Row]:
    window = float(plan.size(30, 8))
    alone, announced, heat = Samples(), Samples(), Samples()
    for _ in range(max(1, plan.runs // 2)):
        with _lab() as lab:
            network = lab.network()
            host = lab.host(network, "peer", wait=True)
            _rest(SETTLED)
            alone.add(_shares([host], window)[0])
            with _announced(network):
                heat.add(_shares([host], window)[0])
                wait_until(lambda host=host: len(host.others()) >= MANY, "all that are announced are known")
                announced.add(_shares([host], window)[0])
    shown = f"over {window:.0f} s"
    first = heat.spread("%")
    return [
        Row(
            f"CPU of an idle peer on a LAN with {MANY} announced hosts that do not exist, {shown}",
            f"{announced.spread('%')} of a core",
            f"with nobody else: {alone.spread('%')}; in the first {window:.0f} s of them: {first}",
            "below 1 % of a core",
            max(announced.values) < 1,
        ),
        *_real(plan, window, alone),
    ]


@contextmanager
def _announced(network: Network) -> Iterator[None]:
    """Hosts that do not exist are announced for the time of the context, anew every 20 s."""
    subnet = network.gateway.rpartition(".")[0]
    packets = list(ghosts(MANY, [f"{subnet}.{150 + number}" for number in range(MANY)]))
    ended = threading.Event()

    def announce(noise: Noise) -> None:
        while True:
            for packet in packets:
                noise.send([packet])
                ended.wait(0.01)  # a burst of all would be more than sockets hold
            if ended.wait(20):
                return

    with Noise(network.gateway) as noise:
        thread = threading.Thread(target=announce, args=[noise])
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _real(plan: Plan, window: float, alone: Samples) -> list[Row]:
    """Hosts that do exist: as many as the memory of this machine has room for."""
    free = _available()
    count = min(plan.size(MANY, 8), free // EACH)
    if count < 2:
        return [Row("hosts in a ring", f"{free / GIB:.1f} GiB of free memory are too little")]
    with _lab() as lab, _neighbours(4 * count * count):
        network = lab.network()
        hosts: list[LanHost] = []
        began = time.monotonic()
        while len(hosts) < count:
            new = [lab.host(network, "peer") for _ in range(min(AT_ONCE, count - len(hosts)))]
            for host in new:
                host.wait_ready(60)
            hosts += new
        wait_until(lambda: _one_ring(hosts), "they are one ring", 120, 1.0)
        formed = time.monotonic() - began
        _rest(SETTLED)
        shares = Samples(_shares(hosts, window))
        memory = Samples([host.memory("RssAnon") / MIB for host in hosts])
    return [
        Row(
            f"CPU of an idle peer in a ring of {count} real hosts, all on this machine, over {window:.0f} s",
            f"{shares.spread('%')} of a core",
            f"with nobody else: {alone.spread('%')}; all together: {sum(shares.values):.0f} %",
            "below 1 % of a core",
            shares.median < 1,
        ),
        Row(
            f"the same: anonymous memory of each; seconds until {count} hosts, {AT_ONCE} at a time, were one ring",
            f"{memory.spread('MiB', 0)}; {formed:.0f} s",
        ),
    ]


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    """Let this machine know so many hardware addresses for the time of the context: all namespaces share one table."""
    settings = [
        Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh{level}")
        for family in ("ipv4", "ipv6")
        for level in (3, 2)
    ]
    before = [setting.read_text() for setting in settings]
    for setting in settings:
        setting.write_text(str(max(count, int(setting.read_text()))))
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.write_text(value)


def _available() -> int:
    """Bytes of memory that new processes may take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _one_ring(hosts: Collection[LanHost]) -> bool:
    return all(len(host.members()) == len(hosts) - 1 for host in hosts)


def _shares(hosts: Sequence[LanHost], window: float) -> list[float]:
    """Percent of a core that each of the hosts takes within ``window`` seconds."""
    before = [cpu_seconds(host.pid) for host in hosts]
    began = time.perf_counter()
    _rest(window)
    took = time.perf_counter() - began
    return [(cpu_seconds(host.pid) - used) / took * 100 for host, used in zip(hosts, before, strict=True)]


def _rest(seconds: float) -> None:
    threading.Event().wait(seconds)


# --- failures ------------------------------------------------------------------------------------------------


def _failures(plan: Plan) -> list[Row]:
    """Each fault in turn, on a LAN that stands: until the others use the host no more, and until they do again."""
    faults: dict[str, tuple[Callable[[LanHost], None], Callable[[LanHost], None]]] = {
        "killed (kill -9), and started again": (LanHost.kill, lambda host: host.start(wait=False)),
        "cut off, and plugged in again": (
            lambda host: host.machine.unplug(),
            lambda host: host.machine.plug(),
        ),
        "frozen (SIGSTOP), and let go on": (LanHost.freeze, LanHost.thaw),
    }
    lost = {name: Samples() for name in faults}
    back = {name: Samples() for name in faults}
    with _lab() as lab:
        network = lab.network()
        *staying, victim = [lab.host(network, "peer") for _ in range(HOSTS)]
        lab.wait_found([*staying, victim])
        _wait_used(victim, staying)
        for _ in range(plan.runs):
            for name, (fail, restore) in faults.items():
                fail(victim)
                lost[name].add(lab.wait_lost(victim, staying))
                began = time.monotonic()
                restore(victim)
                _wait_used(victim, staying)
                back[name].add(time.monotonic() - began)
    rows: list[Row] = []
    for name in faults:
        rows.append(
            _bounded(f"one of {HOSTS} hosts is {name}: until no other uses it any more", lost[name], 5.0)
        )
        rows.append(_bounded("the same: until all others use it again, and it uses them", back[name], 5.0))
    return rows


def _wait_used(host: LanHost, others: Sequence[LanHost]) -> None:
    """Until ``host`` schedules with all ``others``, and they with it."""
    ids = {other.id for other in others}

    def used() -> bool:
        return all(host.id in other.members() for other in others) and _members(host) == ids

    wait_until(used, f"{host.name} is used", 60, POLL)


def _members(host: LanHost) -> set[str]:
    """None while it does not answer yet."""
    return host.members() if _tells(host) else set()


def _tells(host: LanHost) -> bool:
    return host.answers("/v1/lan")


def _bounded(what: str, samples: Samples, bound: float, beside: str = "") -> Row:
    """A row for seconds of which even the largest must be within ``bound``."""
    return Row(what, samples.spread(), beside, f"within {bound:g} s", max(samples.values) <= bound)
