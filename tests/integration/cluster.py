"""A whole dragonet cluster of real processes on loopback, driven only through the command line and HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from shared.task.identity import make_spec
from tests.integration.net import free_port, get_json, request, wait_until
from tests.integration.processes import (
    BAD_WORDS,
    Daemon,
    around,
    bound_to_us,
    clean_environment,
    dragonet_command,
)

GET_TIMEOUT = 90.0

QUICK = {
    "DRAGONET_LOG_LEVEL": "debug",
}
"""Settings of every daemon in the tests: all that is said is looked at afterwards."""


class Scheduler(Daemon):
    """``dragonet scheduler``."""

    def hosts(self) -> list[dict[str, Any]]:
        """What /v1/hosts lists."""
        return _listed(get_json(self.address, "/v1/hosts"), "hosts")

    def tasks(self) -> list[dict[str, Any]]:
        """What /v1/tasks lists."""
        return _listed(get_json(self.address, "/v1/tasks"), "tasks")

    def task(self, task_id: str) -> dict[str, Any]:
        """What /v1/tasks/{id} tells."""
        told = get_json(self.address, f"/v1/tasks/{task_id}")
        assert isinstance(told, dict)
        return told


class Seeder(Daemon):
    """``dragonet seeder``."""


class Peer(Daemon):
    """``dragonet peer``; ``socket`` is its local API."""

    socket: Path
    gateway: str


@dataclass(frozen=True)
class GetResult:
    """How one ``dragonet get`` ended."""

    code: int
    stdout: str
    stderr: str
    output: Path
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The object that ends stdout (with --json)."""
        assert self.stdout.strip(), f"nothing on stdout; exit code {self.code}, stderr: {self.stderr}"
        value = json.loads(self.stdout.strip().splitlines()[-1])
        assert isinstance(value, dict)
        return value

    @property
    def task_id(self) -> str:
        """The task id that was told."""
        return str(self.json["task_id"])

    @property
    def sources(self) -> dict[str, int]:
        """Bytes by source."""
        value = self.json["bytes"]
        assert isinstance(value, dict)
        return value

    def check(self, content: bytes) -> GetResult:
        """That it succeeded and wrote exactly ``content``. Gives itself back."""
        assert self.code == 0, f"exit code {self.code}; stderr: {self.stderr}"
        assert self.output.stat().st_size == len(content)
        assert file_sha256(self.output) == sha256(content)
        told = self.json
        assert told["length"] == len(content)
        assert told["sha256"] == sha256(content)
        return self

    def check_failed(self, *words: str, code: int = 1) -> GetResult:
        """That it failed with one sentence holding ``words``, and left nothing behind. Gives itself back."""
        assert self.code == code, f"exit code {self.code} instead of {code}; stderr: {self.stderr}"
        lines = self.stderr.strip().splitlines()
        assert lines, "a failure must say why on stderr"
        assert "Traceback" not in self.stderr, self.stderr
        if code == 1:
            assert len(lines) == 1, f"one sentence was expected:\n{self.stderr}"
        for word in words:
            assert word.lower() in self.stderr.lower(), f"{word!r} is not in: {self.stderr}"
        assert not self.output.exists(), "a failed get left its output behind"
        assert leftovers(self.output.parent) == [], "a failed get left files beside its output"
        return self


class RunningGet:
    """A ``dragonet get`` in the background; ``wait`` gives its result."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], output: Path, notes: Path) -> None:
        self.output = output
        self.command = list(command)
        self._stdout = notes.with_suffix(".out")
        self._stderr = notes.with_suffix(".err")
        self._began = time.monotonic()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [*bound_to_us(), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environ),
                cwd=notes.parent,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def stderr(self) -> str:
        """What it said so far."""
        return self._stderr.read_text("utf-8", "replace")

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, timeout: float = GET_TIMEOUT) -> GetResult:
        """Its result. Raises AssertionError (and kills it) after ``timeout`` seconds."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(
                f"no end within {timeout:g} s of {' '.join(self.command)}\n{self.stderr[-2000:]}"
            ) from None
        stdout = self._stdout.read_text("utf-8", "replace")
        stderr = self.stderr
        for word in BAD_WORDS:
            assert word not in stderr, f"dragonet get printed {word!r}:\n{around(stderr, word)}"
        return GetResult(code, stdout, stderr, self.output, time.monotonic() - self._began)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.running:
            self.process.kill()
        self.process.wait(10)


class Cluster:
    """Starts roles, runs ``dragonet`` commands against them, and checks at the end that all went well.

    Use as a context manager. ``problems`` are collected at the end: a daemon that did not end with 0 after
    SIGTERM, or a log with a traceback, fails the test.
    """

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        # a short path of our own: names of unix sockets have at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="dn-"))
        self.environ = {**QUICK, **(environ or {})}
        self.scheduler: Scheduler | None = None
        self.seeders: list[Seeder] = []
        self.peers: list[Peer] = []
        self.daemons: list[Daemon] = []
        self.failed = False
        self._gets: list[RunningGet] = []
        (self.folder / "run").mkdir()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problems = self.close()
        if kind is None and problems:
            raise AssertionError("\n\n".join(problems))

    def close(self) -> list[str]:
        """End everything and remove the folder; what was wrong, as sentences."""
        self.end_gets()
        for daemon in self.daemons:
            if daemon.running and not daemon.terminated:
                daemon.terminate()
        problems = [problem for daemon in self.daemons for problem in daemon.close()]
        if problems or self.failed:
            self.print_logs()
        shutil.rmtree(self.folder, ignore_errors=True)
        return problems

    def end_gets(self) -> None:
        """Kill what still runs of the commands that were started."""
        for running in self._gets:
            running.end()
        self._gets.clear()

    def print_logs(self, last: int = 4000) -> None:
        """The end of every log on stdout, where pytest shows it with a failure."""
        for daemon in self.daemons:
            print(f"--- the log of {daemon.name} ends with ---\n{daemon.log[-last:]}")

    # --- roles ------------------------------------------------------------------------------------

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that every process of this cluster gets."""
        own = {
            "DRAGONET_CONFIG": "",
            "DRAGONET_HOST_DATA_DIR": str(self.folder / "one-shot"),
            "DRAGONET_HOST_SCHEDULER": "http://127.0.0.1:1",
            "DRAGONET_SOURCE_PLUGIN_DIR": str(self.folder / "plugins"),
        }
        return clean_environment(self.folder, {**own, **self.environ, **(extra or {})})

    def start_scheduler(
        self, *, wait: bool = True, environ: Mapping[str, str] | None = None, flags: Sequence[str] = ()
    ) -> Scheduler:
        """Start the scheduler of this cluster."""
        address = f"127.0.0.1:{free_port()}"
        data = self.folder / "scheduler"
        scheduler = Scheduler(
            "scheduler",
            ["scheduler", "--listen", address, "--data-dir", str(data), *flags],
            address=address,
            folder=self.folder,
            environ=self.environment(environ),
        )
        self.scheduler = scheduler
        self._run(scheduler, wait)
        return scheduler

    def start_seeder(
        self,
        *,
        wait: bool = True,
        data_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> Seeder:
        """Start one more seeder."""
        name = f"seeder{len(self.seeders) + 1}"
        address = f"127.0.0.1:{free_port()}"
        seeder = Seeder(
            name,
            [
                "seeder",
                "--listen",
                address,
                *self._scheduler_flags(),
                "--data-dir",
                str(data_dir or self.folder / name),
                *flags,
            ],
            address=address,
            folder=self.folder,
            environ=self.environment(environ),
        )
        self.seeders.append(seeder)
        self._run(seeder, wait)
        return seeder

    def start_peer(
        self,
        *,
        wait: bool = True,
        data_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> Peer:
        """Start one more peer daemon."""
        name = f"peer{len(self.peers) + 1}"
        address, gateway = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        socket = self.folder / f"{name}.sock"
        peer = Peer(
            name,
            [
                "peer",
                "--listen",
                address,
                "--gateway",
                gateway,
                *self._scheduler_flags(),
                "--data-dir",
                str(data_dir or self.folder / name),
                "--socket",
                str(socket),
                *flags,
            ],
            address=address,
            folder=self.folder,
            environ=self.environment(environ),
        )
        peer.socket, peer.gateway = socket, gateway
        self.peers.append(peer)
        self._run(peer, wait)
        return peer

    def start_up(
        self,
        *,
        name: str = "up",
        listen: str = "",
        wait: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> tuple[Peer, str]:
        """Start ``dragonet up`` with ports of its own: its peer, and the scheduler's address."""
        scheduler, seeder, pieces, gateway = (f"127.0.0.1:{free_port()}" for _ in range(4))
        socket = self.folder / f"{name}.sock"
        own = {
            "DRAGONET_SCHEDULER_LISTEN": scheduler,
            "DRAGONET_SEEDER_LISTEN": seeder,
            "DRAGONET_PEER_LISTEN": listen or pieces,
            "DRAGONET_PEER_GATEWAY": gateway,
            "DRAGONET_PEER_SOCKET": str(socket),
        }
        peer = Peer(
            name,
            ["up", "--data-dir", str(self.folder / name)],
            address=listen or pieces,
            folder=self.folder,
            environ=self.environment({**own, **(environ or {})}),
        )
        peer.socket, peer.gateway = socket, gateway
        self._run(peer, wait)
        return peer, scheduler

    def start(self, *, seeders: int = 1, peers: int = 1) -> Cluster:
        """A scheduler, then seeders and peers at the same time; all are ready then. Gives itself back."""
        self.start_scheduler()
        for _ in range(seeders):
            self.start_seeder(wait=False)
        for _ in range(peers):
            self.start_peer(wait=False)
        for daemon in self.daemons:
            daemon.wait_ready()
        return self

    def _run(self, daemon: Daemon, wait: bool) -> None:
        self.daemons.append(daemon)
        daemon.start(wait=wait)

    def _scheduler_flags(self) -> list[str]:
        return ["--scheduler", self.scheduler.url] if self.scheduler else []

    # --- commands ---------------------------------------------------------------------------------

    def run(
        self, *arguments: str, timeout: float = GET_TIMEOUT, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dragonet ARGUMENTS`` to its end."""
        done = subprocess.run(
            [*dragonet_command(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.environment(environ),
            cwd=self.folder / "run",
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start_get(
        self,
        url: str,
        peer: Peer | None = None,
        *flags: str,
        output: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> RunningGet:
        """Start ``dragonet get URL`` through ``peer`` (None: no daemon, a one-shot peer)."""
        place = Path(tempfile.mkdtemp(prefix="get-", dir=self.folder / "run"))
        if output is None:
            output = place / "files" / "file"
            output.parent.mkdir()
        socket = peer.socket if peer is not None else self.folder / "nobody.sock"
        command = [*dragonet_command(), "get", url, "-o", str(output), "--socket", str(socket), "--json"]
        command += flags
        running = RunningGet(command, self.environment(environ), output, place / "notes")
        self._gets.append(running)
        return running

    def get(
        self,
        url: str,
        peer: Peer | None = None,
        *flags: str,
        output: Path | None = None,
        timeout: float = GET_TIMEOUT,
        environ: Mapping[str, str] | None = None,
    ) -> GetResult:
        """Run ``dragonet get URL`` through ``peer`` to its end."""
        return self.start_get(url, peer, *flags, output=output, environ=environ).wait(timeout)

    def get_all(
        self, url: str, peers: Iterable[Peer], *flags: str, timeout: float = GET_TIMEOUT
    ) -> list[GetResult]:
        """The same URL through several peers at the same time."""
        running = [self.start_get(url, peer, *flags) for peer in peers]
        with ThreadPoolExecutor(max(1, len(running))) as pool:
            return list(pool.map(lambda one: one.wait(timeout), running))

    def stat(self, what: str, peer: Peer) -> dict[str, Any]:
        """``dragonet stat WHAT --json`` at ``peer``; {} when it does not know it."""
        done = self.run("stat", what, "--json", "--socket", str(peer.socket))
        if done.returncode != 0:
            return {}
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told

    def listed(self, peer: Peer) -> list[dict[str, Any]]:
        """``dragonet ls --json`` at ``peer``."""
        done = self.run("ls", "--json", "--socket", str(peer.socket))
        assert done.returncode == 0, done.stderr
        return _listed(json.loads(done.stdout), "tasks")

    def wait_held(self, peer: Peer, url: str, count: int, timeout: float = 30) -> None:
        """Wait until ``peer`` says that it holds at least ``count`` bytes of ``url``."""
        path = f"/v1/tasks/{task_id_of(url)}"

        def holds() -> bool:
            answer = request(str(peer.socket), path)
            return answer.status == 200 and answer.json()["held"] >= count

        wait_until(holds, f"{peer.name} holds {count} bytes", timeout)

    def wait_received(self, daemon: Daemon, count: int, *sources: str, timeout: float = 30) -> None:
        """Wait until ``daemon`` has received at least ``count`` bytes from ``sources``."""
        wait_until(
            lambda: daemon.metrics().received(*sources) >= count,
            f"{daemon.name} has received {count} bytes",
            timeout,
        )


def task_id_of(url: str) -> str:
    """The id of the task of a public URL that was asked for without any flags."""
    return make_spec(url)[0].task_id


def leftovers(folder: Path) -> list[str]:
    """Names of everything in ``folder``."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(told: Any, name: str) -> list[dict[str, Any]]:
    items = told.get(name, []) if isinstance(told, dict) else told
    assert isinstance(items, list)
    return items
