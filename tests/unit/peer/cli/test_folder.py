"""Writing into a folder, and nowhere else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer.cli.execution import UsageError
from peer.cli.folder import FileRefused, TargetFolder
from peer.cli.output import OutputError


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TargetFolder]:
    """With files that have no name before they are whole, and where the file system has no such thing."""
    with TargetFolder(tmp_path / "target") as made:
        if not request.param:
            made._nameless = False
        yield made


def tree(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.is_symlink()
    }


def test_files_in_folders(folder: TargetFolder) -> None:
    files = {"a": b"1", "b/c": b"2", "b/d/e": b"", "b/f": b"4", "g/h": b"5" * 100_000}
    for path, content in files.items():
        folder.write(path, memoryview(content))
    assert tree(folder.path) == files


def test_what_is_there_is_replaced_whole(folder: TargetFolder) -> None:
    (folder.path / "a").write_bytes(b"old and longer")
    os.link(folder.path / "a", folder.path / "other")
    folder.write("a", b"new")
    assert tree(folder.path) == {"a": b"new", "other": b"old and longer"}


def test_a_file_is_not_seen_before_it_is_whole(folder: TargetFolder) -> None:
    (folder.path / "a").write_bytes(b"old")
    with folder.create("a") as file:
        file.write(b"12")
        file.write(b"34")
        assert tree(folder.path)["a"] == b"old"
        file.commit()
    assert tree(folder.path) == {"a": b"1234"}


def test_what_is_not_committed_is_gone(folder: TargetFolder) -> None:
    with folder.create("x/a") as file:
        file.write(b"12")
    assert tree(folder.path) == {}


def test_the_mode_is_that_of_any_new_file(folder: TargetFolder) -> None:
    before = os.umask(0o027)
    try:
        folder.write("a", b"")
    finally:
        os.umask(before)
    assert (folder.path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", ["link", "link/a", "x/link", "x/link/a/b"])
def test_links_are_not_followed(folder: TargetFolder, tmp_path: Path, path: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"mine")
    link = folder.path / path[: path.index("link") + 4]
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / "a" if path.endswith("link") else outside)
    if path.endswith("link"):
        folder.write(path, b"new")
        assert not link.is_symlink()  # it was replaced, not written through
    else:
        with pytest.raises(FileRefused, match="symbolic link"):
            folder.write(path, b"new")
    assert tree(outside) == {"a": b"mine"}


def test_files_where_folders_are_needed_and_the_other_way_round(folder: TargetFolder) -> None:
    folder.write("file", b"1")
    folder.write("sub/x", b"2")
    with pytest.raises(FileRefused, match="where a folder is needed"):
        folder.write("file/a", b"")
    with pytest.raises(FileRefused, match="a folder is in its place"):
        folder.write("sub", b"")
    with pytest.raises(FileRefused, match="a folder is in its place"), folder.create("sub") as made:
        made.commit()
    assert tree(folder.path) == {"file": b"1", "sub/x": b"2"}


def test_a_folder_that_is_moved_away_does_not_lead_out(folder: TargetFolder, tmp_path: Path) -> None:
    folder.write("sub/a", b"1")
    (folder.path / "sub").rename(tmp_path / "moved")
    (folder.path / "sub").symlink_to(tmp_path)
    folder.write("other", b"2")
    with pytest.raises(FileRefused):
        folder.write("sub/b", b"3")
    assert not (tmp_path / "b").exists()


def test_a_full_disk_ends_everything(folder: TargetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="a cannot be written: No space"):
        folder.write("a", b"1")
    monkeypatch.undo()
    assert tree(folder.path) == {}


def test_short_writes_go_on(folder: TargetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:3]))
    folder.write("a", b"0123456789")
    assert (folder.path / "a").read_bytes() == b"0123456789"


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises(UsageError, match="is not a folder"):
            TargetFolder(tmp_path / path)


def test_descriptors_are_given_back(folder: TargetFolder) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    folder.write("a/b/c", b"")
    before = opened()
    for number in range(20):
        folder.write(f"a/b/{number}", b"")
        with folder.create(f"a/b/x{number}"):
            pass
    assert opened() == before
