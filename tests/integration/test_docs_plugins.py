"""docs/plugins/source.md does what it says: every block of it is written or run, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster
from tests.integration.processes import ROOT
from tests.programs import require_module

PAGE = ROOT / "docs" / "plugins" / "source.md"
SEED = (
    'resource plugin d7yfs, location: d7y-resource-plugin-d7yfs.py, attribute: {"buildCommit":"unknown",'
    '"buildTime":"unknown","name":"d7yfs","scheme":"d7yfs","type":"resource","vendor":"d7y"}'
)


@dataclass
class Followed:
    """What came of following the page."""

    folder: Path
    environ: dict[str, str]
    said: list[str] = field(default_factory=list)
    """What the commands of each block printed."""


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the page: (language, content)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def written(name: str) -> str:
    """The block that begins with ``# name``."""
    (found,) = [content for _, content in blocks() if content.startswith(f"# {name}\n")]
    return found


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """The page, followed by somebody who has a machine with dragonet and nothing else."""
    require_module("hatchling")
    home = Cluster()  # for a short path and clean environment; nothing of it is started
    folder = home.folder / "work"
    folder.mkdir(mode=0o755)
    site = home.folder / "site"
    environ = home.environment(
        {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{site}",
            # the same as an installation into dragonet's environment, without a network and without traces
            "PIP_TARGET": str(site),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "false",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider -q",
        }
    )
    result = Followed(folder, environ)
    settings = ""
    for language, content in blocks():
        if language == "sh":
            script = f"set -e\numask 022\n{settings}{content}"
            done = subprocess.run(
                ["sh", "-c", script],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=110,
            )
            assert done.returncode == 0, f"{content}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            result.said.append(f"{done.stdout}\n{done.stderr}")
            settings += "".join(f"{line}\n" for line in content.splitlines() if line.startswith("export "))
        else:
            name = content.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"[\w./-]+\.(py|toml)", name), (
                f"a block does not say which file it is: {name}"
            )
            path = folder / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            path.chmod(0o644)
    yield result
    assert home.close() == []


def test_the_example_is_listed_and_read(followed: Followed) -> None:
    lines = followed.said[0].splitlines()
    assert SEED in lines
    assert f"search plugin in {followed.folder}/plugins" in lines
    assert "hello world" in lines


def test_the_template_passes_its_test(followed: Followed) -> None:
    assert re.search(r"\d+ passed", followed.said[1])
    assert "failed" not in followed.said[1]


def test_the_package_is_found(followed: Followed) -> None:
    assert "resource plugin d7ypack, location: package d7ypack 1.0, attribute: {" in followed.said[2]
    assert (followed.folder / "out").read_text() == "d7ypack://anything"


def test_the_package_on_a_seeder_serves_a_peer_without_it(followed: Followed, cluster: Cluster) -> None:
    cluster.start_scheduler()
    cluster.start_seeder(environ={"PYTHONPATH": followed.environ["PYTHONPATH"]}, wait=False)
    cluster.start_peer(wait=False)
    for daemon in cluster.daemons:
        daemon.wait_ready()
    result = cluster.get("d7ypack://anything", cluster.peers[0]).check(b"d7ypack://anything")
    assert result.sources["seeder"] == len(b"d7ypack://anything")


def test_options_credentials_and_conformance(followed: Followed) -> None:
    assert (followed.folder / "hello.txt").read_text() == "hello, world"
    assert re.search(r"\d+ passed", followed.said[4])


def test_the_page_says_what_the_listing_says() -> None:
    assert f"    {SEED}\n" in PAGE.read_text(encoding="utf-8")
