"""A folder of many small files, beside wget reading it from the same nginx."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from tests.bench.common import (
    MIB,
    Nginx,
    Plan,
    Row,
    Samples,
    cluster,
    run_command,
    timed,
    work_folder,
    write_content,
)
from tests.integration.cluster import Cluster, Peer
from tests.integration.processes import dragonet_command

SIZE = 16 * 1024
WANTED = 2.0
"""Times as fast as wget."""


def measure(plan: Plan) -> list[Row]:
    """Whole commands, from their start to their end, taking turns; every run reads all files from nginx anew.

    Nothing is removed in between: an ext4 file system is slow to make files for some seconds after many were
    removed, and whoever comes next would pay for it.
    """
    count = plan.size(2000, 200)
    wget, daemon, held, alone = Samples(), Samples(), Samples(), Samples()
    with work_folder() as folder, Nginx(folder / "nginx") as nginx, cluster() as swarm:
        (nginx.root / "many").mkdir()
        for number in range(count):
            write_content(nginx.root / "many" / f"file{number:05}.bin", SIZE, seed=number)
        peer, _ = swarm.start_up()
        url = f"{nginx.url}/many/"
        for run in range(plan.runs):
            places = {name: folder / f"{name}{run}" for name in ("wget", "daemon", "held", "alone")}
            command = ("wget", "-q", "-r", "-np", "-nH", "-P", str(places["wget"]), url)
            wget.add(timed(partial(run_command, *command)))
            daemon.add(timed(partial(_get, swarm, peer, url, places["daemon"], f"daemon{run}")))
            held.add(timed(partial(_get, swarm, peer, url, places["held"], f"daemon{run}")))
            alone.add(timed(partial(_get, swarm, None, url, places["alone"], f"alone{run}")))
            for name, place in places.items():
                found = sum(1 for _ in place.rglob("*.bin"))
                assert found == count, f"{name} brought {found} of {count} files"
        sent = nginx.body_sent("/many/file00000.bin")
        assert sent == 3 * plan.runs * SIZE, f"nginx sent {sent} bytes of the first file"
    ratio = wget.median / daemon.median
    size = f"{count} files of 16 KiB ({count * SIZE / MIB:.0f} MiB)"
    beside = f"wget -r: {wget.spread()}"
    return [
        Row(
            f"`get -r` of {size} from nginx, cold, through `dragonet up`: wall time",
            f"{daemon.spread()}, {ratio:.2f} times as fast",
            beside,
            f"{WANTED:g} times as fast",
            ratio >= WANTED,
        ),
        Row(
            "the same, held by the daemon", f"{held.spread()}, {wget.median / held.median:.2f} times", beside
        ),
        Row(
            "the same, cold, where no daemon runs (one-shot)",
            f"{alone.spread()}, {wget.median / alone.median:.2f} times",
            beside,
        ),
    ]


def _get(swarm: Cluster, peer: Peer | None, url: str, place: Path, tag: str) -> None:
    socket = swarm.folder / "nobody.sock" if peer is None else peer.socket
    command = [*dragonet_command(), "get", "-r", url, "-o", str(place), "--tag", tag, "--socket", str(socket)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=swarm.environment())
    if done.returncode != 0:
        raise RuntimeError(f"get -r ended with {done.returncode}: {done.stderr.strip()[-300:]}")
