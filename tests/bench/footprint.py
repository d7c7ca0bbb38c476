"""What a peer costs: memory while it works, memory and CPU while it does not, and how soon it is ready."""

from __future__ import annotations

import threading
import time

from tests.bench import local
from tests.bench.common import (
    GIB,
    MIB,
    MemoryWatch,
    Nginx,
    Plan,
    Row,
    Samples,
    cluster,
    cpu_seconds,
    speed,
    timed,
    work_folder,
    write_content,
)


def memory(plan: Plan) -> list[Row]:
    """Anonymous memory of a peer (and of the seeder that reads the origin) during a large download."""
    size = plan.size(4 * GIB, 512 * MIB)
    with work_folder() as folder, Nginx(folder / "nginx") as nginx, cluster() as swarm:
        write_content(nginx.root / "file.bin", size)
        swarm.start(peers=1)
        (peer,), (seeder,) = swarm.peers, swarm.seeders
        with MemoryWatch(peer) as peer_memory, MemoryWatch(seeder) as seeder_memory:
            seconds = timed(lambda: swarm.get(f"{nginx.url}/file.bin", peer, timeout=600).json)
    name = f"{size / GIB:g} GiB"
    return [
        Row(
            f"anonymous memory of a peer, largest during a {name} download",
            f"{peer_memory.largest / MIB:.0f} MiB",
            f"the seeder: {seeder_memory.largest / MIB:.0f} MiB; {seconds:.1f} s, {speed(size, seconds)}",
            "below 150 MiB",
            peer_memory.largest < 150 * MIB,
        )
    ]


def idle(plan: Plan) -> list[Row]:
    """A peer that has nothing to do, after it had."""
    window = plan.size(30, 8)
    with work_folder() as folder, Nginx(folder / "nginx") as nginx, cluster() as swarm:
        write_content(nginx.root / "file.bin", 64 * MIB)
        swarm.start(peers=1)
        (peer,) = swarm.peers
        fresh = peer.memory("RssAnon")
        local.download(peer.socket, f"{nginx.url}/file.bin")
        threading.Event().wait(8)  # until what a download keeps open for a while is closed
        shares = {}
        before = {daemon.name: cpu_seconds(daemon.pid) for daemon in swarm.daemons}
        began = time.perf_counter()
        threading.Event().wait(window)
        took = time.perf_counter() - began
        for daemon in swarm.daemons:
            shares[daemon.name] = (cpu_seconds(daemon.pid) - before[daemon.name]) / took * 100
        anonymous = peer.memory("RssAnon")
    return [
        Row(
            "anonymous memory of an idle peer, after a 64 MiB download",
            f"{anonymous / MIB:.0f} MiB",
            f"before any: {fresh / MIB:.0f} MiB",
            "below 60 MiB",
            anonymous < 60 * MIB,
        ),
        Row(
            f"CPU of an idle peer, over {window} s",
            f"{shares['peer1']:.2f} % of a core",
            f"seeder {shares['seeder1']:.2f} %, scheduler {shares['scheduler']:.2f} %",
            "below 0.5 %",
            shares["peer1"] < 0.5,
        ),
    ]


def start(plan: Plan) -> list[Row]:
    """From starting the process to /readyz."""
    times = {"peer": Samples(), "seeder": Samples(), "scheduler": Samples()}
    with cluster() as swarm:
        swarm.start(peers=1)
        for _ in range(plan.runs):
            for role, daemon in (
                ("peer", swarm.peers[0]),
                ("seeder", swarm.seeders[0]),
            ):
                daemon.terminate()
                daemon.wait()
                began = time.perf_counter()
                daemon.start(wait=False)
                daemon.wait_ready()
                times[role].add(time.perf_counter() - began)
    for _ in range(plan.runs):
        with cluster() as alone:
            began = time.perf_counter()
            alone.start_scheduler()
            times["scheduler"].add(time.perf_counter() - began)
    return [
        Row(
            "start of a peer until it is ready",
            times["peer"].spread(),
            f"seeder {times['seeder'].spread()}, scheduler {times['scheduler'].spread()}",
            "below 0.5 s",
            times["peer"].median < 0.5,
        )
    ]
