"""``dragonet get -r`` with real processes: nginx, folders on disk, and listings that mean harm."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, GetResult, Peer
from tests.integration.nginx import Nginx
from tests.integration.origins import MIB, Gate, Origin, random_content
from tests.programs import require_program

HTML = {"Content-Type": "text/html"}
SMALL = {f"d{n % 5}/{n} ä.bin": random_content(n * 101, seed=n) for n in range(300)} | {"empty": b""}
LARGE = {f"large{n}.bin": random_content(3 * MIB + n, seed=1000 + n) for n in range(3)}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def get(cluster: Cluster, url: str, peer: Peer | None, *flags: str, output: Path | None = None) -> GetResult:
    return cluster.get(url, peer, "-r", *flags, output=output)


def check(result: GetResult, files: dict[str, bytes], code: int = 0) -> GetResult:
    """That exactly these files are there, and are told of."""
    assert result.code == code, result.stderr
    there = found(result.output)
    assert there.keys() == files.keys()
    assert [name for name in files if there[name] != files[name]] == []
    assert result.json["files"] == len(files)
    assert result.json["length"] == sum(map(len, files.values()))
    return result


def failures(result: GetResult) -> dict[str, str]:
    return {each["name"]: each["error"] for each in result.json["failed"]}


def index(*names: str) -> bytes:
    return "".join(f'<a href="{name}">x</a>\n' for name in ("../", *names)).encode()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = require_program("nginx")
    with Nginx(tmp_path_factory.mktemp("nginx") / "nginx", program) as nginx:
        yield nginx


# --- what comes ---------------------------------------------------------------------------------------


def test_two_peers_and_one_read_of_each_file(swarm: Cluster, nginx: Nginx) -> None:
    files = SMALL | LARGE
    fill(nginx.root / "two", files)
    results = [swarm.start_get(f"{nginx.url}/two", peer, "-r") for peer in swarm.peers]
    for running in results:
        check(running.wait(), files)
    for name, content in files.items():
        # as it stands in the log
        logged = "".join(chr(b) if b < 0x80 else f"\\x{b:02X}" for b in f"/two/{name}".encode())
        assert nginx.body_sent(logged) == len(content), name
    again = check(get(swarm, f"{nginx.url}/two/", swarm.peers[0]), files)
    assert again.sources["origin"] == again.sources["seeder"] == again.sources["peer"] == 0
    assert again.sources["store"] > 0


def test_without_a_daemon(cluster: Cluster, nginx: Nginx) -> None:
    fill(nginx.root / "alone", SMALL | LARGE)
    check(get(cluster, f"{nginx.url}/alone", None), SMALL | LARGE)


@pytest.mark.parametrize("daemon", [True, False])
def test_a_folder_on_disk(cluster: Cluster, tmp_path: Path, daemon: bool) -> None:
    fill(tmp_path / "here", SMALL | LARGE)
    (tmp_path / "secret").write_bytes(b"not yours")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "secret")
    environ = {"DRAGONET_SOURCE_FILE_ROOTS": str(tmp_path / "here")}
    peer = cluster.start_up(environ=environ)[0] if daemon else None
    running = cluster.start_get(f"file://{tmp_path}/here", peer, "-r", environ=environ)
    check(running.wait(), SMALL | LARGE)


def test_part_of_a_folder(swarm: Cluster, nginx: Nginx) -> None:
    fill(
        nginx.root / "part",
        {"a.bin": b"1", "b.txt": b"2", "x/c.bin": b"3", "x/tmp/d.bin": b"4", "x/y/z/e.bin": b"5"},
    )
    url, peer = f"{nginx.url}/part/", swarm.peers[0]
    assert set(found(get(swarm, url, peer, "--include", "*.bin", "--exclude", "tmp").output)) == {
        "a.bin",
        "x/c.bin",
        "x/y/z/e.bin",
    }
    assert set(found(get(swarm, url, peer, "--level", "1").output)) == {"a.bin", "b.txt"}
    assert set(found(get(swarm, url, peer, "--include", "x/**", "--level", "2").output)) == {"x/c.bin"}
    assert nginx.body_sent("/part/x/tmp/d.bin") == 0


def test_listing(swarm: Cluster, nginx: Nginx) -> None:
    fill(nginx.root / "list", {"a b": b"1", "x/c": b"3"})
    url = f"{nginx.url}/list"
    done = swarm.run("get", "-r", "--list", url, "--socket", str(swarm.peers[0].socket))
    assert (done.returncode, done.stdout) == (0, f"{url}/a%20b\n{url}/x/c\n")
    told = swarm.run("get", "-r", "--list", "--json", url, "--socket", str(swarm.peers[0].socket))
    assert json.loads(told.stdout) == [
        {"url": f"{url}/a%20b", "size": None},
        {"url": f"{url}/x/c", "size": None},
    ]
    assert nginx.body_sent("/list/a b") == 0


def test_what_is_there_already_is_replaced_and_nothing_else_touched(
    swarm: Cluster, nginx: Nginx, tmp_path: Path
) -> None:
    fill(nginx.root / "over", {"a": b"new", "sub/b": b"new", "link": b"new", "away/c": b"new", "dir": b"new"})
    target = tmp_path / "target"
    fill(target, {"a": b"old and longer", "other": b"mine", "sub/other": b"mine", "dir/x": b"mine"})
    outside = tmp_path / "outside"
    fill(outside, {"file": b"mine", "c": b"mine"})
    (target / "link").symlink_to(outside / "file")
    (target / "away").symlink_to(outside)
    result = get(swarm, f"{nginx.url}/over/", swarm.peers[0], output=target)
    assert result.code == 1
    assert set(failures(result)) == {"away/c", "dir"}
    assert "symbolic link" in failures(result)["away/c"]
    assert found(outside) == {"file": b"mine", "c": b"mine"}
    assert {name: content for name, content in found(target).items() if not name.startswith("away")} == {
        "a": b"new",
        "sub/b": b"new",
        "link": b"new",
        "other": b"mine",
        "sub/other": b"mine",
        "dir/x": b"mine",
    }


# --- what fails ---------------------------------------------------------------------------------------


def test_files_that_cannot_be_had(make_cluster: Callable[..., Cluster], origin: Origin) -> None:
    swarm = make_cluster(environ={"DRAGONET_SCHEDULER_FAILURE_TTL": "0"}).start(peers=2)
    origin.add("/top/", index("a", "gone", "forbidden", "sub/", "z"), headers=HTML)
    for name in ("a", "z", "sub/b"):
        origin.add(f"/top/{name}", name.encode())
    origin.add("/top/sub/", index("b", "../c", "locked/"), headers=HTML)
    origin.add("/top/sub/locked/", status=403)
    origin.add("/top/forbidden", status=403)
    result = check(
        get(swarm, origin.url + "/top/", swarm.peers[0]), {"a": b"a", "z": b"z", "sub/b": b"sub/b"}, code=1
    )
    told = failures(result)
    assert set(told) == {"gone", "forbidden", "sub/locked/"}
    assert "404" in told["gone"]
    assert "403" in told["forbidden"]
    assert "the folder cannot be listed" in told["sub/locked/"]
    assert "3 of the folder's files could not be had" in result.stderr
    # what can be had by now comes, though the folder is not read again
    origin.add("/top/gone", b"back")
    result = get(swarm, origin.url + "/top/", swarm.peers[1])
    assert (result.output / "gone").read_bytes() == b"back"
    assert origin.count("/top/a").requests == 1


@pytest.mark.parametrize("daemon", [True, False])
def test_what_is_no_folder(swarm: Cluster, origin: Origin, daemon: bool) -> None:
    peer = swarm.peers[0] if daemon else None
    origin.add("/file", b"content")
    origin.add("/zip/", b"content", headers={"Content-Type": "application/zip"})
    for path, words in (("/file", "leave -r out"), ("/zip", "cannot be listed"), ("/nothing/", "404")):
        result = get(swarm, origin.url + path, peer)
        assert result.code == 1
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert found(result.output) == {}


def test_wrong_usage(cluster: Cluster, tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/"
    (tmp_path / "file").touch()
    for flags, words in (
        (("-r", "-o", "x", "--digest", "sha256:" + "0" * 64), "--digest"),
        (("-r", "-o", "x", "--range", "0-1"), "--range"),
        (("-r",), "-o"),
        (("-o", "x", "--include", "*"), "-r"),
        (("-o", "x", "--list"), "-r"),
        (("-o", "x", "--level", "0"), "-r"),
        (("-r", "-o", "x", "--level=-1"), "level"),
        (("-r", "-o", "x", "--include", ""), "glob"),
        (("-r", "-o", str(tmp_path / "file")), "not a folder"),
    ):
        done = cluster.run("get", url, *flags)
        assert done.returncode == 2, (flags, done.stderr)
        assert words in done.stderr, (flags, done.stderr)


def test_no_origin_header_tag_and_timeout(swarm: Cluster, origin: Origin) -> None:
    origin.add("/top/", index("a"), headers=HTML, authorization="Bearer x")
    origin.add("/top/a", b"1", authorization="Bearer x")
    url, (peer, other) = origin.url + "/top/", swarm.peers
    header = ("--header", "Authorization: Bearer x", "--tag", "t")
    assert get(swarm, url, peer, *header, "--no-origin").code == 1
    assert origin.requests == 0
    assert get(swarm, url, peer).code == 1
    check(get(swarm, url, peer, *header), {"a": b"1"})
    # who shows no credentials, and who shows others, gets nothing
    for flags in ((), ("--header", "Authorization: Bearer y", "--tag", "t")):
        assert get(swarm, url, other, "--no-origin", *flags).code == 1
    gate = Gate()
    origin.add("/slow/", index("a"), headers=HTML)
    origin.add("/slow/a", b"1", answer_gate=gate)
    result = get(swarm, origin.url + "/slow/", peer, "--timeout", "1")
    gate.open()
    assert result.code == 1
    assert "--timeout" in result.stderr


def test_an_interrupted_command_leaves_no_half_file(swarm: Cluster, origin: Origin) -> None:
    gate = Gate(MIB)
    origin.add("/top/", index("a", "large"), headers=HTML)
    origin.add("/top/a", b"1")
    origin.add("/top/large", random_content(3 * MIB), gate=gate)
    running = swarm.start_get(origin.url + "/top/", swarm.peers[0], "-r")
    gate.wait_reached()
    running.interrupt()
    result = running.wait()
    gate.open()
    assert result.code == 130
    assert set(found(result.output)) <= {"a"}


def test_an_origin_that_changes_is_read_again(make_cluster: Callable[..., Cluster], origin: Origin) -> None:
    cluster = make_cluster(environ={"DRAGONET_SOURCE_REVALIDATE": "*=0s"})
    peer, _ = cluster.start_up()
    origin.add("/top/", index("a"), headers=HTML)
    origin.add("/top/a", b"1")
    origin.add("/top/b", b"2")
    check(get(cluster, origin.url + "/top/", peer), {"a": b"1"})
    origin.change("/top/", content=index("a", "b"), etag='"v2"')
    check(get(cluster, origin.url + "/top/", peer), {"a": b"1", "b": b"2"})


# --- listings that mean harm --------------------------------------------------------------------------

EVIL = (
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "//127.0.0.2/x",
    "%2e%2e",
    "%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cx",
    "a%00b",
    "a%0ab",
    "%1b[31m",
    "x" * 300,
    "%2f",
    "good",
    "./good",
    "%67ood",
    "good/",
)


@pytest.mark.parametrize("daemon", [True, False])
def test_names_that_mean_harm(swarm: Cluster, origin: Origin, daemon: bool) -> None:
    origin.add("/top/", index(*EVIL), headers=HTML)
    origin.add("/top/good/", index("below"), headers=HTML)
    origin.add("/top/good", b"fine")
    origin.add("/top/good/below", b"no")
    result = get(swarm, origin.url + "/top/", swarm.peers[0] if daemon else None)
    assert result.code == 1
    assert found(result.output.parent) == {f"{result.output.name}/good": b"fine"}
    told = failures(result)
    assert len(told) == 10, told
    assert all(name.isprintable() for name in told)
    assert sum("not safe" in words for words in told.values()) == 8
    assert "another one of the folder" in told["good"] or "folder that is a file" in told["good/below"]


class Endless(BaseHTTPRequestHandler):
    """Folders in folders for ever, and a page that never ends."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if self.path.startswith("/page/"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            line = index("again") * 100
            while True:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        body = index("again/", "file") if self.path.endswith("/") else b"1"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            return  # whoever asked has had enough

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def endless() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_folders_and_pages_without_end(swarm: Cluster) -> None:
    peer = swarm.peers[0]
    with endless() as url:
        assert len(found(get(swarm, url, peer).output)) == 5
        assert len(found(get(swarm, url, peer, "--level", "0").output)) == 100
        result = get(swarm, f"{url}/page/", peer)
    assert result.code == 1
    assert "longer than 16 MiB" in result.stderr
    assert os.listdir(result.output) == []
