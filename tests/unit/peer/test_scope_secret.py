from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from peer.scope_secret import keep_scope_secret, read_scope_secret
from shared.errors import ConfigError


def test_a_secret_is_made_once_and_read_by_its_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret, since = read_scope_secret(tmp_path)
    finally:
        os.umask(before)
    assert len(secret) == 32
    assert since > 1_700_000_000
    assert read_scope_secret(tmp_path) == (secret, since)
    (file,) = tmp_path.iterdir()
    assert file.name == "scope-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.mkdir()
    assert read_scope_secret(other)[0] != secret


def test_another_one_replaces_it_whatever_was_left_lying_about(tmp_path: Path) -> None:
    read_scope_secret(tmp_path)
    (tmp_path / "scope-secret.new").write_text("half")
    keep_scope_secret(tmp_path, bytes(range(32)), 0.1 + 0.2)
    assert read_scope_secret(tmp_path) == (bytes(range(32)), 0.1 + 0.2)
    assert [file.name for file in tmp_path.iterdir()] == ["scope-secret"]


def test_one_of_an_older_release_is_as_old_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "scope-secret").write_text("ab" * 32 + "\n")
    os.utime(tmp_path / "scope-secret", (5, 1234.5))
    assert read_scope_secret(tmp_path) == (b"\xab" * 32, 1234.5)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "00" * 32 + " nan", "00" * 32 + " -1"])
def test_one_of_another_size_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "scope-secret").write_text(text)
    secret, since = read_scope_secret(tmp_path)
    assert len(secret) == 32
    assert read_scope_secret(tmp_path) == (secret, since)


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "scope-secret").write_text("no digits")
    with pytest.raises(ConfigError, match=r"scope-secret cannot be read.*Remove it"):
        read_scope_secret(tmp_path)
    with pytest.raises(ConfigError, match="cannot be kept in"):
        read_scope_secret(tmp_path / "absent")
