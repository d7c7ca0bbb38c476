"""The ends of the range: tiny and odd sizes, odd URLs, and credentials that must never be seen."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from tests.integration.cluster import Cluster
from tests.integration.net import request
from tests.integration.origins import KIB, MIB, PIECE, Origin, random_content
from tests.integration.processes import around

CONTENT = random_content(2 * PIECE + 1, seed=21)


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
@pytest.mark.parametrize(
    "length", [0, 1, 64 * KIB, 64 * KIB + 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1]
)
def test_lengths(swarm: Cluster, origin: Origin, length: int, ranges: str) -> None:
    content = CONTENT[:length]
    url = origin.add("/file", content, ranges=ranges)
    for result in swarm.get_all(url, swarm.peers):
        result.check(content)
    again = swarm.get(url, swarm.peers[0]).check(content)
    assert again.sources["store"] == length
    assert origin.count("/file").body == length
    stat = swarm.stat(url, swarm.peers[0])
    assert stat["length"] == length


def test_an_empty_file_survives_a_kill(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    url = origin.add("/empty", b"")
    swarm.get(url, peer).check(b"")
    asked = origin.requests
    peer.kill()
    peer.restart()
    swarm.get(url, peer).check(b"")
    assert origin.requests == asked


@pytest.mark.parametrize(
    "path",
    [
        "/файл ☃ 文件.bin",
        "/a b/c%20d/e+f",
        "/file?q=ключ&empty=&=x&a=1&a=2",
        "/semi;colon,comma'quote(paren)~!$*",
        "/%2e%2e/%2F..%2f/x",
        "/emoji/👩\u200d🚀.tar",
    ],
)
def test_odd_urls(swarm: Cluster, origin: Origin, path: str) -> None:
    wire = quote(path, safe="!#$%&'()*+,/:;=?@[]~")
    origin.add(wire, CONTENT)
    first = swarm.get(origin.url + path, swarm.peers[0]).check(CONTENT)
    assert origin.count(wire).body == len(CONTENT)
    same = swarm.get(origin.url + wire, swarm.peers[0]).check(CONTENT)
    assert same.task_id == first.task_id, "written out or percent-encoded, it is the same content"


def test_fragment_and_case_of_the_host_do_not_matter(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    port = origin.address.rpartition(":")[2]
    origin.add("/file", CONTENT)
    first = swarm.get(f"http://localhost:{port}/file", peer).check(CONTENT)
    same = swarm.get(f"HTTP://LOCALHOST:{port}/file#part", peer).check(CONTENT)
    assert same.task_id == first.task_id


def test_long_urls(swarm: Cluster, origin: Origin) -> None:
    peer = swarm.peers[0]
    path = "/" + "x" * 12_000 + "?y=" + "z" * 3000
    url = origin.add(path, CONTENT)
    task_id = swarm.get(url, peer).check(CONTENT).task_id
    assert swarm.stat(task_id, peer)["length"] == len(CONTENT)
    too_long = swarm.get(origin.url + "/" + "x" * 20_000, peer)
    too_long.check_failed("characters", code=2)
    assert len(too_long.stderr) < 1000, "a long URL is not repeated in full"


@pytest.mark.parametrize(
    ("url", "word"),
    [("http://", "host"), ("//x/y", "scheme"), ("http://x:99999/", "port"), ("http://[::1/", ""), ("", "")],
)
def test_what_is_no_url(swarm: Cluster, url: str, word: str) -> None:
    swarm.get(url, swarm.peers[0]).check_failed(word, code=2)


USER, PASSWORD, TOKEN, HEADER = "alice-7731", "pass-wört-9917", "tok-5512-abc", "hdr-3344-def"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, quote(PASSWORD), TOKEN, HEADER, BASIC)


def test_credentials_are_never_logged_listed_or_measured(swarm: Cluster, origin: Origin) -> None:
    one, two = swarm.peers
    assert swarm.scheduler is not None
    origin.add(f"/file?access_token={TOKEN}&x=1", CONTENT, authorization=f"Basic {BASIC}")
    origin.add(f"/wrong?access_token={TOKEN}", CONTENT, status=403)
    origin.add(f"/cut?access_token={TOKEN}", CONTENT, cut_after=10, cuts=-1, ranges="ignore")
    private = f"http://{USER}:{quote(PASSWORD)}@{origin.address}"
    header = ["--header", f"X-Secret: {HEADER}"]
    results = [
        swarm.get(f"{private}/file?access_token={TOKEN}&x=1", one, *header).check(CONTENT),
        swarm.get(f"{private}/file?access_token={TOKEN}&x=1", two, *header).check(CONTENT),
        swarm.get(f"{private}/wrong?access_token={TOKEN}", one, *header).check_failed("403"),
        swarm.get(f"{private}/cut?access_token={TOKEN}", one, *header).check_failed(),
        swarm.get(f"http://{USER}:{PASSWORD}@:bad:url/", one, *header).check_failed(code=2),
    ]
    seen = {f"log of {daemon.name}": daemon.log for daemon in swarm.daemons}
    for number, result in enumerate(results):
        seen[f"get {number}"] = result.stdout + result.stderr
    for daemon in swarm.daemons:
        seen[f"metrics of {daemon.name}"] = request(daemon.address, "/metrics").text
    for path in ("/v1/tasks", "/v1/hosts", f"/v1/tasks/{results[0].task_id}"):
        seen[path] = request(swarm.scheduler.address, path).text
    task_id = results[0].task_id
    for arguments in (["ls"], ["ls", "--json"], ["stat", task_id], ["stat", task_id, "--json"]):
        done = swarm.run(*arguments, "--socket", str(one.socket))
        assert done.returncode == 0, done.stderr
        seen[" ".join(arguments)] = done.stdout + done.stderr
    for place, text in seen.items():
        assert "Traceback" not in text, place
        for secret in SECRETS:
            assert secret not in text, f"{secret!r} is in {place}:\n{around(text, secret, after=300)}"


def test_content_of_one_caller_is_not_given_to_another(swarm: Cluster, origin: Origin) -> None:
    one, two = swarm.peers
    url = origin.add("/file", CONTENT, authorization=f"Basic {BASIC}")
    host = origin.address
    swarm.get(f"http://{USER}:{quote(PASSWORD)}@{host}/file", one).check(CONTENT)
    for peer in (one, two):
        swarm.get(url, peer).check_failed("401")
        swarm.get(f"http://{USER}:guess@{host}/file", peer).check_failed("401")
        swarm.get(f"http://{USER}:guess@{host}/file", peer, "--no-origin").check_failed()
    same = swarm.get(f"http://{USER}:{quote(PASSWORD)}@{host}/file", two).check(CONTENT)
    assert same.sources["origin"] == 0, "who has the same credentials gets it from the swarm"


def test_many_small_files_at_once(swarm: Cluster, origin: Origin) -> None:
    contents = [random_content(1 * KIB + n, seed=n) for n in range(12)]
    urls = [origin.add(f"/small/{n}", content) for n, content in enumerate(contents)]
    for start in range(0, len(urls), 6):
        running = [
            (swarm.start_get(url, peer), content)
            for url, content in zip(urls[start : start + 6], contents[start : start + 6], strict=True)
            for peer in swarm.peers
        ]
        for one, content in running:
            one.wait().check(content)
    assert origin.requests <= 2 * len(urls)
    assert sum(origin.count(f"/small/{n}").body for n in range(12)) == sum(map(len, contents))


def test_a_file_of_many_pieces_with_a_short_last_one(swarm: Cluster, origin: Origin) -> None:
    content = random_content(33 * MIB + 7, seed=22)
    url = origin.add("/file", content)
    for result in swarm.get_all(url, swarm.peers):
        result.check(content)
    assert origin.count("/file").body == len(content)
