"""Preheats with real processes and a real registry: what is brought where, and what pulls then cost."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import Cluster, Peer, RunningGet
from tests.integration.net import Answer, request, wait_until
from tests.integration.origins import Gate, Origin, random_content
from tests.integration.processes import dragonet_command
from tests.integration.recording import Recorder
from tests.programs import require_program
from tests.registry import PASSWORD, USER, DockerRegistry, htpasswd
from tests.unit.cdn.fakes import random_bytes

INDEX = "application/vnd.oci.image.index.v1+json"
MIB = 1024 * 1024
FILE = random_content(24 * MIB, seed=11)
LAYERS = tuple(random_bytes(size) for size in (3 * MIB, 700_000, 40_000))
SETTINGS = {"DRAGONET_REGISTRY_ALLOW": "127.0.0.1:*"}
TOKEN = "s3cret-token"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry that everybody may read."""
    with DockerRegistry(tmp_path, require_program("docker-registry")) as running:
        yield running


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster in which nothing runs yet, and whose gateways may pull from this machine."""
    return make_cluster(environ=SETTINGS)


@contextmanager
def started(cluster: Cluster, *arguments: str) -> Iterator[RunningGet]:
    """``dragonet ARGUMENTS`` in the background."""
    place = cluster.folder / "run"
    command = [*dragonet_command(), *arguments]
    running = RunningGet(command, cluster.environment(), place / "none", place / "started")
    try:
        yield running
    finally:
        running.end()


@contextmanager
def watching(cluster: Cluster, url: str) -> Iterator[RunningGet]:
    """``dragonet preheat URL`` in the background, which has learnt the number of its preheat."""
    assert cluster.scheduler is not None
    with (
        Recorder(cluster.scheduler.address) as relay,
        started(cluster, "preheat", url, "--scheduler", f"http://{relay.address}") as running,
    ):
        asks = b"GET /v1/preheats/"
        wait_until(lambda: any(asks in stream for stream in relay.streams), "the command watches its preheat")
        yield running


def preheat(cluster: Cluster, what: str, *flags: str, code: int = 0) -> dict[str, Any]:
    """Run ``dragonet preheat --json`` to its end."""
    assert cluster.scheduler is not None
    done = cluster.run("preheat", what, "--json", "--scheduler", cluster.scheduler.url, *flags)
    assert done.returncode == code, f"exit code {done.returncode}: {done.stdout} {done.stderr}"
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


def pull(peer: Peer, registry: DockerRegistry, repository: str, tag: str, **headers: str) -> list[str]:
    """What a container runtime asks for; gives the Cache-Status of each answer."""

    def ask(path: str, method: str = "GET") -> Answer:
        target = f"/v2/{repository}/{path}?ns={registry.name}"
        answer = request(peer.gateway, target, method, None, headers, timeout=60)
        assert answer.status == 200, f"{path}: {answer.status} {answer.text}"
        return answer

    head = ask(f"manifests/{tag}", "HEAD")
    digest = head.headers["docker-content-digest"]
    manifest = ask(f"manifests/{digest}")
    assert digest == digest_of(manifest.body)
    described = json.loads(manifest.body)
    blobs = [ask(f"blobs/{one['digest']}") for one in (described["config"], *described["layers"])]
    for one, answer in zip((described["config"], *described["layers"]), blobs, strict=True):
        assert digest_of(answer.body) == one["digest"]
    return [answer.headers["cache-status"] for answer in (manifest, *blobs)]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob_gets(registry: DockerRegistry, repository: str) -> int:
    """How often a blob of the repository was asked for."""
    return registry.log.count(f'"GET /v2/{repository}/blobs/sha256:')


def held(peer: Peer, content: bytes) -> bool:
    """Whether the peer holds all of a content that is a layer."""
    listed = request(str(peer.socket), "/v1/tasks").json()
    return any(
        one["state"] == "complete" and digest_of(content) in one["url"] and one["held"] == len(content)
        for one in listed
    )


def test_seeders_are_preheated_and_pulls_cost_the_registry_nothing(
    cluster: Cluster, registry: DockerRegistry
) -> None:
    registry.push_image("team/app", "v1", *LAYERS)
    cluster.start(seeders=2, peers=2)
    told = preheat(cluster, f"{registry.name}/team/app:v1")
    assert told["state"] == "succeeded"
    assert told["hosts"] == 2
    assert told["items"] == 2 + 1 + len(LAYERS)
    assert told["contents"] == {"total": 12, "done": 12, "failed": 0, "running": 0}
    before = blob_gets(registry, "team/app")
    assert before == 1 + len(LAYERS)
    for peer in cluster.peers:
        pull(peer, registry, "team/app", "v1")
    assert blob_gets(registry, "team/app") == before
    assert (
        sum(daemon.metrics().received("origin") for daemon in cluster.daemons[1:])
        == told["bytes"]["total"] / 2
    )


def test_all_hosts_are_preheated_and_the_registry_is_read_once(
    cluster: Cluster, registry: DockerRegistry
) -> None:
    registry.push_image("team/app", "v1", *LAYERS)
    cluster.start(seeders=1, peers=3)
    told = preheat(cluster, f"oci://{registry.name}/team/app:v1", "--to", "all")
    assert (told["hosts"], told["contents"]["done"]) == (4, 4 * 6)
    assert blob_gets(registry, "team/app") == 1 + len(LAYERS)
    assert all(held(peer, layer) for peer in cluster.peers for layer in LAYERS)
    for peer in cluster.peers:
        assert pull(peer, registry, "team/app", "v1") == ["dragonet; hit"] * 5
    assert blob_gets(registry, "team/app") == 1 + len(LAYERS)
    assert cluster.scheduler is not None
    metrics = cluster.scheduler.metrics()
    assert metrics.value("dragonet_preheat_jobs_total", result="succeeded") == 1
    assert metrics.value("dragonet_preheat_items_total", result="succeeded") == 24


def test_a_share_of_the_hosts_is_preheated_seeders_first(cluster: Cluster, registry: DockerRegistry) -> None:
    registry.push_image("team/app", "v1", *LAYERS)
    cluster.start(seeders=1, peers=2)
    told = preheat(cluster, f"{registry.name}/team/app:v1", "--to", "34%")
    assert told["hosts"] == 2
    assert sum(held(peer, LAYERS[0]) for peer in cluster.peers) == 1
    assert cluster.seeders[0].metrics().received() >= sum(map(len, LAYERS))


def push_index(registry: DockerRegistry, repository: str, tag: str, **platforms: bytes) -> str:
    """An image for several platforms, each with one layer."""
    entries = []
    for architecture, layer in platforms.items():
        digest, content = registry.push_image(repository, f"{tag}-{architecture}", layer)
        entries.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": len(content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return registry.push_manifest(repository, tag, json.dumps(index).encode(), INDEX)


def test_one_platform_of_several(cluster: Cluster, registry: DockerRegistry) -> None:
    push_index(registry, "team/app", "v1", amd64=LAYERS[0], arm64=LAYERS[1], riscv64=LAYERS[2])
    cluster.start(seeders=1, peers=1)
    image = f"{registry.name}/team/app:v1"
    told = preheat(cluster, image, "--platform", "linux/arm64", "--to", "all")
    whats = [one["what"].partition(" ")[0] for one in told["content"]]
    assert whats == ["descriptor", "index", "manifest", "config", "layer"]
    peer = cluster.peers[0]
    assert [held(peer, layer) for layer in LAYERS] == [False, True, False]
    told = preheat(cluster, image, "--platform", "linux/s390x", code=1)
    assert told["failure"] == (
        f"{image} is not there for linux/s390x: it is for linux/amd64, linux/arm64, linux/riscv64"
    )
    told = preheat(cluster, image)
    assert told["items"] == 2 + 3 + 3 + 3
    assert told["notes"] == ["3 platforms: name those that are needed with --platform to bring less"]


def test_a_single_image_is_checked_for_its_platform(cluster: Cluster, registry: DockerRegistry) -> None:
    registry.push_image("team/app", "v1", LAYERS[2])
    cluster.start(seeders=1, peers=0)
    image = f"{registry.name}/team/app:v1"
    assert preheat(cluster, image, "--platform", "linux/amd64")["state"] == "succeeded"
    told = preheat(cluster, image, "--platform", "linux/arm64", code=1)
    assert told["failure"] == f"{image} is not there for linux/arm64: it is for linux/amd64"


@pytest.fixture
def private(tmp_path: Path, registry: DockerRegistry) -> Iterator[DockerRegistry]:
    """The same content behind a login."""
    registry.push_image("team/secret", "v1", *LAYERS)
    place = tmp_path / "private"
    place.mkdir()
    (place / "content").symlink_to(tmp_path / "content")
    with DockerRegistry(place, require_program("docker-registry"), auth=htpasswd(place)) as running:
        yield running


def basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def test_a_private_image_is_brought_to_all_with_credentials_that_only_seeders_see(
    cluster: Cluster, private: DockerRegistry, tmp_path: Path
) -> None:
    cluster.start(seeders=1, peers=2)
    image = f"{private.name}/team/secret:v1"
    told = preheat(cluster, image, "--to", "all", code=1)
    assert "does not let everybody read team/secret" in told["failure"]
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    flags = ["--username", USER, "--password-file", str(password)]
    told = preheat(cluster, image, "--to", "all", *flags)
    assert (told["private"], told["hosts"], told["contents"]["failed"]) == (True, 3, 0)
    assert told["bytes"]["by_source"].get("origin", 0) <= sum(map(len, LAYERS)) + 2000
    gets = blob_gets(private, "team/secret")
    peer = cluster.peers[0]
    refused = request(peer.gateway, f"/v2/team/secret/manifests/v1?ns={private.name}")
    assert refused.status == 401
    blob = request(peer.gateway, f"/v2/team/secret/blobs/{digest_of(LAYERS[0])}?ns={private.name}")
    assert blob.status == 401
    assert pull(peer, private, "team/secret", "v1", authorization=basic())
    assert blob_gets(private, "team/secret") == gets
    for daemon in cluster.daemons:
        for secret in (PASSWORD, basic().partition(" ")[2]):
            assert secret not in daemon.log
    assert cluster.scheduler is not None
    for path in ("/v1/preheats", f"/v1/preheats/{told['id']}", "/v1/tasks"):
        assert basic().partition(" ")[2] not in request(cluster.scheduler.address, path).text


def test_a_private_image_with_the_login_of_the_seeders(
    cluster: Cluster, private: DockerRegistry, tmp_path: Path
) -> None:
    cluster.start_scheduler()
    config = tmp_path / "seeder.toml"
    config.write_text(f'[source.options.oci]\n"auth.{private.name}" = "{USER}:{PASSWORD}"\n')
    cluster.start_seeder(environ={"DRAGONET_CONFIG": str(config)})
    peer = cluster.start_peer()
    told = preheat(cluster, f"{private.name}/team/secret:v1", "--to", "all")
    assert (told["private"], told["state"]) == (True, "succeeded")
    assert "the seeders' own login" in told["notes"][0]
    gets = blob_gets(private, "team/secret")
    assert pull(peer, private, "team/secret", "v1", authorization=basic())
    assert blob_gets(private, "team/secret") == gets


def test_what_is_not_there(cluster: Cluster, registry: DockerRegistry) -> None:
    cluster.start(seeders=1, peers=0)
    assert cluster.scheduler is not None
    url = cluster.scheduler.url
    done = cluster.run("preheat", f"{registry.name}/team/nothing:v1", "--scheduler", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "team/nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = cluster.run("preheat", "UPPER/case", "--scheduler", url)
    assert done.returncode == 2
    done = cluster.run("preheat", "alpine", "--scheduler", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "the scheduler at http://127.0.0.1:1 is not reached" in done.stderr
    done = cluster.run("preheats", "17", "--scheduler", url)
    assert done.returncode == 1
    assert "knows no preheat of this id" in done.stderr


def test_a_missing_blob_is_named_and_the_rest_is_brought(
    cluster: Cluster, registry: DockerRegistry, tmp_path: Path
) -> None:
    registry.push_image("team/app", "v1", *LAYERS)
    lost = digest_of(LAYERS[1]).partition(":")[2]
    (tmp_path / f"content/docker/registry/v2/blobs/sha256/{lost[:2]}/{lost}/data").unlink()
    cluster.start(seeders=1, peers=1)
    told = preheat(cluster, f"{registry.name}/team/app:v1", "--to", "all", code=1)
    assert told["state"] == "partial"
    assert told["contents"] == {"total": 12, "done": 10, "failed": 2, "running": 0}
    failures = {failure["what"] for failure in told["failures"]}
    assert failures == {f"layer sha256:{lost}"}
    assert sum(failure["count"] for failure in told["failures"]) == 2
    assert all(failure["status"] == 404 for failure in told["failures"])
    assert held(cluster.peers[0], LAYERS[0])


def test_a_peer_that_is_killed_fails_alone(make_cluster: Callable[..., Cluster], origin: Origin) -> None:
    cluster = make_cluster(environ={"DRAGONET_SCHEDULER_LEASE": "2"})
    cluster.start(seeders=1, peers=2)
    assert cluster.scheduler is not None
    scheduler = cluster.scheduler
    gate = Gate(16 * MIB)
    url = origin.add("/file.bin", FILE, gate=gate)
    ordered = preheat(cluster, url, "--to", "all", "--no-wait")
    assert ordered["state"] == "running"
    gate.wait_reached()
    victim, other = cluster.peers
    cluster.wait_received(victim, MIB)
    victim.kill()

    def shown() -> dict[str, Any]:
        told = request(scheduler.address, f"/v1/preheats/{ordered['id']}").json()
        assert isinstance(told, dict)
        return told

    wait_until(lambda: shown()["contents"]["failed"] == 1, "the killed peer has failed")
    assert shown()["state"] == "running"
    gate.open()
    wait_until(lambda: shown()["state"] == "partial", "the preheat is over")
    told = shown()
    assert told["contents"] == {"total": 3, "done": 2, "failed": 1, "running": 0}
    [failure] = told["failures"]
    assert "was lost before it had all of it" in failure["words"]
    assert cluster.get(url, other).check(FILE).sources["store"] == len(FILE)
    assert origin.count("/file.bin").body == len(FILE)
    victim.restart()


def test_a_peer_that_restarts_goes_on(cluster: Cluster, origin: Origin) -> None:
    cluster.start(seeders=1, peers=1)
    gate = Gate(16 * MIB)
    url = origin.add("/file.bin", FILE, gate=gate)
    ordered = preheat(cluster, url, "--to", "all", "--no-wait")
    gate.wait_reached()
    peer = cluster.peers[0]
    cluster.wait_received(peer, MIB)
    peer.kill()
    peer.restart()
    gate.open()
    assert cluster.scheduler is not None
    path, address = f"/v1/preheats/{ordered['id']}", cluster.scheduler.address
    wait_until(lambda: request(address, path).json()["state"] == "succeeded", "the preheat has succeeded")
    assert cluster.get(url, peer).check(FILE).sources["store"] == len(FILE)


def test_an_interrupted_command_leaves_the_preheat_and_it_can_be_cancelled(
    make_cluster: Callable[..., Cluster], origin: Origin
) -> None:
    cluster = make_cluster(environ={"DRAGONET_SCHEDULER_IDLE_READ": "0.5"}).start(seeders=1, peers=0)
    assert cluster.scheduler is not None
    scheduler = cluster.scheduler
    gate = Gate(MIB)
    url = origin.add("/file.bin", FILE, gate=gate)
    with watching(cluster, url) as running:
        gate.wait_reached()
        running.interrupt()
        result = running.wait()
    assert result.code == 130
    [job] = request(scheduler.address, "/v1/preheats").json()["preheats"]
    assert job["state"] == "running"
    assert f"`dragonet preheats {job['id']} --cancel`" in result.stderr
    done = cluster.run("preheats", str(job["id"]), "--cancel", "--scheduler", scheduler.url)
    assert done.returncode == 0
    assert "cancelled" in done.stdout
    wait_until(lambda: not gate.waiting, "the seeder has let go of the origin")
    done = cluster.run("preheats", "--scheduler", scheduler.url)
    assert done.stdout.splitlines()[1].split()[:2] == [str(job["id"]), "cancelled"]


def test_a_file_is_the_content_that_get_asks_for(cluster: Cluster, origin: Origin) -> None:
    cluster.start(seeders=1, peers=2)
    url = origin.add("/file.bin", FILE)
    told = preheat(cluster, url, "--to", "all", "--tag", "night")
    assert told["content"][0]["url"] == url
    for peer in cluster.peers:
        assert cluster.get(url, peer, "--tag", "night").check(FILE).sources["store"] == len(FILE)
    assert origin.count("/file.bin").body == len(FILE)


def test_a_scheduler_that_is_restarted_knows_nothing_of_it_and_says_so(
    cluster: Cluster, origin: Origin
) -> None:
    cluster.start(seeders=1, peers=0)
    assert cluster.scheduler is not None
    scheduler = cluster.scheduler
    gate = Gate(MIB)
    url = origin.add("/file.bin", FILE, gate=gate)
    with watching(cluster, url) as running:
        gate.wait_reached()
        scheduler.kill()
        scheduler.restart()
        result = running.wait()
    assert result.code == 1
    assert "it forgets old ones, and all of them when it is restarted" in result.stderr
    gate.open()


# --- tokens and Harbor -------------------------------------------------------------------------------


@pytest.fixture
def guarded(make_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster whose scheduler wants a token for preheats."""
    running = make_cluster(environ={**SETTINGS, "DRAGONET_SCHEDULER_PREHEAT_TOKEN": TOKEN})
    return running.start(seeders=1, peers=1)


def harbor(cluster: Cluster, method: str, path: str, body: object = None, token: str = TOKEN) -> Answer:
    """A request as Harbor makes it."""
    assert cluster.scheduler is not None
    headers = {"accept": "application/json", "content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    return request(cluster.scheduler.address, path, method, data, headers)


def test_preheats_want_the_token(guarded: Cluster, registry: DockerRegistry) -> None:
    registry.push_image("team/app", "v1", LAYERS[2])
    assert guarded.scheduler is not None
    image, url = f"{registry.name}/team/app:v1", guarded.scheduler.url
    assert preheat(guarded, image)["state"] == "succeeded", "the environment has the token"
    done = guarded.run("preheat", image, "--scheduler", url, "--token", "wrong")
    assert done.returncode == 1
    assert "scheduler.preheat_token" in done.stderr
    for method, path in (
        ("GET", "/v1/preheats"),
        ("POST", "/v1/preheats"),
        ("DELETE", "/v1/preheats/1"),
        ("POST", "/oapi/v1/jobs"),
        ("GET", "/healthy"),
    ):
        for token in ("", "wrong"):
            refused = harbor(guarded, method, path, {}, token)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="dragonet"')
    assert TOKEN not in guarded.scheduler.log


def test_harbor_preheats_an_image(guarded: Cluster, private: DockerRegistry) -> None:
    assert harbor(guarded, "GET", "/healthy").status == 200
    asked = {
        "type": "preheat",
        "args": {
            "type": "image",
            "url": f"http://{private.name}/v2/team/secret/manifests/v1",
            "tag": "",
            "filtered_query_params": "",
            "headers": {"Authorization": basic()},
            "scope": "single_peer",
            "concurrent_count": 0,
            "timeout": 0,
        },
        "scheduler_cluster_ids": None,
    }
    begun = harbor(guarded, "POST", "/oapi/v1/jobs", asked)
    assert begun.status == 200, begun.text
    job = begun.json()
    assert isinstance(job["id"], int)
    assert job["state"] == "PENDING"
    path = f"/oapi/v1/jobs/{job['id']}"
    wait_until(lambda: harbor(guarded, "GET", path).json()["state"] != "PENDING", "the job is over")
    job = harbor(guarded, "GET", path).json()
    assert job["state"] == "SUCCESS", job
    [state] = job["result"]["job_states"]
    done = state["results"][0]["success_tasks"]
    assert {digest_of(layer) in json.dumps(done) for layer in LAYERS} == {True}
    assert {task["ip"] for task in done} == {"127.0.0.1"}
    gets = blob_gets(private, "team/secret")
    assert pull(guarded.peers[0], private, "team/secret", "v1", authorization=basic())
    assert blob_gets(private, "team/secret") == gets


def test_an_older_harbor_preheats_an_image(guarded: Cluster, registry: DockerRegistry) -> None:
    registry.push_image("team/app", "v1", LAYERS[2])
    assert harbor(guarded, "GET", "/_ping").status == 200
    asked = {
        "type": "image",
        "url": f"http://{registry.name}/v2/team/app/manifests/v1",
        "headers": {"Authorization": "Bearer of-nothing"},
        "image": "team/app",
        "tag": "v1",
        "digest": "sha256:" + "0" * 64,
    }
    begun = harbor(guarded, "POST", "/preheats", asked)
    assert begun.status == 200, begun.text
    number = begun.json()["ID"]
    assert isinstance(number, str)
    path = f"/preheats/{number}"
    wait_until(
        lambda: harbor(guarded, "GET", path).json()["status"] == "SUCCESS", "the preheat has succeeded"
    )
    assert harbor(guarded, "GET", path).json()["finishTime"]


def test_harbor_hears_what_is_wrong(guarded: Cluster, registry: DockerRegistry) -> None:
    args = {"type": "image", "url": f"http://{registry.name}/v2/team/nothing/manifests/v1", "headers": {}}
    number = harbor(guarded, "POST", "/oapi/v1/jobs", {"type": "preheat", "args": args}).json()["id"]
    path = f"/oapi/v1/jobs/{number}"
    wait_until(lambda: harbor(guarded, "GET", path).json()["state"] == "FAILURE", "the job has failed")
    [state] = harbor(guarded, "GET", path).json()["result"]["job_states"]
    assert "team/nothing" in state["error"]


def test_without_a_token_harbors_api_is_closed(cluster: Cluster) -> None:
    cluster.start(seeders=0, peers=0)
    closed = harbor(cluster, "POST", "/oapi/v1/jobs", {}, "")
    assert closed.status == 403
    assert "scheduler.preheat_token" in closed.text
