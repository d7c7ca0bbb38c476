"""Plugins that eat memory, in a process of their own: nothing happens to this one whatever fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[5]
MODULE = "tests.unit.cdn.sources.plugins.eaters"
TOOK = "took more than 64MiB of memory in download (source.plugin_memory)"
FAILED = "failed in download: there was no memory left for it: it may take 64MiB (source.plugin_memory)"
CHUNK = "gave 67108865 bytes at once, more than 64MiB (source.plugin_memory): it takes them in chunks"


@pytest.mark.parametrize(
    "expected",
    [
        {"in_download": TOOK, "in_small_steps": TOOK, "in_body": TOOK},
        {"in_async": TOOK, "in_async_body": TOOK},
        {"at_once": FAILED, "all_there_is": FAILED, "in_a_chunk": CHUNK},
        {"stubbornly": TOOK},
    ],
    ids=["little by little", "async", "at once", "stubbornly"],
)
def test_who_eats_memory_is_stopped_and_the_others_go_on(expected: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", MODULE, *expected],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["how"] for one in found] == list(expected)
    for one in found:
        did = one["said"].removeprefix("the source plugin bad ")
        # Who eats fast may come to the end of what a tick lets through before anybody looks.
        assert did == expected[one["how"]] or (expected[one["how"]], did) == (TOOK, FAILED)
    assert not any(one["limited"] for one in found), "the process's limit is what it was"
    assert not any(one["kept"] for one in found), "nobody holds on to what it took"
