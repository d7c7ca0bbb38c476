"""Image pulls through the gateways of real processes: from docker-registry, and from one that misbehaves."""

from __future__ import annotations

import http.client
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.fake_registry import FakeRegistry, digest_of
from tests.integration.net import Answer, connect, request, wait_until
from tests.integration.origins import MIB, Gate, random_content
from tests.programs import require_program
from tests.registry import MANIFEST, DockerRegistry

BROKEN = (http.client.IncompleteRead, ConnectionResetError)
"""What a client sees of an answer that breaks off."""
ALLOWED = {"DRAGONET_REGISTRY_ALLOW": "127.0.0.1:*"}
LAYERS = tuple(
    random_content(length, seed) for seed, length in enumerate((3 * MIB + 5, 700_000, 1), start=400)
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A real registry without login."""
    folder = tmp_path_factory.mktemp("registry")
    with DockerRegistry(folder, require_program("docker-registry")) as running:
        yield running


@pytest.fixture(scope="module")
def standing(registry: DockerRegistry) -> Iterator[Cluster]:
    """A scheduler, a seeder and two peers that may pull from it."""
    cluster = Cluster(environ={**ALLOWED, "DRAGONET_REGISTRY_DEFAULT": registry.name})
    try:
        yield cluster.start(peers=2)
    finally:
        problems = cluster.close()
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture
def make_registry() -> Iterator[Callable[[], FakeRegistry]]:
    """Makes registries that misbehave."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(FakeRegistry())


@pytest.fixture
def fake(make_registry: Callable[[], FakeRegistry]) -> FakeRegistry:
    """One of them."""
    return make_registry()


def up(make_cluster: Callable[..., Cluster], **settings: str) -> Peer:
    """``dragonet up`` with settings of its own."""
    return make_cluster(environ={**ALLOWED, **settings}).start_up()[0]


def ask(peer: Peer, path: str, method: str = "GET", registry: str = "", **headers: str) -> Answer:
    """A request to a gateway, as containerd makes them where ``registry`` is named."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"{path}?ns={registry}" if registry else path
    return request(peer.gateway, path, method, headers=named, timeout=60)


def code(answer: Answer) -> str:
    """The specification's code in an error."""
    [error] = answer.json()["errors"]
    return str(error["code"])


def same(head: Answer, whole: Answer) -> None:
    """That HEAD and GET tell the same."""
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
    assert head.body == b""


# --- docker-registry -----------------------------------------------------------------------------------------


def test_two_machines_pull_as_containerd_does(swarm: Cluster, registry: DockerRegistry) -> None:
    digest, manifest = registry.push_image("two/machines", "v1", *LAYERS)

    def pull(peer: Peer) -> None:
        head = ask(peer, "/v2/two/machines/manifests/v1", "HEAD", registry.name)
        assert head.status == 200
        assert head.headers["docker-content-digest"] == digest
        assert head.headers["content-length"] == str(len(manifest))
        assert head.headers["content-type"] == MANIFEST
        assert head.headers["oci-namespace"] == registry.name
        whole = ask(peer, f"/v2/two/machines/manifests/{digest}", registry=registry.name)
        assert whole.body == manifest
        with ThreadPoolExecutor(3) as pool:
            blobs = pool.map(
                lambda layer: ask(peer, f"/v2/two/machines/blobs/{digest_of(layer)}", registry=registry.name),
                LAYERS,
            )
            for layer, blob in zip(LAYERS, blobs, strict=True):
                assert blob.status == 200
                assert blob.body == layer

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(pull, swarm.peers))
    assert registry.gets(f"/v2/two/machines/manifests/{digest}") == 1
    assert registry.log.count('"HEAD /v2/two/machines/manifests/v1 ') == 1
    for layer in LAYERS:
        assert registry.gets(f"/v2/two/machines/blobs/{digest_of(layer)}") == 1


def test_skopeos_way_and_dockers_way(swarm: Cluster, registry: DockerRegistry) -> None:
    digest, manifest = registry.push_image("ways", "v1", LAYERS[1])
    peer = swarm.peers[0]
    assert ask(peer, "/v2/").json() == {}
    for place in (f"{registry.name}/ways", f"127.0.0.1_{registry.port}/ways", "ways"):
        by_tag = ask(peer, f"/v2/{place}/manifests/v1")
        assert by_tag.body == manifest
        assert "oci-namespace" not in by_tag.headers
        assert ask(peer, f"/v2/{place}/manifests/{digest}").body == manifest
        assert ask(peer, f"/v2/{place}/blobs/{digest_of(LAYERS[1])}").body == LAYERS[1]
        assert ask(peer, f"/v2/{place}/tags/list").json() == {"name": "ways", "tags": ["v1"]}


def test_skopeo_itself(swarm: Cluster, registry: DockerRegistry, tmp_path: Path) -> None:
    skopeo = require_program("skopeo")
    _, manifest = registry.push_image("skopeo/app", "v1", *LAYERS)
    image = f"docker://{swarm.peers[0].gateway}/127.0.0.1_{registry.port}/skopeo/app:v1"
    done = subprocess.run(
        [skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", image, f"dir:{tmp_path / 'image'}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "image/manifest.json").read_bytes() == manifest
    for layer in LAYERS:
        assert (tmp_path / "image" / digest_of(layer).removeprefix("sha256:")).read_bytes() == layer


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("500-1499", 500, 1500),
        ("500-", 500, None),
        ("-500", -500, None),
        ("3145000-9999999", 3145000, None),
        ("0-0", 0, 1),
    ],
)
def test_ranges(swarm: Cluster, registry: DockerRegistry, wanted: str, start: int, stop: int | None) -> None:
    layer = LAYERS[0]
    registry.push_image("ranges", "v1", layer)
    path = f"/v2/ranges/blobs/{digest_of(layer)}"
    answer = ask(swarm.peers[0], path, range=f"bytes={wanted}")
    first, last, _ = slice(start, stop).indices(len(layer))
    assert answer.status == 206
    assert answer.body == layer[start:stop]
    assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{len(layer)}"


@pytest.mark.parametrize("wanted", ["3145733-", "9999999-99999999", "500-0", "-0"])
def test_ranges_that_cannot_be(swarm: Cluster, registry: DockerRegistry, wanted: str) -> None:
    registry.push_image("ranges", "v1", LAYERS[0])
    answer = ask(swarm.peers[1], f"/v2/ranges/blobs/{digest_of(LAYERS[0])}", range=f"bytes={wanted}")
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(LAYERS[0])}"
    assert code(answer) == "RANGE_INVALID"


def test_head_tells_what_get_does(swarm: Cluster, registry: DockerRegistry) -> None:
    digest, _ = registry.push_image("heads", "v1", LAYERS[1])
    peer = swarm.peers[0]
    for path in ("manifests/v1", f"manifests/{digest}", f"blobs/{digest_of(LAYERS[1])}"):
        before = ask(peer, f"/v2/heads/{path}", "HEAD", registry.name)
        ask(peer, f"/v2/heads/{path}", registry=registry.name)
        head = ask(peer, f"/v2/heads/{path}", "HEAD", registry.name)
        same(head, ask(peer, f"/v2/heads/{path}", registry=registry.name))
        assert head.headers["cache-status"] == "dragonet; hit"
        assert {**before.headers, "date": "", "cache-status": ""} == {
            **head.headers,
            "date": "",
            "cache-status": "",
        }
        known = ask(peer, f"/v2/heads/{path}", registry=registry.name, if_none_match=head.headers["etag"])
        assert (known.status, known.body) == (304, b"")


def test_what_is_not_there(swarm: Cluster, registry: DockerRegistry) -> None:
    registry.push_image("there", "v1", LAYERS[2])
    peer = swarm.peers[0]
    nothing = digest_of(b"nothing")
    for path, expected in (
        ("/v2/there/manifests/v2", "MANIFEST_UNKNOWN"),
        (f"/v2/there/manifests/{nothing}", "MANIFEST_UNKNOWN"),
        (f"/v2/there/blobs/{nothing}", "BLOB_UNKNOWN"),
        ("/v2/not/there/manifests/v1", "MANIFEST_UNKNOWN"),
    ):
        answer = ask(peer, path)
        assert (answer.status, code(answer)) == (404, expected)
        assert ask(peer, path, "HEAD").status == 404


def test_what_is_refused(swarm: Cluster, registry: DockerRegistry) -> None:
    peer = swarm.peers[0]
    before = registry.log
    for path, status, expected, headers in (
        ("/v2/team/app/manifests/v1?ns=other.example", 403, "DENIED", {}),
        ("/v2/other.example/team/app/manifests/v1", 403, "DENIED", {}),
        ("/v2/a/../b/manifests/v1", 400, "NAME_INVALID", {}),
        ("/v2/a%2f..%2fb/manifests/v1", 400, "NAME_INVALID", {}),
        ("/v2/a/blobs/sha256:12", 400, "DIGEST_INVALID", {}),
        ("/v2/a/manifests/v1?ns=http://127.0.0.1:1", 400, "NAME_INVALID", {}),
        ("/v2/a/manifests/v1", 421, "DENIED", {"host": "rebound.example"}),
        ("/v2/a/manifests/v1", 508, "DENIED", {"via": "1.1 dragonet"}),
    ):
        answer = ask(peer, path, **headers)
        assert (answer.status, code(answer)) == (status, expected), path
    assert code(ask(peer, "/v2/a/blobs/uploads/", "POST")) == "UNSUPPORTED"
    assert registry.log == before


def test_a_client_that_closes_early_is_no_failure(swarm: Cluster, registry: DockerRegistry) -> None:
    """containerd 2.1 asks for bytes=N- and closes when it has enough."""
    layer = random_content(5 * MIB, seed=410)
    registry.push_image("early", "v1", layer)
    peer = swarm.peers[1]
    path = f"/v2/early/blobs/{digest_of(layer)}"
    hangups = peer.metrics().value("dragonet_registry_hangups_total")
    with closing(http.client.HTTPConnection(peer.gateway, timeout=30)) as connection:
        connection.request("GET", path, headers={"Range": "bytes=1000-"})
        answer = connection.getresponse()
        assert answer.status == 206
        assert answer.read(50_000) == layer[1000:51_000]
        assert connection.sock is not None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(
        lambda: peer.metrics().value("dragonet_registry_hangups_total") == hangups + 1, "it is counted so"
    )
    assert peer.metrics().value("dragonet_registry_broken_total") == 0
    assert ask(peer, path).body == layer


def test_requests_that_do_not_wait_for_answers(swarm: Cluster, registry: DockerRegistry) -> None:
    """Several on one connection at once, of what nobody holds yet."""
    layers = [random_content(600_000, seed=415 + number) for number in range(3)]
    registry.push_image("pipelined", "v1", *layers)
    peer = swarm.peers[0]
    with closing(connect(peer.gateway, 60)) as sock:
        lines = [
            f"GET /v2/pipelined/blobs/{digest_of(layer)} HTTP/1.1\r\nHost: localhost\r\n" for layer in layers
        ]
        sock.sendall("\r\n".join([*lines, ""]).encode())
        for layer in layers:
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            assert answer.status == 200
            assert answer.read() == layer


def test_many_clients_of_one_cold_blob(swarm: Cluster, registry: DockerRegistry) -> None:
    layer = random_content(4 * MIB, seed=418)
    registry.push_image("many", "v1", layer)
    path = f"/v2/many/blobs/{digest_of(layer)}"
    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(ask, swarm.peers[number % 2], path) for number in range(24)]
        assert all(answer.result().body == layer for answer in answers)
    assert registry.gets(path) == 1


def test_metrics_and_log(swarm: Cluster, registry: DockerRegistry) -> None:
    digest, _ = registry.push_image("told", "v1", LAYERS[1])
    peer = swarm.peers[0]
    secret = "Bearer c2VjcmV0IHdvcmRz"
    for _ in range(2):
        ask(peer, f"/v2/told/blobs/{digest_of(LAYERS[1])}", registry=registry.name, authorization=secret)
    metrics = peer.metrics()
    served = {"registry": "127.0.0.1:*", "method": "GET", "kind": "blobs", "code": "200"}
    assert metrics.value("dragonet_registry_requests_total", **served, cache="hit") >= 1
    assert metrics.value("dragonet_registry_requests_total", **served, cache="miss") >= 1
    assert metrics.value("dragonet_registry_first_byte_seconds_count", kind="blobs") >= 2
    assert metrics.value("dragonet_registry_sent_bytes_total", source="store") >= len(LAYERS[1])
    assert metrics.value("dragonet_registry_blobs_total", size_class="0-1MiB") >= 2
    assert digest not in metrics.text()
    lines = [line for line in peer.log.splitlines() if "registry request" in line and '"told"' in line]
    assert len(lines) == 2
    assert all("c2VjcmV0" not in daemon.log for daemon in swarm.daemons)


# --- registries that misbehave ---------------------------------------------------------------------------------


def test_too_many_requests(make_cluster: Callable[..., Cluster], fake: FakeRegistry) -> None:
    peer = up(make_cluster)
    image = fake.add_image("limited", "v1", LAYERS[2])
    gate = Gate(0)
    fake.change(image.by_tag, status=429, headers={"Retry-After": "17"}, answer_gate=gate)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, peer, image.by_tag, registry=fake.name) for _ in range(8)]
        gate.wait_reached()
        gate.open()
        answers = [each.result() for each in waiting]
    for answer in answers:
        assert (answer.status, code(answer)) == (429, "TOOMANYREQUESTS")
        assert answer.headers["retry-after"] == "17"
    assert fake.count(image.by_tag).requests == 1


def test_a_registry_that_stopped(
    make_cluster: Callable[..., Cluster], make_registry: Callable[[], FakeRegistry]
) -> None:
    peer = up(make_cluster, DRAGONET_SOURCE_REVALIDATE="*=1s")
    fake = make_registry()
    image = fake.add_image("stopped", "v1", *LAYERS)
    other = fake.add_image("stopped", "v2", random_content(1000, seed=420))
    for path in (image.by_tag, *map(image.blob, range(3))):
        assert ask(peer, path, registry=fake.name).status == 200
    fake.close()

    def stale() -> Answer | None:
        answer = ask(peer, image.by_tag, registry=fake.name)
        assert answer.body == image.manifest
        return answer if answer.headers["cache-status"] == "dragonet; fwd=stale" else None

    assert wait_until(stale, "the tag is told to be stale").status == 200
    head = ask(peer, image.by_tag, "HEAD", fake.name)
    assert head.headers["cache-status"] == "dragonet; fwd=stale"
    assert head.headers["docker-content-digest"] == image.digest
    for number, layer in enumerate(LAYERS):
        assert ask(peer, image.blob(number), registry=fake.name).body == layer
    assert peer.metrics().value("dragonet_registry_stale_total") >= 2
    missing = ask(peer, other.blob(0), registry=fake.name)
    assert missing.status in (502, 503)
    assert missing.json()["errors"]


def test_wrong_bytes_never_come_to_their_end(
    make_cluster: Callable[..., Cluster], fake: FakeRegistry
) -> None:
    peer = up(make_cluster)
    image = fake.add_image("wrong", "v1", *LAYERS)
    wrong = bytearray(LAYERS[0])
    wrong[1_000_000] ^= 1
    fake.change(image.blob(0), content=bytes(wrong))
    fake.change(image.blob(2), content=b"?")
    fake.change(image.by_digest, content=image.manifest.replace(b'"layers"', b'"lawyer"'))
    for path in (image.blob(2), image.by_digest, image.by_tag):
        assert ask(peer, path, registry=fake.name).status == 502
    for wanted in ("bytes=0-", "bytes=-1", "bytes=3000000-"):
        with closing(http.client.HTTPConnection(peer.gateway, timeout=30)) as connection:
            connection.request("GET", f"{image.blob(0)}?ns={fake.name}", headers={"Range": wanted})
            answer = connection.getresponse()
            if answer.status == 206:
                with pytest.raises(BROKEN):
                    answer.read()
            else:
                assert answer.status == 502
    assert all(view["state"] != "complete" for view in _views(peer) if view["url"].startswith("oci://"))


def _views(peer: Peer) -> list[dict[str, str]]:
    answer = request(str(peer.socket), "/v1/tasks")
    assert answer.status == 200
    views: list[dict[str, str]] = answer.json()
    return views


def test_a_registry_that_dies_in_the_middle(make_cluster: Callable[..., Cluster], fake: FakeRegistry) -> None:
    peer = up(make_cluster)
    layer = random_content(6 * MIB, seed=430)
    image = fake.add_image("dying", "v1", layer, cut_after=2 * MIB, cuts=1)
    assert ask(peer, image.blob(0), registry=fake.name).body == layer, "it was read on from where it broke"


def test_no_first_byte_in_time(make_cluster: Callable[..., Cluster], fake: FakeRegistry) -> None:
    peer = up(make_cluster, DRAGONET_REGISTRY_FIRST_BYTE="2")
    gate = Gate(0)
    image = fake.add_image("silent", "v1", LAYERS[1], gate=gate)
    answer = ask(peer, image.blob(0), registry=fake.name)
    assert (answer.status, code(answer)) == (503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0
    gate.open()
    assert ask(peer, image.blob(0), registry=fake.name).body == LAYERS[1]


def test_a_client_that_hangs_up_before_the_first_byte(
    make_cluster: Callable[..., Cluster], fake: FakeRegistry
) -> None:
    peer = up(make_cluster, DRAGONET_SCHEDULER_IDLE_READ="1s")
    gate = Gate(0)
    image = fake.add_image("leaving", "v1", LAYERS[1], gate=gate)
    with closing(connect(peer.gateway)) as sock:
        sock.sendall(f"GET {image.blob(0)}?ns={fake.name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        gate.wait_reached()
    wait_until(lambda: gate.waiting == 0, "the registry is not read any more")
    assert peer.metrics().value("dragonet_registry_requests_total", code="499") == 1
    gate.open()
    assert ask(peer, image.blob(0), registry=fake.name).body == LAYERS[1]


def test_a_killed_daemon_goes_on_where_it_was(
    make_cluster: Callable[..., Cluster], fake: FakeRegistry
) -> None:
    peer = up(make_cluster)
    layer = random_content(8 * MIB, seed=440)
    gate = Gate(4 * MIB)
    image = fake.add_image("killed", "v1", layer, gate=gate)
    with closing(http.client.HTTPConnection(peer.gateway, timeout=60)) as connection:
        connection.request("GET", f"{image.blob(0)}?ns={fake.name}")
        answer = connection.getresponse()
        assert answer.read(2 * MIB) == layer[: 2 * MIB]
        gate.wait_reached()
        peer.kill()
        with pytest.raises(BROKEN):
            answer.read()
    gate.open()
    peer.restart()
    assert ask(peer, image.blob(0), registry=fake.name).body == layer
    assert fake.count(image.blob(0)).body < len(layer) + 4 * MIB
    served = ask(peer, image.blob(0), registry=fake.name)
    assert served.headers["cache-status"] == "dragonet; hit"


def test_a_full_store_lets_the_runtime_turn_elsewhere(
    make_cluster: Callable[..., Cluster], fake: FakeRegistry
) -> None:
    peer = up(make_cluster, DRAGONET_STORE_QUOTA="2MiB")
    image = fake.add_image("large", "v1", LAYERS[0], LAYERS[2])
    answer = ask(peer, image.blob(0), registry=fake.name)
    assert answer.status in (502, 503), "it turns to the registry at any of these"
    assert code(answer) in ("UNKNOWN", "UNAVAILABLE")
    assert ask(peer, image.blob(1), registry=fake.name).body == LAYERS[2]
