"""``dragonet runtime``: what it prints, what it asks for, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from peer.cli import main

HOSTS = "etc/containerd/certs.d/_default/hosts.toml"
MAIN = "etc/containerd/config.toml"
DAEMON = "etc/docker/daemon.json"


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DRAGONET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRAGONET_CONFIG", "")
    monkeypatch.setenv("DRAGONET_HOST_DATA_DIR", "/var/lib/dragonet")
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root/etc/docker").mkdir(parents=True)
    (tmp_path / "root" / DAEMON).write_text('{"debug": true}\n')


def runtime(*arguments: str) -> int:
    return main(["runtime", *arguments, "--root", "root"])


def test_configure_and_restore(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert runtime("configure", "containerd") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "containerd pulls through http://127.0.0.1:65001: every registry",
        f"  created  /{MAIN}",
        f"  created  /{HOSTS}",
        "now run: systemctl restart containerd",
    ]
    assert shown.err == ""
    assert runtime("configure", "containerd") == 0
    assert capsys.readouterr().out == (
        "containerd pulls through http://127.0.0.1:65001: every registry (no file has to be changed)\n"
    )
    assert runtime("restore") == 0
    assert capsys.readouterr().out.splitlines() == [
        "put back:",
        f"  removed  /{MAIN}",
        f"  removed  /{HOSTS}",
        "now run: systemctl restart containerd",
    ]
    assert runtime("restore") == 0
    assert capsys.readouterr().out == "nothing to put back\n"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["etc"]


def test_a_dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert runtime("configure", "docker", "--dry-run", "--gateway", "http://10.0.0.1:80") == 0
    assert capsys.readouterr().out.splitlines() == [
        "docker would pull through http://10.0.0.1:80: docker.io",
        f"  changed  /{DAEMON}",
        "",
        f"--- /{DAEMON}",
        f"+++ /{DAEMON}",
        "@@ -1 +1 @@",
        '-{"debug": true}',
        '+{"registry-mirrors": ["http://10.0.0.1:80"],"debug": true}',
        "",
        "then run: systemctl reload docker",
    ]
    assert (tmp_path / "root" / DAEMON).read_text() == '{"debug": true}\n'
    assert runtime("status") == 0
    assert "docker: not configured" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        runtime("configure", "podman", "--json", "--registry", "quay.io", "--registry", "r.example:5000") == 0
    )
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert shown.err == ""
    (note,) = told.pop("notes")
    assert note == (
        'the gateway refuses r.example:5000: add "r.example:5000" to registry.allow in dragonet\'s configuration'
    )
    assert told == {
        "runtime": "podman",
        "gateway": "http://127.0.0.1:65001",
        "dry_run": False,
        "registries": ["quay.io", "r.example:5000"],
        "changes": [{"path": "/etc/containers/registries.conf.d/50-dragonet.conf", "action": "created"}],
        "changed_since": [],
        "commands": [],
    }
    assert runtime("restore", "podman", "--json", "--dry-run") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changes"][0]["diff"].startswith("--- /etc/containers")
    assert told["dry_run"]
    assert runtime("status", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["podman"]["files"][0]["state"] == "as written"
    assert told["crio"] == {"configured": False, "gateway": "", "registries": [], "files": []}


def test_the_configuration_is_heard(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = ["--set", "peer.gateway=0.0.0.0:7000", "--set", "registry.allow=quay.io"]
    assert runtime("configure", "podman", *settings) == 0
    assert capsys.readouterr().out.startswith("podman pulls through http://127.0.0.1:7000: quay.io\n")
    assert runtime("configure", "docker", *settings) == 0
    assert "the gateway refuses docker.io: add" in capsys.readouterr().err
    assert runtime("configure", "docker", "--set", "registry.default=quay.io") == 1
    assert "set registry.default to docker.io" in capsys.readouterr().err
    assert runtime("configure", "docker", "--set", "peer.gateway=127.0.0.1:0") == 2
    assert "--gateway" in capsys.readouterr().err


def test_what_the_gateway_refuses_is_told_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = ["--set", "registry.allow="]
    assert runtime("configure", "containerd") == 0
    assert capsys.readouterr().err == ""
    for _ in range(2):  # all registries are configured already
        assert runtime("configure", "containerd", "--registry", "localhost:5000", *nothing) == 0
        shown = capsys.readouterr()
        assert shown.err.startswith("note: the gateway refuses localhost:5000: add")
        assert shown.out.startswith("containerd pulls through http://127.0.0.1:65001: every registry")
    assert runtime("configure", "containerd", *nothing) == 0
    assert capsys.readouterr().err.startswith("note: the gateway refuses every registry: name some in")


def test_what_was_changed_since(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert runtime("configure", "docker") == 0
    (tmp_path / "root" / DAEMON).write_text("{}")
    capsys.readouterr()
    assert runtime("status") == 1
    assert f"  changed     /{DAEMON}" in capsys.readouterr().out
    assert runtime("restore") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"/{DAEMON} was changed by somebody else" in shown.err
    assert runtime("restore", "--dry-run") == 0
    shown = capsys.readouterr()
    assert "this needs --force" in shown.err
    assert '+{"debug": true}' in shown.out
    assert runtime("restore", "--force") == 0
    assert f"kept as /{DAEMON}.dragonet-saved" in capsys.readouterr().err
    assert (tmp_path / "root" / DAEMON).read_text() == '{"debug": true}\n'


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["configure", "rkt"], 2, "containerd, podman, crio, docker"),
        (["configure"], 2, "RUNTIME"),
        (["configure", "podman", "--registry", "https://quay.io"], 2, "host or host:port"),
        (["configure", "podman", "--gateway", "localhost"], 2, "http://HOST:PORT"),
        (["configure", "docker", "--registry", "quay.io"], 1, "Docker Hub only"),
        (["restore", "rkt"], 2, "containerd, podman, crio, docker"),
        (["undo"], 2, "undo"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime(*arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_runtime_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DRAGONET_HOST_DATA_DIR", str(tmp_path / "data"))
    assert main(["runtime", "configure", "crio", "--dry-run"]) == 0
    assert "note: crio was not found on this machine\n" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_whoever_asks_the_record_is_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from peer.cli.runtime import _machine
    from peer.config import Config

    assert _machine(Config(), tmp_path).journal_path == "/var/lib/dragonet/runtime"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _machine(Config(), tmp_path).journal_path == "/var/lib/dragonet/runtime"


def test_a_root_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runtime", "status", "--root", "nowhere"]) == 2
    assert "--root nowhere is not a folder" in capsys.readouterr().err


def test_the_installed_containerd_tells_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from peer.cli.runtime import _containerd_version

    program = tmp_path / "bin" / "containerd"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent))
    assert _containerd_version() is None
    program.write_text("#!/bin/sh\necho containerd github.com/containerd/containerd/v2 v2.1.4 abc\n")
    program.chmod(0o755)
    assert _containerd_version() == (2, 1)
    program.write_text("no program")
    assert _containerd_version() is None
