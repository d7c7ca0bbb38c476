"""Tiny files: what the fixed costs of a download are."""

from __future__ import annotations

import statistics

from tests.bench import local
from tests.bench.common import Nginx, Plan, Row, Samples, cluster, timed, work_folder, write_content

MANY = 200


def measure(plan: Plan) -> list[Row]:
    """Latency of a 1 KiB file that the cluster holds, and 200 cold ones 16 at a time."""
    count = plan.size(60, 20)
    with work_folder() as folder, Nginx(folder / "nginx") as nginx, cluster() as swarm:
        swarm.start(peers=2)
        other, peer = swarm.peers
        urls = []
        for number in range(count + 10):
            write_content(nginx.root / f"warm-{number}", 1024, seed=number)
            urls.append(f"{nginx.url}/warm-{number}")
        local.download_each(other.socket, urls, 8)
        local.download_each(peer.socket, urls[count:], 1)  # the first ones open connections
        cold = local.download_each(peer.socket, urls[:count], 1)
        held = local.download_each(peer.socket, urls[:count], 1)
        process = Samples()
        for number in range(max(plan.runs, plan.size(15, 5))):
            local.remove(peer.socket)
            process.add(timed(lambda: swarm.get(urls[number], peer).json))  # noqa: B023 - called at once
        storms = Samples()
        for run in range(plan.runs):
            names = [f"cold-{run}-{number}" for number in range(MANY)]
            for number, name in enumerate(names):
                write_content(nginx.root / name, 1024, seed=1000 * run + number)
            storm = [f"{nginx.url}/{name}" for name in names]
            storms.add(timed(lambda: local.download_each(peer.socket, storm, 16)))  # noqa: B023
    return [
        Row(
            "a 1 KiB file that another host holds, through the local API, median",
            milliseconds(cold),
            f"held by this peer: {milliseconds(held)}",
            "below 10 ms",
            statistics.median(cold) < 0.010,
        ),
        Row(
            "the same as a whole `dragonet get` process, median",
            f"{process.median * 1000:.0f} ms",
            "",
            "below 400 ms",
            process.median < 0.400,
        ),
        Row(
            f"{MANY} distinct 1 KiB files, cold, 16 at a time, through the local API",
            f"{storms.spread()}, {MANY / storms.median:.0f} files/s",
        ),
    ]


def milliseconds(values: list[float]) -> str:
    """Median and 90th percentile."""
    ninety = statistics.quantiles(values, n=10)[-1]
    return f"{statistics.median(values) * 1000:.1f} ms (90 %: {ninety * 1000:.1f} ms)"
