"""Image pulls with containerd in network namespaces, with dragonet and without: as root.

The machines of the lab share the cores of this one. Where nothing else is said, each cable, the registry's too,
lets 200 Mbit/s through in each direction.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.common import MIB, Plan, Row, Samples, timed
from tests.lab.cluster import Host, ImageLab
from tests.lab.images import Image, put_image
from tests.lab.network import MBIT
from tests.lab.runtimes import GATEWAY
from tests.programs import require_program

HOSTS = 8
RATE = 200 * MBIT
QUIET = {"DRAGONET_LOG_LEVEL": "warning"}
MANIFEST_ASKED = 300


def measure(plan: Plan) -> list[Row]:
    """All figures of image pulls. Raises AssertionError without root or the programs."""
    assert os.geteuid() == 0, "image pulls are measured in network namespaces: run as root"
    return [*_many(plan), *_one(plan)]


def _many(plan: Plan) -> list[Row]:
    size = plan.size(256 * MIB, 32 * MIB)
    shown = f"{size // MIB} MiB image"
    together, direct, alone = Samples(), Samples(), Samples()
    for run in range(plan.runs):
        with ImageLab(hosts=HOSTS, rate=RATE, environ=QUIET) as lab:
            image = _image(lab, size, run)
            _direct(lab)
            direct.add(timed(lambda: _pull(lab, image, lab.hosts), memory=size))  # noqa: B023 - called at once
            _through(lab)
            together.add(timed(lambda: _pull(lab, image, lab.hosts), memory=size))  # noqa: B023
            alone.add(timed(lambda: _pull(lab, other, lab.hosts[:1]), memory=size))
    return []
