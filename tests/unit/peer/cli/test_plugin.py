"""``dragonet plugin``: what it prints, and what it writes. The listing of real plugins is an integration test."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from peer.cli import main
from peer.cli.plugin import describe
from peer.client import LocalClient
from peer.templates import writing
from peer.templates.writing import NotWritten, write_source
from shared.errors import InvalidRequest
from shared.plugins import PluginKind, PluginRecord, PluginState

RECORD = PluginRecord(
    kind=PluginKind.SOURCE,
    name="d7yfs",
    location="/plugins/d7y-resource-plugin-d7yfs.py",
    state=PluginState.ACTIVE,
    vendor="d7y",
    attributes={"vendor": "d7y", "name": "d7yfs", "buildTime": "a\nb"},
)


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DRAGONET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRAGONET_CONFIG", "")
    monkeypatch.setenv("DRAGONET_SOURCE_PLUGIN_DIR", str(tmp_path / "plugins"))
    monkeypatch.chdir(tmp_path)


def test_the_line_of_the_seed() -> None:
    expected = 'attribute: {"buildTime":"a\\nb","name":"d7yfs","vendor":"d7y"}'
    assert describe(RECORD, Path("/plugins")) == (
        f"resource plugin d7yfs, location: d7y-resource-plugin-d7yfs.py, {expected}"
    )
    assert describe(RECORD) == f"resource plugin d7yfs, location: {RECORD.location}, {expected}"


def test_running(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    records = [RECORD]

    async def plugins(_client: LocalClient) -> list[PluginRecord]:
        return records

    monkeypatch.setattr(LocalClient, "plugins", plugins)
    assert main(["plugin", "--running"]) == 0
    assert capsys.readouterr().out.endswith("}, state: ACTIVE\n")
    records.append(
        PluginRecord(
            kind=PluginKind.EXTENSION,
            name="x",
            location="git",
            state=PluginState.FAILED,
            reason="it\x1b broke",
        )
    )
    assert main(["plugin", "list", "--running"]) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[1] == (
        "extension plugin x, location: git, attribute: {}, state: FAILED, reason: it\\x1b broke"
    )
    assert main(["plugin", "list", "--running", "--json"]) == 1
    assert [record["identity"] for record in json.loads(capsys.readouterr().out)] == ["d7y@d7yfs", "x"]


def test_no_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "--running", "--socket", "nobody.sock"]) == 1
    assert "no dragonet daemon answers on nobody.sock" in capsys.readouterr().err


def test_a_daemon_for_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def refuse(*_arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("trio._socket._SocketType.connect", refuse)
    assert main(["plugin", "--running", "--socket", "theirs.sock"]) == 1
    assert "socket theirs.sock is not for this user" in capsys.readouterr().err


def test_what_is_written(tmp_path: Path) -> None:
    lines = write_source("New.fs", tmp_path / "a" / "b", Path("/plugins"))
    plugin, test = (
        tmp_path / "a" / "b" / "d7y-resource-plugin-new.fs.py",
        tmp_path / "a" / "b" / "test_new_fs.py",
    )
    assert lines[:2] == [f"wrote {plugin}", f"wrote {test}"]
    assert lines[-1].endswith("to /plugins on the seeders.")
    for path in (plugin, test):
        text = path.read_text(encoding="utf-8")
        assert "new.fs" in text
        assert writing.PLACEHOLDER not in text
        compile(text, path.name, "exec")


def test_nobody_else_may_write_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_source("newfs", tmp_path / "new", Path("/plugins"))
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in sorted((tmp_path / "new").iterdir())] == [
        "0o644"
    ] * 2
    assert oct((tmp_path / "new").stat().st_mode & 0o777) == "0o755"


@pytest.mark.parametrize(
    ("name", "words"), [("", "cannot be"), ("a_b", "cannot be"), ("x" * 65, "64 at most")]
)
def test_names_that_are_none(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        write_source(name, tmp_path / "new", Path("/plugins"))
    with pytest.raises(InvalidRequest, match="built in"):
        write_source("HTTPS", tmp_path / "new", Path("/plugins"))
    assert not (tmp_path / "new").exists()


def test_all_or_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "test_newfs.py").write_text("mine")
    with pytest.raises(NotWritten, match=r"test_newfs\.py is there already"):
        write_source("newfs", tmp_path, Path("/plugins"))
    assert [path.name for path in tmp_path.iterdir()] == ["test_newfs.py"]
    assert (tmp_path / "test_newfs.py").read_text() == "mine"
    with pytest.raises(NotWritten, match=r"test_newfs\.py is there already"):
        write_source("newfs", tmp_path / "test_newfs.py", Path("/plugins"))
    with pytest.raises(NotWritten, match="cannot write"):
        write_source("newfs", tmp_path / "test_newfs.py" / "below", Path("/plugins"))
