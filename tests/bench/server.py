"""The HTTP server alone, as rows of the table; measured by ``tests/bench/http_server.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.bench.common import Plan, Row

SCRIPT = Path(__file__).with_name("http_server.py")
_LINE = re.compile(r"^(\S.*?)\s{2,}(\d+)\s+([\d.]+)\s+([\d.]+)%", re.MULTILINE)


def measure(plan: Plan) -> list[Row]:
    """Small requests and 4 MiB bodies, beside nginx."""
    command = [sys.executable, str(SCRIPT), "--rounds", str(plan.runs), "--seconds", str(plan.size(3, 1))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found = {name: (int(rate), float(gib)) for name, rate, gib, _ in _LINE.findall(done.stdout)}
    small, small_nginx = found["small, dragonet"][0], found["small, nginx"][0]
    nginx = found["4 MiB, nginx sendfile"][1]
    rows = [
        Row(
            "HTTP server, small requests, one core, wrk with 16 keep-alive connections",
            f"{small} requests/s",
            f"nginx: {small_nginx} requests/s",
            "8 000 requests/s",
            small >= 8000,
        )
    ]
    for kind in ("memoryview", "sendfile"):
        rate = found[f"4 MiB, dragonet {kind}"][1]
        rows.append(
            Row(
                f"HTTP server, 4 MiB bodies by {kind}, 8 connections",
                f"{rate:.2f} GiB/s",
                f"nginx sendfile: {nginx:.2f} GiB/s",
                "1.5 GiB/s",
                rate >= 1.5,
            )
        )
    return rows
