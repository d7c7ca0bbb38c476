"""All benchmarks, or some: ``python -m tests.bench.run [NAME ...] [--quick] [--runs N] [--write FILE]``.

Every comparison is made within one run, the things compared taking turns; figures are medians.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from pathlib import Path

from tests.bench import footprint, images, lan, recursive, server, small, sources, swarm, transfer
from tests.bench.common import Benches, Plan, Row, machine, table

BENCHES: Benches = {
    "transfer": transfer.measure,
    "sources": sources.measure,
    "recursive": recursive.measure,
    "egress": swarm.egress,
    "eight": swarm.eight_peers,
    "small": small.measure,
    "http": server.measure,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "start": footprint.start,
    "images": images.measure,
    "lan": lan.measure,
}
HEAD = ("figure", "dragonet", "beside it", "wanted", "met")

PREFACE = """# Benchmarks

What dragonet does on one machine, beside what others do there, measured within the same run.
Reproduce with `make bench` (or `python -m tests.bench.run NAME` for one of: {names}).
Figures are medians of {runs} runs, with the smallest and the largest in brackets.

Measured on {day} on {machine}.

"""


def main() -> int:
    """Run what was asked for; 1 when a benchmark could not be carried out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few runs, for a first look")
    parser.add_argument("--runs", type=int, default=0, help="runs per figure (5; 2 with --quick)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into a Markdown file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever was started ends with us
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]}: choose from {', '.join(BENCHES)}")
    plan = Plan(options.runs or (2 if options.quick else 5), options.quick)
    rows: list[Row] = []
    failed = False
    for name in options.names or BENCHES:
        began = time.monotonic()
        sys.stderr.write(f"{name} … ")
        sys.stderr.flush()
        try:
            rows += BENCHES[name](plan)
        except (AssertionError, OSError, RuntimeError) as error:
            failed = True
            rows.append(Row(f"{name}: could not be measured", str(error).splitlines()[0][:200]))
        sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    shown = table(HEAD, [row.cells() for row in rows])
    print(shown)
    if options.write is not None:
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        preface = PREFACE.format(names=", ".join(BENCHES), runs=plan.runs, day=day, machine=machine())
        write(options.write, preface + shown + "\n")
    return 1 if failed else 0


NOTES = "<!-- notes: everything from here on is written by hand and kept -->"


def write(path: Path, text: str) -> None:
    """Replace the file up to its hand-written notes."""
    notes = ""
    if path.exists() and NOTES in (old := path.read_text("utf-8")):
        notes = old[old.index(NOTES) :]
    path.write_text(f"{text}\n{notes or NOTES + chr(10)}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
