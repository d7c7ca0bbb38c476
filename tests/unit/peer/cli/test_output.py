import os
from pathlib import Path

import pytest

from peer.cli.execution import UsageError
from peer.cli.output import OutputError, OutputFile


def test_the_target_appears_at_commit_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with OutputFile(target) as output:
        os.write(output.fd, b"new")
        assert target.read_bytes() == b"old"
        output.commit()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_without_commit_the_target_is_untouched(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with OutputFile(target) as output:
        os.write(output.fd, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with OutputFile(tmp_path / "file") as output:
            output.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with OutputFile(tmp_path / "link") as output:
        os.write(output.fd, b"new")
        output.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_long_name_is_no_problem(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)
    with OutputFile(target) as output:
        output.commit()
    assert target.exists()


def test_what_can_never_be_a_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        OutputFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        OutputFile(tmp_path / "pipe")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write in"):
        OutputFile(tmp_path / "none" / "file")
