"""What `dragonet runtime configure` writes, read by the programs that it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.integration.net import free_port, wait_until
from tests.programs import require_program

PATIENCE = 60.0
DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"""
SECTION = '[plugins."io.containerd.grpc.v1.cri".registry]\n      config_path = '


def dragonet(root: Path, *arguments: str) -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("DRAGONET_")}
    environ["DRAGONET_CONFIG"] = ""
    environ["DRAGONET_HOST_DATA_DIR"] = "/data"
    command = [sys.executable, "-m", "peer.cli", "runtime", *arguments, "--root", str(root)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("text", ["default", DEBIAN, DEBIAN.replace("version = 2", ""), ""])
def test_containerd_reads_its_configuration(tmp_path: Path, text: str) -> None:
    containerd = require_program("containerd")
    config = tmp_path / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    if text == "default":
        text = output(containerd, "config", "default")
    if "bin_dir" in text and "version" not in text:
        text = text.replace("io.containerd.grpc.v1.cri", "cri")
    config.write_text(text)
    before = output(containerd, "--config", config, "config", "dump")
    assert f'{SECTION}""' in before
    dragonet(tmp_path, "configure", "containerd")
    after = output(containerd, "--config", config, "config", "dump")
    assert after == before.replace(f'{SECTION}""', f'{SECTION}"/etc/containerd/certs.d"')
    dragonet(tmp_path, "restore")
    assert config.read_text() == text


def test_containerd_reads_a_configuration_that_dragonet_made(tmp_path: Path) -> None:
    containerd = require_program("containerd")
    dragonet(tmp_path, "configure", "containerd")
    dumped = output(containerd, "--config", tmp_path / "etc/containerd/config.toml", "config", "dump")
    assert f'{SECTION}"/etc/containerd/certs.d"' in dumped


class Hits:
    """A registry that has nothing, and the places where it was asked: (port, path) in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Its next port."""
        hits = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.seen.append((self.server.server_address[1], self.path))
                self.send_response(200 if self.path == "/v2/" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_arguments: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def containerd_running(folder: Path) -> Iterator[Path]:
    program = require_program("containerd")
    address = folder / "c.sock"
    config = folder / "daemon.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{address}"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "--config", config], stdout=log, stderr=log)
    try:
        wait_until(address.exists, "containerd's socket")
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.root
@pytest.mark.parametrize("local", [True, False])
def test_containerd_asks_the_gateway_first_and_then_all_others(tmp_path: Path, local: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run containerd")
    ctr = require_program("ctr")
    hits = Hits()
    with (
        hits.listening() as gateway,
        hits.listening() as mirror,
        hits.listening() as upstream,
        containerd_running(tmp_path) as address,
    ):
        hosts = tmp_path / "etc/containerd/certs.d"
        (hosts / "reg.example").mkdir(parents=True)
        (hosts / "reg.example/hosts.toml").write_text(
            f'server = "http://127.0.0.1:{upstream}"\n'
            f'[host."http://127.0.0.1:{mirror}"]\n  [host."http://127.0.0.1:{mirror}".header]\n    x-a = "b"\n'
        )
        # a gateway elsewhere, which nobody finds here, is given a dial_timeout: older containerds do not know that
        url = f"http://127.0.0.1:{gateway}" if local else "http://gateway.invalid:65001"
        dragonet(tmp_path, "configure", "containerd", "--registry", "reg.example", "--gateway", url)
        assert ("dial_timeout" in (hosts / "reg.example/hosts.toml").read_text()) is not local
        pull = [ctr, "-a", str(address), "images", "pull", "--hosts-dir", str(hosts), "reg.example/a/b:1"]
        assert subprocess.run(pull, capture_output=True, timeout=PATIENCE, check=False).returncode != 0
    asked = [port for port, path in hits.seen if path.startswith("/v2/a/b/manifests/1?ns=reg.example")]
    assert list(dict.fromkeys(asked)) == [gateway, mirror, upstream][not local :]


def in_its_own_etc(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program that sees ``root``'s /etc/containers as its own."""
    script = 'mount --bind "$0" /etc/containers && exec "$@"'
    unshare = [require_program("unshare"), "--mount", "sh", "-c", script, str(root / "etc/containers")]
    return subprocess.run([*unshare, *command], capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.root
def test_podman_and_skopeo_try_the_gateway_first(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a folder at /etc/containers")
    podman, skopeo = require_program("podman"), require_program("skopeo")
    folder = tmp_path / "etc/containers/registries.conf.d"
    folder.mkdir(parents=True)
    (folder.parent / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (folder.parent / "registries.conf").write_text('unqualified-search-registries = ["quay.io"]\n')
    hits = Hits()
    with hits.listening() as gateway, hits.listening() as mirror:
        upstream = f"127.0.0.1:{free_port()}"
        (folder / "70-existing.conf").write_text(
            f'[[registry]]\nprefix = "reg.example"\nlocation = "{upstream}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "127.0.0.1:{mirror}/old"\ninsecure = true\n'
        )
        url = f"http://127.0.0.1:{gateway}"
        dragonet(tmp_path, "configure", "podman", "--registry", "reg.example", "--gateway", url)
        with TemporaryDirectory(prefix="dragonet-") as short:  # podman takes no long paths
            places = ["--root", f"{short}/store", "--runroot", f"{short}/run"]
            done = in_its_own_etc(tmp_path, [podman, *places, "info", "--format", "json"])
            assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)["registries"]
        assert told["search"] == ["quay.io"]
        assert told["reg.example"]["Location"] == upstream
        assert told["reg.example"]["Insecure"] is True
        assert [m["Location"] for m in told["reg.example"]["Mirrors"]] == [
            f"127.0.0.1:{gateway}/{upstream.replace(':', '_')}",
            f"127.0.0.1:{mirror}/old",
        ]
        done = in_its_own_etc(tmp_path, [skopeo, "inspect", "docker://reg.example/a/b:1"])
        assert done.returncode != 0
        tried = [(port, path) for port, path in hits.seen if "manifests" in path]
        assert tried == [
            (gateway, f"/v2/{upstream.replace(':', '_')}/a/b/manifests/1"),
            (mirror, "/v2/old/a/b/manifests/1"),
        ]
