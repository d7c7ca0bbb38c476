"""The demo: an origin, a scheduler, a seeder and four peers as processes; all fetch one file at once.

Run it with ``make demo`` (or ``python deploy/demo.py`` in an environment that has dragonet). It needs
nothing but the ``dragonet`` command and the standard library, keeps everything in one temporary folder,
ends every process it started, and prints where the bytes came from.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

MIB = 1 << 20
SOURCES = ("store", "peer", "seeder", "origin")
READY_SECONDS = 30.0
GET_SECONDS = 300.0


class DemoFailed(Exception):
    """Something did not go as it should; the message says what, for people."""


# --- the origin, a process of its own ---------------------------------------------------------------


class OriginHandler(BaseHTTPRequestHandler):
    """Serves one file with ranges and validators; /count tells how many bytes of bodies it sent."""

    protocol_version = "HTTP/1.1"
    wbufsize = 0
    file: Path
    sent = 0
    requests = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/count":
            with self.lock:
                told = json.dumps({"sent": OriginHandler.sent, "requests": OriginHandler.requests}).encode()
            self._head(200, len(told))
            self.wfile.write(told)
            return
        with self.lock:
            OriginHandler.requests += 1
        size = self.file.stat().st_size
        first, last, status = 0, size - 1, 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and "," not in wanted:
            begin, _, end = wanted[6:].partition("-")
            first, last, status = int(begin), min(int(end or last), last), 206
        if first > last:
            self._head(416, 0, ("Content-Range", f"bytes */{size}"))
            return
        extra = [("Content-Range", f"bytes {first}-{last}/{size}")] if status == 206 else []
        self._head(status, last - first + 1, ("ETag", '"demo-1"'), ("Accept-Ranges", "bytes"), *extra)
        self._body(first, last - first + 1)

    def _body(self, offset: int, count: int) -> None:
        with self.file.open("rb") as file:
            while count:
                done = os.sendfile(self.connection.fileno(), file.fileno(), offset, min(count, 4 * MIB))
                if done == 0:
                    break
                offset, count = offset + done, count - done
                with self.lock:
                    OriginHandler.sent += done

    def _head(self, status: int, length: int, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Nothing: the demo counts by itself."""


def serve_origin(file: Path, port: int) -> None:
    """The origin process; ends with SIGTERM."""
    OriginHandler.file = file
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with ThreadingHTTPServer(("127.0.0.1", port), OriginHandler) as server:
        server.serve_forever()


# --- processes --------------------------------------------------------------------------------------


@dataclass
class Process:
    """A process of the demo with its log."""

    name: str
    address: str
    log: Path
    popen: subprocess.Popen[bytes]

    def fail(self, what: str) -> DemoFailed:
        """An error that shows the end of the log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-12:]
        shown = "\n".join(f"    {line[:300]}" for line in lines) or "    (nothing)"
        return DemoFailed(f"{self.name} {what}. Its log ends with:\n{shown}")

    def wait_answering(self, path: str) -> None:
        """Wait until ``GET path`` answers 200."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if self.popen.poll() is not None:
                raise self.fail(f"ended with exit code {self.popen.returncode} while starting")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(self.address, path)[0] == 200:
                    return
            if time.monotonic() > deadline:
                raise self.fail(f"was not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.02)


class Demo:
    """Starts processes below one folder and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DRAGONET_")},
            "DRAGONET_CONFIG": "",
        }

    def start(self, name: str, command: Sequence[str], address: str) -> Process:
        """Start a process that listens on ``address``; it is not ready yet."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environ,
                cwd=self.folder,
            )
        process = Process(name, address, log, popen)
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End all processes that were started here, politely first."""
        for process in reversed(self.processes):
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.processes:
            try:
                process.popen.wait(15)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait(5)


def ask(address: str, path: str) -> tuple[int, bytes]:
    """``GET path``: status and body."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_addresses(count: int) -> list[str]:
    """Loopback addresses on which nobody listens."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{sock.getsockname()[1]}" for sock in socks]


def dragonet() -> list[str]:
    """The command: beside this Python, else on the PATH, else as a module."""
    beside = Path(sys.executable).with_name("dragonet")
    if beside.exists():
        return [str(beside)]
    found = shutil.which("dragonet")
    return [found] if found else [sys.executable, "-m", "peer.cli"]


# --- what the demo shows ----------------------------------------------------------------------------


def make_file(path: Path, size: int) -> str:
    """A file of random bytes; its SHA-256."""
    digest = hashlib.sha256()
    source = random.Random(2)
    with path.open("wb") as file:
        left = size
        while left:
            block = source.randbytes(min(left, 8 * MIB))
            file.write(block)
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def run(folder: Path, size: int, peers: int) -> None:
    """The whole demo. Raises DemoFailed."""
    content = folder / "origin" / "file.bin"
    content.parent.mkdir()
    say(f"making a file of {size / MIB:.0f} MiB")
    wanted = make_file(content, size)
    demo = Demo(folder)
    try:
        say(f"starting an HTTP origin, a scheduler, a seeder and {peers} peers")
        origin, sockets = start_all(demo, content, peers)
        say(f"all {peers} peers fetch the file at the same time")
        told = fetch_all(demo, f"http://{origin.address}/file.bin", sockets, wanted)
        counted = json.loads(ask(origin.address, "/count")[1])
    finally:
        demo.end()
    show(told, size, counted)
    if counted["sent"] != size:
        raise DemoFailed(f"the origin sent {counted['sent']} bytes for a content of {size}")


def start_all(demo: Demo, content: Path, peers: int) -> tuple[Process, list[Path]]:
    """Origin, scheduler, seeder, peers; returns when all are ready: the origin, and the peers' sockets."""
    command = dragonet()
    addresses = iter(free_addresses(3 + 2 * peers))
    address = next(addresses)
    serve = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--serve",
        str(content),
        "--port",
        port_of(address),
    ]
    origin = demo.start("origin", serve, address)
    address = next(addresses)
    scheduler = demo.start(
        "scheduler",
        [*command, "scheduler", "--listen", address, "--data-dir", str(demo.folder / "scheduler")],
        address,
    )
    origin.wait_answering("/count")
    scheduler.wait_answering("/readyz")
    common = ["--scheduler", f"http://{scheduler.address}"]
    address = next(addresses)
    data = str(demo.folder / "seeder")
    demo.start("seeder", [*command, "seeder", "--listen", address, *common, "--data-dir", data], address)
    sockets: list[Path] = []
    for number in range(1, peers + 1):
        name, address, gateway = f"peer-{number}", next(addresses), next(addresses)
        sockets.append(demo.folder / f"{name}.sock")
        demo.start(
            name,
            [*command, "peer", "--listen", address, "--gateway", gateway, *common,
             "--data-dir", str(demo.folder / name), "--socket", str(sockets[-1])],
            address,
        )  # fmt: skip
    for process in demo.processes[2:]:
        process.wait_answering("/readyz")
    return origin, sockets


def port_of(address: str) -> str:
    """The port of ``host:port``."""
    return address.rpartition(":")[2]


def fetch_all(demo: Demo, url: str, sockets: Sequence[Path], wanted: str) -> list[dict[str, object]]:
    """``dragonet get`` through every peer at once; what each told, checked. Raises DemoFailed."""
    outputs = [demo.folder / f"{path.stem}.out" for path in sockets]
    running = [
        subprocess.Popen(
            [*dragonet(), "get", url, "-o", str(output), "--socket", str(path), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=demo.environ,
            cwd=demo.folder,
        )
        for output, path in zip(outputs, sockets, strict=True)
    ]
    deadline = time.monotonic() + GET_SECONDS
    told: list[dict[str, object]] = []
    try:
        for number, (process, output) in enumerate(zip(running, outputs, strict=True), 1):
            try:
                out, err = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise DemoFailed(
                    f"dragonet get at peer {number} did not end in {GET_SECONDS:.0f} s"
                ) from None
            if process.returncode != 0:
                words = err.decode("utf-8", "replace").strip()
                raise DemoFailed(f"dragonet get at peer {number} ended with {process.returncode}: {words}")
            with output.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != wanted:
                raise DemoFailed(f"peer {number} wrote a file with SHA-256 {digest} instead of {wanted}")
            told.append(json.loads(out))
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return told


def show(told: Sequence[dict[str, object]], size: int, counted: dict[str, int]) -> None:
    """The table."""
    say("")
    say(f"{'':8} {'seconds':>8} " + " ".join(f"{'from ' + s:>12}" for s in SOURCES) + "   SHA-256")
    total = dict.fromkeys(SOURCES, 0)
    for number, one in enumerate(told, 1):
        sources = one["bytes"]
        assert isinstance(sources, dict)
        for source in SOURCES:
            total[source] += sources[source]
        cells = " ".join(f"{mib(sources[source]):>12}" for source in SOURCES)
        say(f"peer {number:<3} {float(str(one['seconds'])):8.2f} {cells}   right")
    say(f"{'all':8} {'':8} " + " ".join(f"{mib(total[source]):>12}" for source in SOURCES))
    say("")
    say(f"the origin sent {mib(counted['sent'])} in {counted['requests']} requests")
    say(f"origin bytes / content bytes = {counted['sent'] / size:.2f}")


def mib(count: int) -> str:
    """Bytes as MiB for people."""
    return f"{count / MIB:.1f} MiB" if count else "–"


def say(text: str) -> None:
    """A line for the person watching."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def work_folder(keep: bool) -> Iterator[Path]:
    """A temporary folder that goes away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dragonet-demo-"))
    try:
        yield folder
    finally:
        if keep:
            say(f"everything is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="Shows one origin read reaching several peers.")
    parser.add_argument("--mib", type=int, default=256, help="size of the file in MiB (256)")
    parser.add_argument("--peers", type=int, default=4, help="number of peers (4)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve_origin(options.serve, options.port)
        return 0
    signal.signal(signal.SIGTERM, _stop)
    with work_folder(options.keep) as folder:
        try:
            run(folder, options.mib * MIB, options.peers)
        except DemoFailed as error:
            sys.stderr.write(f"the demo failed: {error}\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("the demo was interrupted; all its processes are ended\n")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
