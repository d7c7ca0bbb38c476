"""Image pulls with containerd in network namespaces, with dragonet and without: as root.

The machines of the lab share the cores of this one. Unless their links are said to be unlimited, each cable, the
registry's too, lets 200 Mbit/s through in each direction. Images have four layers of random bytes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.common import MIB, Plan, Row, Samples, speed, timed
from tests.lab.cluster import Host, ImageLab
from tests.lab.images import Image, put_image
from tests.lab.network import MBIT
from tests.lab.runtimes import GATEWAY
from tests.programs import require_program

HOSTS = 8
RATE = 200 * MBIT
MANIFEST_ASKED = 500


def measure(plan: Plan) -> list[Row]:
    """All figures of image pulls, which only root can measure."""
    if os.geteuid() != 0:
        return [Row("image pulls in network namespaces", "measured as root only")]
    return [*_limited(plan), *_unlimited(plan)]


@contextmanager
def _lab(hosts: int, rate: int) -> Iterator[ImageLab]:
    with ImageLab(hosts=hosts, rate=rate, environ={"DRAGONET_LOG_LEVEL": "warning"}) as lab:
        yield lab


def _limited(plan: Plan) -> list[Row]:
    """Eight hosts at once, one of them alone, and one whose neighbour holds the image."""
    size = plan.size(256 * MIB, 32 * MIB)
    direct, together, alone, one_direct, warm = (Samples() for _ in range(5))
    egress, fetched, fetched_alone = Samples(), Samples(), Samples()
    for run in range(plan.runs):
        with _lab(HOSTS, RATE) as lab:
            image, other, third, fourth = (_image(lab, size, 4 * run + number) for number in range(4))
            first, second = lab.hosts[:1], lab.hosts[1:2]
            together.add(_pull(lab, image, lab.hosts))
            egress.add(sum(lab.blob_egress(image).values()) / image.size)
            alone.add(_pull(lab, other, first))
            warm.add(_pull(lab, other, second))
            fetched.add(_pull(lab, third, lab.hosts, unpacked=False))
            fetched_alone.add(_pull(lab, fourth, first, unpacked=False))
            _go_direct(lab)
            direct.add(_pull(lab, image, lab.hosts))
            one_direct.add(_pull(lab, image, first))
    shown = f"containerd, {size // MIB} MiB image, links of 200 Mbit/s"
    share, slower = together.median / direct.median, together.median / alone.median
    unpacking = fetched.median / fetched_alone.median
    return [
        Row(
            f"{HOSTS} hosts pull at once, cold, {shown}: wall time",
            f"{together.spread()}, {speed(HOSTS * size, together.median)}; {share:.2f} of it",
            f"without dragonet: {direct.spread()}",
            "at most 0.25 of it",
            share <= 0.25,
        ),
        Row(
            "the same, beside one host alone, through dragonet, cold",
            f"{slower:.2f} times as long",
            f"alone: {alone.spread()}",
            "at most 1.4 times as long",
            slower <= 1.4,
        ),
        Row(
            "both without unpacking, which 8 machines would not do on the cores of one",
            f"{unpacking:.2f} times as long: {fetched.spread()}",
            f"alone: {fetched_alone.spread()}",
            "at most 1.4 times as long",
            unpacking <= 1.4,
        ),
        Row(
            "the same: bytes of blobs that the registry sent / image",
            f"{egress.median:.2f} (largest {max(egress.values):.4f})",
            f"{HOSTS}.00 without dragonet",
            "1.00",
            max(egress.values) < 1.005,
        ),
        _beside(f"one host pulls what a neighbour holds, {shown}", warm, one_direct, 1.1),
    ]


def _unlimited(plan: Plan) -> list[Row]:
    """One host alone, the manifest from its own store, and what the machine itself can do."""
    size = plan.size(256 * MIB, 32 * MIB)
    alone, direct, many, manifest = (Samples() for _ in range(4))
    with _lab(HOSTS, 0) as lab:
        for run in range(plan.runs):
            image = _image(lab, size, run)
            _go_through(lab)
            alone.add(_pull(lab, image, lab.hosts[:1]))
            for seconds in _manifest_seconds(lab, image):
                manifest.add(seconds)
            _go_direct(lab)
            direct.add(_pull(lab, image, lab.hosts[:1]))
            many.add(_pull(lab, image, lab.hosts))
    shown = f"containerd, {size // MIB} MiB image, unlimited links"
    worst = sorted(manifest.values)[int(0.9 * len(manifest.values))]
    return [
        Row(
            f"what the cores of this machine give {HOSTS} runtimes: {HOSTS} hosts at once, {shown}",
            "",
            f"without dragonet: {many.spread()}, {speed(HOSTS * size, many.median)}",
        ),
        _beside(f"one host alone pulls, cold, {shown}", alone, direct, 1.15),
        Row(
            "a manifest by tag that the gateway's own host holds, median, one connection",
            f"{1000 * manifest.median:.1f} ms (90 %: {1000 * worst:.1f} ms)",
            "",
            "below 10 ms",
            manifest.median < 0.01,
        ),
    ]


def _beside(what: str, ours: Samples, direct: Samples, wanted: float) -> Row:
    ratio = ours.median / direct.median
    return Row(
        what,
        f"{ours.spread()}; {ratio:.2f} times as long",
        f"without dragonet: {direct.spread()}",
        f"at most {wanted} times as long",
        ratio <= wanted,
    )


def _image(lab: ImageLab, size: int, seed: int) -> Image:
    return put_image(lab.registry, f"bench/app{seed}", [size // 4] * 4, seed=seed)


def _go_direct(lab: ImageLab) -> None:
    for host in lab.hosts:
        host.containerd.configure_direct(lab.registry.name)


def _go_through(lab: ImageLab) -> None:
    for host in lab.hosts:
        host.containerd.configure(lab.registry.name)


def _pull(lab: ImageLab, image: Image, hosts: Sequence[Host], *, unpacked: bool = True) -> float:
    """Seconds until the last of the hosts has the image; then they forget it."""

    def pull() -> None:
        pulls = (
            lab.pull(image, "containerd", hosts)
            if unpacked
            else [host.containerd.fetch(lab.reference(image)) for host in hosts]
        )
        for running in pulls:
            running.check(600)

    seconds = timed(pull, memory=3 * len(hosts) * image.size)
    for host in hosts:
        host.containerd.forget()
    return seconds


def _manifest_seconds(lab: ImageLab, image: Image) -> list[float]:
    """What each of many requests over one connection took, from its start to its last byte."""
    host = lab.hosts[0]
    url = f"http://{GATEWAY}/v2/{image.repository}/manifests/{image.tag}?ns={lab.registry.name}&n=[1-{MANIFEST_ASKED}]"
    done = subprocess.run(
        [
            *(*host.machine.prefix, require_program("curl"), "--silent", "--fail", "--output", "/dev/null"),
            *("--write-out", "%{time_total}\\n", url),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in done.stdout.split()]
