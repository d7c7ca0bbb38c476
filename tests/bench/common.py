"""What all benchmarks share: nginx beside us, a quiet cluster, medians, and the rows of the table."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.cluster import Cluster
from tests.integration.nginx import Nginx as Nginx
from tests.integration.nginx import cpu_seconds as cpu_seconds
from tests.integration.processes import Daemon

MIB = 1 << 20
GIB = 1 << 30
QUIET = {"DRAGONET_LOG_LEVEL": "warning"}


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, what came out, what it stands beside, and what was asked for."""

    what: str
    figure: str
    beside: str = ""
    wanted: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        """The row of the table."""
        met = "" if self.met is None else "yes" if self.met else "no"
        return [self.what, self.figure, self.beside, self.wanted, met]


@dataclass(frozen=True)
class Plan:
    """How much is measured: ``runs`` of each figure, and whether sizes are cut down for a first look."""

    runs: int = 5
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass
class Samples:
    """Repeated measurements of one thing, in seconds or whatever unit the caller uses."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """One more."""
        self.values.append(value)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def spread(self, unit: str = "s", digits: int = 2) -> str:
        """Median, and the smallest and largest."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


def timed(work: Callable[[], object], *, memory: int = 0) -> float:
    """Seconds that ``work`` takes, begun with clean disks so that runs do not pay for each other's writes.

    ``memory`` bytes are taken and given back before: on a virtual machine the first use of a page costs many
    times the second, and which of the things compared meets such pages is chance.
    """
    os.sync()
    if memory:
        mmap.mmap(-1, memory, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(size: int, seconds: float) -> str:
    """MiB or GiB per second for people."""
    rate = size / seconds
    return f"{rate / GIB:.2f} GiB/s" if rate >= GIB / 2 else f"{rate / MIB:.0f} MiB/s"


def run_command(*command: str, cwd: Path | None = None) -> None:
    """Run another program to its end. Raises RuntimeError with its words."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def write_content(path: Path, size: int, seed: int = 1) -> None:
    """A file of ``size`` bytes that no file system and no wire can compress away."""
    import random

    source = random.Random(seed)
    block = source.randbytes(min(size, 64 * MIB))
    with path.open("wb") as file:
        left = size
        while left > 0:
            # each block is told apart by its first bytes, so that no two pieces are the same
            part = source.randbytes(16) + block[16:]
            file.write(part[:left])
            left -= len(part)


@contextmanager
def cluster(**environ: str) -> Iterator[Cluster]:
    """A cluster that logs little, on the disk where everything else of the benchmark lies."""
    with Cluster(environ={**QUIET, **environ}) as made:
        yield made


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder on the same disk as the clusters' data."""
    folder = Path(tempfile.mkdtemp(prefix="dragonet-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def children_cpu_seconds() -> float:
    """CPU time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class MemoryWatch:
    """The largest anonymous memory of a process while the context is open, sampled 20 times a second."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.largest = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.largest = max(self.largest, self.daemon.memory("RssAnon"))
            if self._ended.wait(0.05):
                return


def machine() -> str:
    """One line about what all this ran on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores ({model}), {memory:.0f} GiB memory, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {', '.join(versions())}"
    )


def versions() -> list[str]:
    """The programs that stand beside."""
    found = []
    for name, flag in (("nginx", "-v"), ("curl", "--version"), ("aria2c", "--version"), ("wrk", "--version")):
        path = shutil.which(name)
        if path is None:
            found.append(f"no {name}")
            continue
        done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
        first = (done.stdout + done.stderr).strip().splitlines()[0]
        found.append(first.split("[")[0].replace("nginx version: ", "").split(" (")[0].strip())
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with even columns."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


Bench = Callable[[Plan], list[Row]]
Benches = Mapping[str, Bench]
