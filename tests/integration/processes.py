"""One daemon of the cluster as a child process: start, wait for ready, stop, kill, read its log."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.metrics import Metrics, parse_metrics
from tests.integration.net import GaveUp, request, wait_until

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT = 60.0
STOP_TIMEOUT = 40.0
BAD_WORDS = ("Traceback", "ExceptionGroup", "Segmentation fault", "Fatal Python error", "RuntimeWarning")


def dragonet_command() -> list[str]:
    """How this environment starts ``dragonet``."""
    script = Path(sys.executable).with_name("dragonet")
    return [str(script)] if script.exists() else [sys.executable, "-m", "peer.cli"]


def bound_to_us() -> list[str]:
    """A command prefix that lets a child end with this process, even when this one is killed.

    The kernel watches the starting thread, so it is of use in the main thread only.
    """
    setpriv = shutil.which("setpriv")
    main = threading.current_thread() is threading.main_thread()
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv and main else []


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which no setting of the person running the tests matters."""
    names = ("PATH", "TMPDIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "share"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_STATE_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra or {}),
    }


class Daemon:
    """A long-running dragonet process with a listen address and a log file.

    ``restart`` keeps address, data folder and log. Only the process started here is ever signalled.
    ``prefix`` is what its command begins with, where it is not to run just here.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        address: str,
        folder: Path,
        environ: Mapping[str, str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.address = address
        self.folder = folder
        self.environ = dict(environ)
        self.prefix = list(prefix)
        self.log_path = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.terminated = False

    def __repr__(self) -> str:
        state = "not started" if self.process is None else f"pid {self.process.pid}"
        return f"<{self.name} at {self.address}, {state}>"

    @property
    def url(self) -> str:
        """The HTTP address of this daemon."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        """The process id. Raises AssertionError when it never started."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """Everything it wrote, over all its starts."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        """Start the process and, unless told otherwise, wait until /readyz answers 200."""
        assert not self.running, f"{self.name} runs already"
        self.terminated = False
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*(self.prefix or bound_to_us()), *dragonet_command(), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environ,
                cwd=self.folder,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until /readyz answers 200. Raises AssertionError with the log's end when it does not."""
        try:
            wait_until(self._is_ready, f"{self.name} is ready", timeout)
        except GaveUp as error:
            raise AssertionError(f"{error}; its log ends with:\n{self.log[-3000:]}") from None

    def _is_ready(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code} before it was ready:\n{self.log[-3000:]}"
        return self.answers("/readyz")

    def answers(self, path: str = "/healthz") -> bool:
        """Whether ``GET path`` answers 200 now."""
        try:
            return request(self.address, path, timeout=5).status == 200
        except OSError:
            return False

    def metrics(self) -> Metrics:
        """What /metrics says now."""
        answer = request(self.address, "/metrics")
        assert answer.status == 200, f"{self.name}: /metrics answered {answer.status}"
        return parse_metrics(answer.text)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)

    def terminate(self) -> None:
        """Send SIGTERM; see ``wait``."""
        assert self.process is not None
        self.terminated = True
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit code, once it ended. Raises AssertionError (and kills it) after ``timeout`` seconds."""
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {timeout:g} s; its log ends with:\n{self.log[-3000:]}"
            ) from None

    def restart(self) -> None:
        """Start again after ``kill`` or ``wait``, on the same address and data folder."""
        self.start()

    def close(self) -> list[str]:
        """End it for good; what was wrong with its end or its log, as sentences."""
        problems: list[str] = []
        if self.process is None:
            return problems
        if self.running:
            if not self.terminated:
                self.terminate()
            try:
                code = self.wait()
            except AssertionError as error:
                problems.append(str(error))
            else:
                if code != 0:
                    problems.append(f"{self.name} ended with {code} after SIGTERM:\n{self.log[-2000:]}")
        return problems + self.bad_words()

    def bad_words(self, start: int = 0) -> list[str]:
        """What must not be in a log, found from character ``start`` on, as sentences."""
        log = self.log[start:]
        return [f"the log of {self.name} holds {w!r}:\n{around(log, w)}" for w in BAD_WORDS if w in log]

    # --- what the kernel knows about it -----------------------------------------------------------

    def memory(self, field: str = "RssAnon") -> int:
        """A line of /proc/PID/status in bytes: VmRSS, RssAnon, VmHWM …"""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field} for {self.name}")

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """Number of open file descriptors."""
        with contextlib.suppress(OSError):
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        return 0


def around(text: str, word: str, before: int = 500, after: int = 3000) -> str:
    """The part of ``text`` around the first ``word``."""
    at = text.find(word)
    return text[max(0, at - before) : at + after]
