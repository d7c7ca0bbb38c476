"""Many peers at once: what the origin sends, how long it takes, and what it costs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench.common import (
    GIB,
    MIB,
    Nginx,
    Plan,
    Row,
    Samples,
    children_cpu_seconds,
    cluster,
    cpu_seconds,
    timed,
    work_folder,
    write_content,
)

PEERS = 8


def egress(plan: Plan) -> list[Row]:
    """Origin bytes divided by content bytes for 1, 4 and 8 peers that start together."""
    size = plan.size(256 * MIB, 32 * MIB)
    rows = []
    with work_folder() as folder, Nginx(folder / "nginx") as nginx:
        for peers in (1, 4, 8):
            ratios = Samples()
            for run in range(plan.runs if not plan.quick else 1):
                name = f"/file-{peers}-{run}.bin"
                write_content(Path(str(nginx.root) + name), size, seed=run)
                with cluster() as swarm:
                    swarm.start(peers=peers)
                    for result in swarm.get_all(nginx.url + name, swarm.peers, timeout=300):
                        assert result.code == 0, result.stderr
                ratios.add(nginx.body_sent(name) / size)
                Path(str(nginx.root) + name).unlink()
            rows.append(
                Row(
                    f"origin egress / content, {peers} starting together, {size // MIB} MiB",
                    f"{ratios.median:.2f} (largest {max(ratios.values):.4f})",
                    f"{peers}.00 with curl",
                    "1.00",
                    max(ratios.values) < 1.005,
                )
            )
    return rows


def eight_peers(plan: Plan) -> list[Row]:
    """8 peers on one machine, cold: wall time and CPU seconds per GiB delivered, beside 8 curls."""
    size = plan.size(256 * MIB, 64 * MIB)
    wall, cpu, curl_wall, curl_cpu = Samples(), Samples(), Samples(), Samples()
    delivered = PEERS * size / GIB
    with work_folder() as folder, Nginx(folder / "nginx") as nginx:
        for run in range(plan.runs):
            name = f"file-{run}.bin"
            write_content(nginx.root / name, size, seed=run)
            url = f"{nginx.url}/{name}"
            before = children_cpu_seconds() + nginx.cpu_seconds()
            curl_wall.add(timed(lambda: curls(url, folder)))  # noqa: B023 - called at once
            curl_cpu.add((children_cpu_seconds() + nginx.cpu_seconds() - before) / delivered)
            with cluster() as swarm:
                swarm.start(peers=PEERS)
                pids = [daemon.pid for daemon in swarm.daemons]
                before = children_cpu_seconds() + sum(map(cpu_seconds, pids)) + nginx.cpu_seconds()
                wall.add(timed(lambda: [r.json for r in swarm.get_all(url, swarm.peers, timeout=300)]))  # noqa: B023
                after = children_cpu_seconds() + sum(map(cpu_seconds, pids)) + nginx.cpu_seconds()
                cpu.add((after - before) / delivered)
            (nginx.root / name).unlink()
    return [
        Row(
            f"{PEERS} peers on one machine, {size // MIB} MiB, cold, `get -o`: wall time",
            wall.spread(),
            f"{PEERS} × curl from nginx: {curl_wall.spread()}",
        ),
        Row(
            "the same: CPU seconds per GiB delivered (daemons, commands and nginx)",
            cpu.spread(),
            f"{PEERS} × curl and nginx: {curl_cpu.spread()}",
        ),
    ]


def curls(url: str, folder: Path) -> None:
    """8 curls at the same time."""
    outputs = [folder / f"curl-{n}" for n in range(PEERS)]
    running = [subprocess.Popen(["curl", "-sS", "-o", str(output), url]) for output in outputs]
    for process in running:
        assert process.wait() == 0
    for output in outputs:
        output.unlink()
