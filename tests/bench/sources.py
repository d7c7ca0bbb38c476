"""A seeder's cold read of one large content, beside what else reads such a source into a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

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
from tests.integration.moto import Moto

WANTED = 1.3
"""Times as long as what stands beside it that a read may take."""


def measure(plan: Plan) -> list[Row]:
    """From nginx beside curl, and from an S3 server beside the library that dragonet reads it with."""
    return [*_http(plan), *_s3(plan)]


def _http(plan: Plan) -> list[Row]:
    size = plan.size(GIB, 64 * MIB)
    with work_folder() as folder, Nginx(folder / "nginx") as nginx:
        write_content(nginx.root / "file.bin", size)
        url, out = f"{nginx.url}/file.bin", folder / "out"
        ours, curl = _compare(
            plan, size, url, {}, out, lambda: run_command("curl", "-sS", "-o", str(out), url)
        )
        sent = nginx.body_sent("/file.bin")
        assert sent == 2 * plan.runs * size, f"nginx sent {sent} bytes: something was not read, or twice"
    return [_row("http from nginx", size, ours, "curl -o", curl)]


def _s3(plan: Plan) -> list[Row]:
    size = plan.size(GIB, 64 * MIB)
    with work_folder() as folder, Moto() as moto:
        write_content(folder / "file.bin", size)
        moto.make_bucket("bucket")
        url, out = moto.put_file("bucket", "file.bin", folder / "file.bin"), folder / "out"
        (folder / "file.bin").unlink()
        options = {"DRAGONET_SOURCE_OPTIONS": f"s3.endpoint={moto.endpoint}"}
        rows = []
        # moto loads the whole object for every range of it, which no store does that people use
        for name, span in (
            ("s3 from moto", {}),
            ("the same, source.span = 2GiB", {"DRAGONET_SOURCE_SPAN": "2GiB"}),
        ):
            ours, library = _compare(
                plan,
                size,
                url,
                options | span,
                out,
                lambda: _read_with_obstore(moto.endpoint, "bucket", "file.bin", out),
            )
            rows.append(_row(name, size, ours, "obstore's get().stream() into a file", library))
    return rows


def _compare(
    plan: Plan, size: int, url: str, environ: Mapping[str, str], out: Path, other: Callable[[], None]
) -> tuple[Samples, Samples]:
    """Seconds of the seeder's read and of ``other``, which writes ``out``; both read once before."""
    ours, others = Samples(), Samples()
    with cluster(**environ) as swarm:
        seeder, _ = swarm.start_up()
        for _ in range(plan.runs):
            ours.add(timed(lambda: local.download(seeder.socket, url), memory=3 * size))
            others.add(timed(other, memory=3 * size))
            assert out.stat().st_size == size
            out.unlink()
            local.remove(seeder.socket)
        assert seeder.metrics().received("origin") == plan.runs * size, "the seeder was to read the source"
    return ours, others


def _read_with_obstore(endpoint: str, bucket: str, key: str, out: Path) -> None:
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=endpoint,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True, "timeout": "1h"},
    )
    with out.open("wb") as file:
        for chunk in store.get(key).stream():
            file.write(chunk)


def _row(what: str, size: int, ours: Samples, name: str, other: Samples) -> Row:
    shown = f"{size / GIB:g} GiB" if size >= GIB else f"{size // MIB} MiB"
    ratio = ours.median / other.median
    return Row(
        f"a seeder's cold read, {what}, {shown}, verified and stored",
        f"{ours.spread()}, {speed(size, ours.median)}; {ratio:.2f} times as long",
        f"{name}: {other.spread()}, {speed(size, other.median)}",
        f"at most {WANTED} times as long",
        ratio <= WANTED,
    )
