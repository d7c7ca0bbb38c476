"""No room: quota, a full disk, a full output folder, two daemons on one folder. Earlier content stays."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, leftovers
from tests.integration.origins import KIB, MIB, Gate, Origin, random_content

SIX = random_content(6 * MIB, seed=31)
OTHER_SIX = random_content(6 * MIB, seed=32)
TWENTY = random_content(20 * MIB, seed=33)
TINY = random_content(3 * KIB, seed=34)

QUOTA = {"DRAGONET_STORE_QUOTA": "8MiB"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes tmpfs mounts of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    with ExitStack() as stack:

        def make(size: int) -> Path:
            folder = tmp_path / f"disk{len(os.listdir(tmp_path))}"
            folder.mkdir()
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                capture_output=True,
                check=False,
            )
            if mounted.returncode != 0:
                pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield make


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (64 * KIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_quota_evicts_what_was_used_longest_ago(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=0)
    peer = cluster.start_peer(environ=QUOTA)
    first, second = origin.add("/first", SIX), origin.add("/second", OTHER_SIX)
    cluster.get(first, peer).check(SIX)
    kept = cluster.get(second, peer).check(OTHER_SIX)
    assert [task["task_id"] for task in cluster.listed(peer)] == [kept.task_id]
    assert cluster.get(first, peer).check(SIX).sources["store"] == 0


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_can_never_fit_is_refused_by_name(cluster: Cluster, origin: Origin, framing: str) -> None:
    cluster.start(peers=0)
    peer = cluster.start_peer(environ=QUOTA)
    url = origin.add("/six", SIX)
    cluster.get(url, peer).check(SIX)
    ranges = "honour" if framing == "length" else "ignore"
    too_large = origin.add("/twenty", TWENTY, framing=framing, ranges=ranges)
    cluster.get(too_large, peer).check_failed("quota")
    assert peer.answers("/healthz")
    assert peer.answers("/readyz")
    if framing == "length":
        assert cluster.get(url, peer).check(SIX).sources["store"] == len(SIX), "earlier content is intact"
    tiny = origin.add("/tiny", TINY)
    cluster.get(tiny, peer).check(TINY)
    cluster.get(url, peer).check(SIX)


def test_seeder_without_room_does_not_stop_the_swarm(cluster: Cluster, origin: Origin) -> None:
    cluster.start(seeders=0, peers=0)
    seeder = cluster.start_seeder(environ=QUOTA)
    peer = cluster.start_peer()
    url = origin.add("/twenty", TWENTY)
    cluster.get(url, peer).check(TWENTY)
    assert seeder.answers("/readyz")


def test_content_in_use_is_not_evicted(cluster: Cluster, origin: Origin) -> None:
    cluster.start(peers=0)
    peer = cluster.start_peer(environ=QUOTA)
    gate = Gate(4 * MIB)
    first = origin.add("/first", SIX, gate=gate)
    second = origin.add("/second", OTHER_SIX)
    running = cluster.start_get(first, peer)
    cluster.wait_held(peer, first, 4 * MIB)
    cluster.get(second, peer).check_failed("quota")
    gate.open()
    running.wait().check(SIX)
    cluster.get(second, peer).check(OTHER_SIX)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_disk_full(cluster: Cluster, origin: Origin, small_disk: Callable[[int], Path], framing: str) -> None:
    disk = small_disk(18 * MIB)
    cluster.start(peers=0)
    peer = cluster.start_peer(data_dir=disk / "data", environ={"DRAGONET_STORE_DISK_SHARE": "1"})
    url = origin.add("/six", SIX)
    cluster.get(url, peer).check(SIX)
    ranges = "honour" if framing == "length" else "ignore"
    large = origin.add("/twenty", TWENTY, framing=framing, ranges=ranges)
    cluster.get(large, peer).check_failed("disk")
    assert peer.answers("/readyz")
    if framing == "length":
        assert cluster.get(url, peer).check(SIX).sources["store"] == len(SIX)
    cluster.get(origin.add("/other", OTHER_SIX), peer).check(OTHER_SIX)


def test_disk_filled_by_others_and_freed_again(
    cluster: Cluster, origin: Origin, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(24 * MIB)
    cluster.start(peers=0)
    peer = cluster.start_peer(data_dir=disk / "data", environ={"DRAGONET_STORE_DISK_SHARE": "1"})
    url = origin.add("/six", SIX)
    cluster.get(url, peer).check(SIX)
    ballast = disk / "ballast"
    fill(ballast)
    big = origin.add("/twelve", TWENTY[: 12 * MIB])
    cluster.get(big, peer).check_failed("disk")
    assert peer.answers("/healthz")
    ballast.unlink()
    cluster.get(big, peer).check(TWENTY[: 12 * MIB])
    peer.kill()
    peer.restart()
    assert cluster.get(big, peer).check(TWENTY[: 12 * MIB]).sources["store"] == 12 * MIB


def test_disk_share_is_kept_free(cluster: Cluster, origin: Origin, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(40 * MIB)
    cluster.start(peers=0)
    peer = cluster.start_peer(data_dir=disk / "data", environ={"DRAGONET_STORE_DISK_SHARE": "0.5"})
    cluster.get(origin.add("/six", SIX), peer).check(SIX)
    cluster.get(origin.add("/thirty", TWENTY + SIX), peer).check_failed("disk")
    cluster.get(origin.add("/other", OTHER_SIX), peer).check(OTHER_SIX)


def test_output_folder_full(cluster: Cluster, origin: Origin, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2 * MIB)
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/six", SIX)
    cluster.get(url, peer, output=disk / "file").check_failed("full")
    assert leftovers(disk) == []
    cluster.get(url, peer).check(SIX)


def test_two_daemons_on_one_folder(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/six", SIX)
    cluster.get(url, peer).check(SIX)
    done = cluster.run(
        "peer",
        "--listen",
        "127.0.0.1:0",
        "--gateway",
        "127.0.0.1:0",
        "--scheduler",
        cluster.scheduler.url if cluster.scheduler else "",
        "--data-dir",
        str(cluster.folder / "peer1"),
        "--socket",
        str(cluster.folder / "second.sock"),
        timeout=20,
    )
    assert done.returncode == 1
    sentence = done.stderr.strip().splitlines()[-1]
    assert str(peer.pid) in sentence
    assert "peer1" in sentence
    assert cluster.get(url, peer).check(SIX).sources["store"] == len(SIX)


def test_two_daemons_on_one_socket_or_port(cluster: Cluster) -> None:
    cluster.start()
    (peer,) = cluster.peers
    assert cluster.scheduler is not None
    port = peer.address.rpartition(":")[2]
    taken = [(peer.address, "free.sock", port), ("127.0.0.1:0", "peer1.sock", "peer1.sock")]
    for number, (address, socket, word) in enumerate(taken):
        done = cluster.run(
            "peer",
            "--listen",
            address,
            "--gateway",
            "127.0.0.1:0",
            "--scheduler",
            cluster.scheduler.url,
            "--data-dir",
            str(cluster.folder / f"new{number}"),
            "--socket",
            str(cluster.folder / socket),
            timeout=20,
        )
        assert done.returncode == 1
        assert word in done.stderr
    assert peer.answers("/readyz")
    assert cluster.listed(peer) == []


def test_damaged_content_is_dropped_not_fatal(cluster: Cluster, origin: Origin) -> None:
    cluster.start()
    (peer,) = cluster.peers
    url = origin.add("/six", SIX)
    task_id = cluster.get(url, peer).check(SIX).task_id
    peer.terminate()
    assert peer.wait() == 0
    (stored,) = (cluster.folder / "peer1").rglob(f"{task_id}*.mdb")
    stored.write_bytes(b"this is no database" * 1000)
    peer.restart()
    cluster.get(url, peer).check(SIX)
    assert origin.count("/six").body == len(SIX), "the seeder still had it"


def test_flipped_bits_on_disk_are_not_given_to_other_peers(cluster: Cluster, origin: Origin) -> None:
    """Bytes rot in one host's store: its children notice, and get the right ones elsewhere."""
    cluster.start(peers=2)
    rotten, child = cluster.peers
    url = origin.add("/six", SIX)
    task_id = cluster.get(url, rotten).check(SIX).task_id
    rotten.terminate()
    assert rotten.wait() == 0
    (stored,) = (cluster.folder / "peer1").rglob(f"{task_id}*.mdb")
    data = stored.read_bytes()
    at = data.find(SIX[1 * MIB : 1 * MIB + 64])
    assert at > 0, "the piece was not found in the file"
    with stored.open("r+b") as file:
        file.seek(at)
        file.write(bytes(64))
    rotten.restart()
    cluster.get(url, child).check(SIX)
