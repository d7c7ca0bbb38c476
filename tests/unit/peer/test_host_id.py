"""The id of a host, kept in its data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer.host_id import keep_host_id, new_host_id, read_host_id
from shared.errors import ConfigError


def test_it_is_made_once(tmp_path: Path) -> None:
    made = read_host_id(tmp_path)
    assert made.isalnum()
    assert read_host_id(tmp_path) == made
    assert new_host_id() != made


def test_another_one_is_kept(tmp_path: Path) -> None:
    read_host_id(tmp_path)
    another = new_host_id()
    keep_host_id(tmp_path, another)
    assert read_host_id(tmp_path) == another
    assert [path.name for path in tmp_path.iterdir()] == ["host-id"]


@pytest.mark.parametrize("text", ["", "a b", "x" * 65, "../../etc"])
def test_what_is_none_is_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "host-id").write_text(text)
    assert read_host_id(tmp_path) != text
    assert read_host_id(tmp_path).isalnum()


def test_a_folder_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    for attempt in (read_host_id, lambda folder: keep_host_id(folder, "abc")):
        with pytest.raises(ConfigError, match="host id"):
            attempt(tmp_path / "nothing")
    (tmp_path / "host-id").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_host_id(tmp_path)
