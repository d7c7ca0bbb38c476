"""Commands against a daemon's socket that is not there or is played by a stand-in client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from peer.cli import main
from peer.cli.execution import UsageError
from peer.cli.get import describe_result, make_order
from peer.cli.options import Common, load, parse_headers, parse_settings
from peer.cli.tasks import Identity, describe_task, query_of, task_table
from peer.client import LocalClient
from peer.orders import DownloadDone, DownloadOrder, DownloadProgress, TaskQuery, TaskView
from shared.errors import SourceError, TaskNotFound
from shared.version import version

MIB = 1024 * 1024
VIEW = TaskView(
    task_id="ab" * 32,
    url="http://h/x?token=***",
    state="partial",
    length=4 * MIB,
    held=MIB,
    pieces=8,
    pieces_held=2,
    piece_length=512 * 1024,
    pinned=False,
    durable=False,
    created=0.0,
    accessed=1.0,
)


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DRAGONET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRAGONET_CONFIG", "")
    monkeypatch.setenv("DRAGONET_PEER_SOCKET", str(tmp_path / "dragonet.sock"))
    monkeypatch.chdir(tmp_path)


class Daemon:
    """What the commands see of a daemon; every call is written down."""

    content = b"content"

    def __init__(self) -> None:
        self.views = [VIEW]
        self.calls: list[object] = []
        self.error: Exception | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def tasks(_client: LocalClient) -> list[TaskView]:
            return self.views

        async def find(_client: LocalClient, query: TaskQuery) -> TaskView:
            self.calls.append(query)
            if not self.views:
                raise TaskNotFound(
                    "this machine holds nothing of that content: `dragonet ls` shows what it holds"
                )
            return self.views[0]

        async def remove(_client: LocalClient, query: TaskQuery) -> list[TaskView]:
            self.calls.append(query)
            return self.views

        async def download(
            _client: LocalClient, order: DownloadOrder, output: int, on_progress
        ) -> DownloadDone:
            self.calls.append(order)
            os.write(output, self.content)
            on_progress(DownloadProgress(length=7, done=7, bytes={"peer": 7}, parents=1))
            if self.error is not None:
                raise self.error
            return DownloadDone(task_id="t", length=7, sha256="", seconds=0.5, bytes={"peer": 7})

        for method in (tasks, find, remove, download):
            monkeypatch.setattr(LocalClient, method.__name__, method)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    made = Daemon()
    made.install(monkeypatch)
    return made


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"dragonet {version()} (Python 3.")
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == version()


def test_config_prints_what_holds_and_where_it_is_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "d.toml"
    file.write_text('[host]\nlocation = "eu/rack1"\n')
    assert main(["config", "--config", str(file), "--set", "server.grace=3s"]) == 0
    shown = capsys.readouterr().out
    assert f'location = "eu/rack1"  # from {file}' in shown
    assert 'grace = "3s"  # from --set server.grace' in shown
    assert "# from DRAGONET_PEER_SOCKET" in shown
    for section in ("host", "scheduler", "seeder", "peer", "swarm", "store", "source", "server", "log"):
        assert f"[{section}]\n" in shown


def test_config_shows_options_but_no_credentials(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["source.options.oci.insecure=true", "source.options.hf.token=hush"]
    assert main(["config", *(part for option in options for part in ("--set", option))]) == 0
    shown = capsys.readouterr().out
    assert 'options = {"oci" = {"insecure" = "true"}, "hf" = {"token" = "***"}}' in shown
    assert "hush" not in shown


def test_config_shows_registries_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    file.write_text('[registry]\nallow = ["https://ghcr.io"]\n')
    assert main(["config", "--config", str(file)]) == 1
    assert f"registry.allow ({file}) cannot be 'https://ghcr.io'" in capsys.readouterr().err
    assert main(["config", "--set", "registry.default=docker.io/library"]) == 2
    assert "registry.default (--set registry.default) cannot be" in capsys.readouterr().err


def test_every_setting_has_a_description() -> None:
    from peer.config import Config
    from shared.config.fields import keys_of

    assert [key.name for key in keys_of(Config) if not key.description] == []


def test_a_printed_configuration_is_a_configuration_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["config"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "again.toml").write_text(first)
    assert load(Common(config=tmp_path / "again.toml")).config == load(None).config


def test_flags_are_settings() -> None:
    loaded = load(Common(settings=("store.quota=1GiB",)), {"peer.listen": "0.0.0.0:1", "peer.gateway": None})
    assert loaded.config.store.quota == 2**30
    assert loaded.config.peer.listen == "0.0.0.0:1"
    assert loaded.origins["peer.listen"] == "--listen"
    with pytest.raises(UsageError, match=r"host.scheduler \(--scheduler\)"):
        load(None, {"host.scheduler": "no-url"})


@pytest.mark.parametrize("role", ["up", "peer", "seeder", "scheduler"])
def test_where_a_role_listens_is_checked_before_it_runs(
    capsys: pytest.CaptureFixture[str], role: str
) -> None:
    assert main([role, "--listen", "nonsense"]) == 2
    assert "(--listen) cannot be 'nonsense': write HOST:PORT" in capsys.readouterr().err


def test_settings_and_headers_as_written() -> None:
    assert parse_settings(("a.b=c=d",)) == {"a.b": "c=d"}
    assert parse_headers(("X-One: 1", "x-one:2", "Authorization: Bearer x:y")) == {
        "x-one": "1, 2",
        "authorization": "Bearer x:y",
    }


def test_an_order_has_all_that_was_given() -> None:
    order = make_order(
        "http://h/x",
        headers={"a": "b"},
        digest="SHA256:" + "AB" * 32,
        byte_range="0-9",
        tag="t",
        application="app",
        filtered="a&b",
        no_origin=True,
        limit="1MiB/s",
        timeout="1m",
        hash_content=True,
    )
    assert order == DownloadOrder(
        url="http://h/x",
        headers={"a": "b"},
        digest="sha256:" + "ab" * 32,
        range="0-9",
        tag="t",
        application="app",
        filtered=("a", "b"),
        no_origin=True,
        limit=MIB,
        timeout=60.0,
        hash_content=True,
    )


def test_get_puts_the_file_in_place(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["get", "http://h/x", "-o", "file"]) == 0
    assert (tmp_path / "file").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]
    shown = capsys.readouterr()
    assert shown.out == "file: 7 B in 0.50s, 14 B/s (peer 7 B)\n"
    assert shown.err == ""


def test_get_json_ends_with_one_object(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "http://h/x", "-o", "file", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "task_id": "t",
        "length": 7,
        "sha256": "",
        "seconds": 0.5,
        "bytes": {"store": 0, "peer": 7, "seeder": 0, "origin": 0},
    }
    assert shown.err == ""
    (order,) = daemon.calls
    assert isinstance(order, DownloadOrder)
    assert order.hash_content


def test_a_failed_get_leaves_nothing(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    daemon.error = SourceError("http://h/x answered 404", origin_status=404)
    assert main(["get", "http://h/x", "-o", "file", "--json"]) == 1
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "dragonet: http://h/x answered 404\n"


def test_without_a_daemon_get_is_a_peer_of_its_own_and_quiet(tmp_path: Path) -> None:
    script = """
import json, os, sys, types
import structlog
from peer.orders import DownloadDone

async def download_once(config, order, fd, on_event):
    structlog.get_logger().info("going back to source")
    os.write(fd, b"content")
    return DownloadDone(task_id="t", length=7, sha256="", seconds=0.5, bytes={"origin": 7})

stand_in = types.ModuleType("peer.oneshot")
stand_in.download_once = download_once
sys.modules["peer.oneshot"] = stand_in
from peer.cli import main
sys.exit(main(["get", "http://h/x", "-o", "file", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["bytes"]["origin"] == 7
    assert (tmp_path / "file").read_bytes() == b"content"


def test_ls(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["TASK", "SIZE", "HELD", "USED", "URL"]
    assert row.split()[:4] == ["ab" * 6, "4.0", "MiB", "25%"]
    assert row.endswith("http://h/x?token=***")
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["task_id"] == "ab" * 32


def test_stat_and_rm(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stat", "http://h/x", "--tag", "t", "--filter", "a&b"]) == 0
    shown = capsys.readouterr().out
    assert "held:          1048576 bytes, 2 of 8 pieces" in shown
    assert daemon.calls == [TaskQuery("http://h/x", tag="t", filtered=("a", "b"))]
    assert main(["rm", "ab" * 32]) == 0
    assert capsys.readouterr().out == f"removed {'ab' * 32} (1.0 MiB)\n"
    assert daemon.calls[1:] == [TaskQuery("ab" * 32)]
    older = msgspec.structs.replace(VIEW, task_id="cd" * 32)
    daemon.views = [VIEW, older]
    assert main(["rm", "http://h/x"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"removed {'cd' * 32} (1.0 MiB)"
    daemon.views = []
    assert main(["stat", "http://h/x"]) == 1
    assert "`dragonet ls` shows" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ls"], ["stat", "http://h/x"], ["rm", "http://h/x"]])
def test_without_a_daemon_a_sentence_says_how_to_start_one(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    assert "dragonet peer" in capsys.readouterr().err


def test_tables_and_views_of_unusual_tasks() -> None:
    unknown = msgspec.structs.replace(VIEW, length=None, pieces=0)
    complete = msgspec.structs.replace(VIEW, state="complete", sha256="cd" * 32)
    empty = msgspec.structs.replace(VIEW, length=0, held=0)
    old = msgspec.structs.replace(complete, superseded=True)
    _, first, second, third, fourth = task_table([unknown, complete, empty, old])
    assert " all, old " in fourth
    assert "superseded:    yes" in describe_task(old)
    assert "superseded" not in describe_task(complete)
    assert " ? " in first
    assert " all " in second
    assert " 0 B " in third
    assert "not known yet" in describe_task(unknown)
    assert "2 of ? pieces" in describe_task(unknown)
    assert f"sha256:        {'cd' * 32}" in describe_task(complete)
    assert query_of("u", Identity(header=("A: b",))) == TaskQuery("u", headers={"a": "b"})
    assert len(task_table([])) == 1


def test_results_for_people() -> None:
    done = DownloadDone(task_id="t", length=MIB, sha256="ab", seconds=0.0, bytes={"store": MIB})
    assert describe_result(Path("f"), done) == "f: 1.0 MiB in 0.00s, at once (store 1.0 MiB)\nsha256:ab"


def test_get_starts_without_what_only_daemons_need() -> None:
    """Every module costs start-up time; these are for those who serve."""
    script = (
        "import sys, peer.client\nfrom peer.cli import main\ncode = main(['get', 'http://h/x', '-o', '/'])\n"
        "unwanted = {'httpx', 'structlog', 'prometheus_client', 'cryptography', 'zeroconf', 'lmdb'}\n"
        "print(code, sorted(unwanted & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
