"""How fast the HTTP server is, beside nginx in the same run. Needs wrk and nginx.

    python tests/bench/http_server.py [--rounds 3] [--seconds 3]

Small: 16 bytes, wrk with 1 thread and 16 keep-alive connections. Large: 4 MiB, 8 connections, from a
memoryview, from a file by sendfile, and from a file by nginx. The server runs in one process, on one core;
figures are medians over the rounds, which alternate between the contestants. The columns to the right
divide by the server's own processor time, which holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGE = 4 * 1024 * 1024
SMALL = b"0123456789abcdef"

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
"""


def serve(folder: str) -> None:
    """The child process: serves until its standard input is closed."""
    sys.path.insert(0, str(ROOT))
    import trio

    from shared.http.messages import FileBody, Request, Response
    from shared.http.router import Router
    from shared.http.server import HttpServer, bound_address, listen_tcp

    large = memoryview(bytes(LARGE))
    fd = os.open(f"{folder}/large", os.O_RDONLY)

    async def small(request: Request) -> Response:
        return Response(200, SMALL, content_type="application/octet-stream")

    async def memory(request: Request) -> Response:
        return Response(200, large)

    async def file(request: Request) -> Response:
        return Response(200, FileBody(fd, 0, LARGE))

    async def main() -> None:
        router = Router()
        router.add("GET", "/v1/tasks/{id}/small", small)
        router.add("GET", "/v1/tasks/{id}/memory", memory)
        router.add("GET", "/v1/tasks/{id}/file", file)
        server = HttpServer(router, name="bench")
        async with trio.open_nursery() as nursery:
            listeners = await listen_tcp("127.0.0.1:0")
            await nursery.start(server.serve, listeners)
            print(bound_address(listeners[0]), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
            await server.drain(1)

    trio.run(main)


@contextmanager
def our_server(folder: Path) -> Iterator[tuple[str, int]]:
    """The address and the process id of our server."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
        process.stdin.close()
        process.wait(10)


@contextmanager
def nginx(folder: Path) -> Iterator[tuple[str, int]]:
    """The address and the worker's process id of an nginx that serves the same files."""
    import socket
    import time

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    with subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-c", str(config)]) as process:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield f"127.0.0.1:{port}", int(children[0])
        process.terminate()
        process.wait(10)


def cpu_seconds(pid: int) -> float:
    """Processor time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(url: str, connections: int, seconds: int) -> tuple[float, float]:
    """(requests per second, bytes per second) as wrk counts them."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(output)
    requests = float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1])  # type: ignore[index]
    match = re.search(r"Transfer/sec:\s+([0-9.]+)([KMG]?)B", output)
    assert match is not None
    return requests, float(match[1]) * 1024 ** " KMG".index(match[2] or " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"this measurement needs {tool}: install it first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "large").write_bytes(bytes(LARGE))
        (folder / "small").write_bytes(SMALL)
        results: dict[str, list[tuple[float, float, float]]] = {}
        with our_server(folder) as ours, nginx(folder) as theirs:
            cases = [
                ("small, dragonet", ours, "/v1/tasks/abc/small", 16),
                ("small, nginx", theirs, "/small", 16),
                ("4 MiB, dragonet memoryview", ours, "/v1/tasks/abc/memory", 8),
                ("4 MiB, dragonet sendfile", ours, "/v1/tasks/abc/file", 8),
                ("4 MiB, nginx sendfile", theirs, "/large", 8),
            ]
            for _ in range(options.rounds):
                for case, (address, pid), path, connections in cases:
                    before = cpu_seconds(pid)
                    requests, rate = wrk(f"http://{address}{path}", connections, options.seconds)
                    load = (cpu_seconds(pid) - before) / options.seconds
                    results.setdefault(case, []).append((requests, rate, load))
        print(
            f"{'':28} {'requests/s':>11} {'GiB/s':>7} {'CPU':>6} {'requests/s':>14} {'GiB/s':>7} (of a full core)"
        )
        for case, figures in results.items():
            requests, rate, load = (statistics.median(column) for column in zip(*figures, strict=True))
            load, rate = max(load, 0.01), rate / 1024**3
            figures_of_a_core = f"{requests / load:14.0f} {rate / load:7.2f}"
            print(f"{case:28} {requests:11.0f} {rate:7.2f} {load:6.0%} {figures_of_a_core}")


if __name__ == "__main__":
    main()
