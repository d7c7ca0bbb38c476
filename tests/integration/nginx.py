"""A real nginx on loopback, for tests and benchmarks."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.integration.net import connect, free_port, wait_until


class Nginx:
    """nginx with one worker, serving a folder as it does by default with sendfile; folders are listed, and
    what lies below ``/plain/`` comes without ranges."""

    def __init__(self, folder: Path, program: str = "nginx") -> None:
        self.folder = folder
        self.program = program
        self.root = folder / "root"
        self.access_log = folder / "access.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nginx:
        self.root.mkdir(parents=True)
        config = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self.folder};" for kind in kinds)
        config.write_text(
            f"""daemon off; worker_processes 1; pid {self.folder}/pid; {user}
            error_log {self.folder}/error.log;
            events {{ worker_connections 1024; }}
            http {{ log_format sent '$uri $body_bytes_sent'; access_log {self.access_log} sent;
            sendfile on; tcp_nopush on; keepalive_requests 1000000; {temporary}
            server {{ listen {self.address}; root {self.root}; autoindex on;
            location /plain/ {{ max_ranges 0; }} }} }}"""
        )
        self._process = subprocess.Popen(
            [self.program, "-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, "nginx listens", 10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            connect(self.address, 1).close()
        except OSError:
            return False
        return True

    def body_sent(self, path: str) -> int:
        """Bytes of bodies sent for ``path``, from the access log."""
        total = 0
        for line in self.access_log.read_text().splitlines():
            name, _, count = line.rpartition(" ")
            total += int(count) if name == path else 0
        return total

    def cpu_seconds(self) -> float:
        """CPU time of master and worker."""
        assert self._process is not None
        pids = [self._process.pid]
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids += [int(pid) for pid in children.read_text().split()]
        return sum(cpu_seconds(pid) for pid in pids)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, ended ones too, in seconds, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # the kernel's number for the CPU clock of another process
