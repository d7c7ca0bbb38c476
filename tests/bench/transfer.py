"""One parent, one child, one large file on loopback, beside curl and aria2c from nginx on the same disk."""

from __future__ import annotations

from tests.bench import local
from tests.bench.common import (
    GIB,
    MIB,
    Nginx,
    Plan,
    Row,
    Samples,
    cluster,
    run_command,
    speed,
    timed,
    work_folder,
    write_content,
)


def measure(plan: Plan) -> list[Row]:
    """Both comparisons of the issue, all four kinds of download taking turns."""
    size = plan.size(1 * GIB, 256 * MIB)
    curl, aria, stored, written = Samples(), Samples(), Samples(), Samples()
    with work_folder() as folder, Nginx(folder / "nginx") as nginx, cluster() as swarm:
        write_content(nginx.root / "file.bin", size)
        url = f"{nginx.url}/file.bin"
        swarm.start(seeders=1, peers=1)
        (child,) = swarm.peers
        local.download(child.socket, url)
        out = folder / "out"
        for _ in range(plan.runs):
            curl.add(timed(lambda: run_command("curl", "-sS", "-o", str(out), url), memory=3 * size))
            out.unlink()
            local.remove(child.socket)
            stored.add(timed(lambda: local.download(child.socket, url), memory=3 * size))
            aria.add(
                timed(
                    lambda: run_command(
                        "aria2c", "-x4", "-q", "--file-allocation=falloc", "-d", str(folder), "-o", "out", url
                    ),
                    memory=3 * size,
                )
            )
            out.unlink()
            local.remove(child.socket)
            written.add(timed(lambda: swarm.get(url, child, output=out).json, memory=3 * size))
            out.unlink()
        assert child.metrics().received("origin") == 0, "the child was to be served by its parent"
    name = f"{size / GIB:g} GiB" if size >= GIB else f"{size // MIB} MiB"
    return [
        Row(
            f"one parent to one child, {name}, verified and stored",
            f"{stored.spread()}, {speed(size, stored.median)}",
            f"curl -o from nginx: {curl.spread()}, {speed(size, curl.median)}",
            "at least as fast",
            stored.median <= curl.median,
        ),
        Row(
            f"the same with `dragonet get -o FILE`, {name} (whole process)",
            f"{written.spread()}, {speed(size, written.median)}",
            f"aria2c -x4 from nginx: {aria.spread()}, {speed(size, aria.median)}",
            "1.5 times as fast",
            written.median * 1.5 <= aria.median,
        ),
    ]
