"""Private images: who may have them has them from the swarm; all others get nothing, whatever is held where.

Two machines pull through their gateways. What the hosts say to the scheduler and to each other goes through
recording proxies, and is searched for credentials at the end, as is every file that they keep.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec, repository_scope
from shared.task.identity import TaskSpec
from tests.integration.cluster import Cluster, Peer
from tests.integration.net import Answer, request, wait_until
from tests.integration.origins import random_content
from tests.integration.processes import bound_to_us, clean_environment
from tests.integration.recording import Recorder
from tests.programs import require_module, require_program
from tests.registry import MANIFEST, PASSWORD, USER, DockerRegistry, TokenService, basic, htpasswd

PRIVATE, OTHERS, OPEN = "team/app", "team/other", "open/app"
ALICE, CAROL = basic(USER), basic("carol")
"""Who may read PRIVATE; Carol may read nothing else."""
BOB = basic("bob")
"""Who may read OTHERS only."""
REFUSED = {
    "nobody": "",
    "a wrong password": basic(USER, "wrong"),
    "an unknown user": basic("mallory"),
    "a user of another repository": BOB,
    "an invented token": "Bearer eyJhbGciOiJub25lIn0.e30.",
    "nonsense": "Nonsense",
    "what is no text": "Basic \xe4\xf6",
    "nobody's name": basic("", ""),
}
SECRETS = (PASSWORD, *(each.removeprefix("Basic ") for each in (ALICE, CAROL, BOB)), "eyJhbGciOiJub25lIn0")
LAYER = random_content(3_000_000, seed=91)
SMALL = random_content(20_000, seed=92)
SHARED = random_content(30_000, seed=93)
OTHER = random_content(40_000, seed=94)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Client:
    """A runtime on the machine of ``peer``, with or without credentials."""

    peer: Peer
    registry: str
    authorization: str = ""

    def ask(self, path: str, method: str = "GET", **fields: str) -> Answer:
        """As containerd names the registry: by ``ns``."""
        headers = {"Accept": f"{MANIFEST}, */*", **fields}
        if self.authorization:
            headers["Authorization"] = self.authorization
        where = f"/v2/{path}?{urlencode({'ns': self.registry})}"
        return request(self.peer.gateway, where, method, None, headers, timeout=60)

    def pull(self, repository: str, reference: str = "v1") -> list[bytes]:
        """An image as runtimes pull it: manifest, configuration, layers. Everything is verified."""
        answer = self.ask(f"{repository}/manifests/{reference}")
        assert answer.status == 200, answer.text
        assert answer.headers["docker-content-digest"] == digest_of(answer.body)
        read = json.loads(answer.body)
        contents = []
        for each in (read["config"], *read["layers"]):
            blob = self.ask(f"{repository}/blobs/{each['digest']}")
            assert blob.status == 200, blob.text
            assert digest_of(blob.body) == each["digest"]
            assert len(blob.body) == each["size"]
            contents.append(blob.body)
        return contents


@dataclass
class World:
    """A registry with tokens, and a cluster of two machines whose seeder has a login of its own."""

    cluster: Cluster
    registry: DockerRegistry
    tokens: TokenService
    recorders: list[Recorder]
    manifest: bytes
    others: str

    def client(self, machine: int, authorization: str = "") -> Client:
        """A runtime on one of the two machines."""
        return Client(self.cluster.peers[machine], self.registry.name, authorization)

    @property
    def places(self) -> dict[str, str]:
        """Everything that is private, by what it is."""
        config = json.loads(self.manifest)["config"]["digest"]
        return {
            "the tag": f"{PRIVATE}/manifests/v1",
            "the manifest": f"{PRIVATE}/manifests/{digest_of(self.manifest)}",
            "the configuration": f"{PRIVATE}/blobs/{config}",
            "a layer": f"{PRIVATE}/blobs/{digest_of(LAYER)}",
            "a small layer": f"{PRIVATE}/blobs/{digest_of(SMALL)}",
            "a layer under a public name": f"{OPEN}/blobs/{digest_of(LAYER)}",
            "a layer under another user's name": f"{OTHERS}/blobs/{digest_of(LAYER)}",
            "the manifest under a public name": f"{OPEN}/manifests/{digest_of(self.manifest)}",
        }

    def given(self, repository: str, content: bytes) -> int:
        """Bytes of a blob that the registry gave out."""
        path = re.escape(f"/v2/{repository}/blobs/{digest_of(content)}")
        return sum(map(int, re.findall(rf'"GET {path} HTTP/1\.1" 20[06] ([0-9]+)', self.registry.log)))


@contextmanager
def cluster_with(
    registry: DockerRegistry,
    folder: Path,
    recorders: list[Recorder],
    environ: Mapping[str, str] | None = None,
    *,
    sharing: bool = False,
) -> Iterator[Cluster]:
    """Two peers, and a seeder that has Alice's login for the registry; ``sharing``: so has the first peer, for
    everybody who reaches its gateway."""
    allow = f'[registry]\nallow = ["{registry.name}"]\n'
    (folder / "peer.toml").write_text(allow)
    login = f'[source.options.oci]\n"auth.{registry.name}" = "{USER}:{PASSWORD}"\n'
    (folder / "seeder.toml").write_text(login)
    (folder / "sharing.toml").write_text(f'{allow}share_login = ["{registry.name}"]\n{login}')
    with Cluster(environ=environ) as cluster, ExitStack() as stack:
        scheduler = cluster.start_scheduler()
        recorders += [stack.enter_context(Recorder(scheduler.address)) for _ in range(4)]
        real, scheduler.address = scheduler.address, recorders[0].address
        seeder = cluster.start_seeder(
            wait=False,
            environ={"DRAGONET_CONFIG": str(folder / "seeder.toml")},
            flags=["--advertise", recorders[1].address],
        )
        recorders[1].target = seeder.address
        for recorder, config in zip(recorders[2:], ("sharing" if sharing else "peer", "peer"), strict=True):
            peer = cluster.start_peer(
                wait=False,
                environ={"DRAGONET_CONFIG": str(folder / f"{config}.toml")},
                flags=["--advertise", recorder.address],
            )
            recorder.target = peer.address
        for daemon in cluster.daemons:
            daemon.wait_ready()
        yield cluster
        scheduler.address = real


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, str]:
    """A registry's folder with three repositories; the private manifest, and the digest of the other one."""
    folder = tmp_path_factory.mktemp("registry")
    with DockerRegistry(folder, require_program("docker-registry")) as registry:
        _, manifest = registry.push_image(PRIVATE, "v1", LAYER, SMALL)
        registry.push_manifest(PRIVATE, "v2", manifest)
        others, _ = registry.push_image(OTHERS, "v1", OTHER)
        registry.push_image(OPEN, "v1", SHARED)
    return folder, manifest, others


@pytest.fixture(scope="module")
def world(images: tuple[Path, bytes, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_module("cryptography")
    folder, manifest, others = images
    readers = {"carol": frozenset({PRIVATE}), "bob": frozenset({OTHERS})}
    recorders: list[Recorder] = []
    with (
        TokenService(frozenset({OPEN}), readers=readers) as tokens,
        DockerRegistry(folder, require_program("docker-registry"), auth=tokens.auth) as registry,
        cluster_with(registry, tmp_path_factory.mktemp("cluster"), recorders) as cluster,
    ):
        yield World(cluster, registry, tokens, recorders, manifest, others)


@pytest.fixture(scope="module")
def pulled(world: World) -> World:
    """Both machines have pulled the private image, for somebody who may have it."""
    first = world.client(0, ALICE).pull(PRIVATE)
    assert first[1:] == [LAYER, SMALL]
    assert world.given(PRIVATE, LAYER) == len(LAYER)
    assert world.client(1, CAROL).pull(PRIVATE) == first
    return world


def test_who_may_have_it_has_it_from_the_swarm(pulled: World) -> None:
    second = pulled.cluster.peers[1]
    assert second.metrics().received("peer") >= len(LAYER)
    assert second.metrics().received("origin") < len(SMALL), "nothing of the image"
    assert pulled.client(1, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]
    assert pulled.given(PRIVATE, LAYER) == len(LAYER), "the registry was read once"
    assert pulled.given(PRIVATE, SMALL) == len(SMALL)
    part = pulled.client(1, CAROL).ask(pulled.places["a layer"], Range="bytes=500-1499")
    assert (part.status, part.body) == (206, LAYER[500:1500])


def test_as_containerd_does(pulled: World) -> None:
    """Asked for nothing first; then with a token, which is for this repository."""
    client = pulled.client(1)
    challenge = client.ask(pulled.places["the tag"], "HEAD").headers["www-authenticate"]
    parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    assert parts["realm"] == f"http://{pulled.tokens.address}/token"
    assert parts["scope"] == f"repository:{PRIVATE}:pull"
    for user, expected in ((ALICE, 200), (BOB, 401), ("", 401)):
        _, told = pulled.tokens.answer(f"/token?{urlencode(parts)}", user)
        assert client_with(client, f"Bearer {told['token']}").ask(pulled.places["the tag"]).status == expected
    assert pulled.given(PRIVATE, LAYER) == len(LAYER)


@pytest.mark.parametrize("who", REFUSED)
@pytest.mark.parametrize("machine", [0, 1])
def test_others_get_nothing(pulled: World, who: str, machine: int) -> None:
    client = pulled.client(machine, REFUSED[who])
    for what, path in pulled.places.items():
        for method, fields in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-99"})):
            check_refused(client.ask(path, method, **fields), f"{what} for {who}")
    check_refused(client.ask(f"{PRIVATE}/tags/list"), "the tags")
    referrers = client.ask(f"{PRIVATE}/referrers/{digest_of(pulled.manifest)}")
    assert referrers.status in (400, 401, 404), "this registry knows of none"


@pytest.mark.parametrize("who", REFUSED)
def test_a_refusal_tells_nothing(pulled: World, who: str) -> None:
    """What is there and held here, and what is nowhere, are refused in the same words."""
    client, nothing = pulled.client(1, REFUSED[who]), digest_of(b"nothing at all")
    for what in ("the manifest", "a layer"):
        path = pulled.places[what]
        there = digest_of(pulled.manifest if what == "the manifest" else LAYER)
        for method in ("GET", "HEAD"):
            told = []
            for digest in (there, nothing):
                answer = client.ask(path.replace(there, digest), method)
                fields = {n: v for n, v in answer.headers.items() if n not in ("date", "retry-after")}
                told.append((answer.status, fields, answer.text.replace(digest, "DIGEST")))
            assert told[0] == told[1]


@pytest.mark.parametrize("place", ["/v2/{}/tags/list?n=1&ns={}", "/v2/{1}/{0}/tags/list?n=1"])
def test_tags_page_by_page(pulled: World, place: str) -> None:
    """The way to the next page leads through the gateway again, and is no way in."""
    gateway, found = pulled.cluster.peers[1].gateway, []
    following = place.format(PRIVATE, pulled.registry.name)
    while following:
        refused = request(gateway, following, headers={"Authorization": BOB})
        check_refused(refused, "the tags for Bob")
        answer = request(gateway, following, headers={"Authorization": CAROL})
        assert answer.status == 200, answer.text
        found += answer.json()["tags"] or []
        link = re.fullmatch(r'<(/v2/[^<>]*)>; rel="next"', answer.headers.get("link", ""))
        following = link[1] if link else ""
    assert found == ["v1", "v2"]


def test_users_of_other_repositories_keep_theirs(pulled: World) -> None:
    assert pulled.client(0, BOB).pull(OTHERS)[1:] == [OTHER]
    assert pulled.client(1, BOB).pull(OTHERS)[1:] == [OTHER]
    assert pulled.given(OTHERS, OTHER) == len(OTHER)
    check_refused(pulled.client(1, CAROL).ask(f"{OTHERS}/blobs/{digest_of(OTHER)}"), "Bob's for Carol")
    for authorization in ("", BOB, REFUSED["a wrong password"]):
        for machine in (0, 1):
            assert pulled.client(machine, authorization).pull(OPEN)[1:] == [SHARED]
    assert pulled.given(OPEN, SHARED) == len(SHARED)


def test_pieces_are_not_given_to_who_does_not_know_the_secret(pulled: World) -> None:
    """The data ports give pieces to whoever names their task; that of private content cannot be guessed."""
    name, layer, manifest = pulled.registry.name, digest_of(LAYER), digest_of(pulled.manifest)
    scopes = ["", *(repository_scope(secret, name, PRIVATE) for secret in (b"", bytes(32), b"dragonet"))]
    specs = [TaskSpec(url=pulled.registry.url(PRIVATE, held)) for held in (layer, manifest, "v1")]
    specs += [descriptor_spec(name, PRIVATE, held) for held in ("v1", manifest)]
    for scope in scopes:
        specs += [
            blob_spec(name, PRIVATE, layer, scope=scope),
            manifest_spec(name, PRIVATE, manifest, scope=scope),
        ]
    scheduler = pulled.cluster.scheduler
    assert scheduler is not None
    listed = [task["task_id"] for task in scheduler.tasks() if task["private"]]
    assert len(listed) >= 4, "the images of this test"
    scope = repository_scope(scope_secret(pulled), name, PRIVATE)
    known = [
        blob_spec(name, PRIVATE, layer, scope=scope),
        manifest_spec(name, PRIVATE, manifest, scope=scope),
    ]
    assert {spec.task_id[:12] for spec in known} < set(listed)
    specs += known  # an id, which stands in logs, is no key
    peer = pulled.cluster.peers[0]
    key = {"Dragonet-Key": known[0].piece_key}
    piece = request(peer.address, f"/v1/tasks/{known[0].task_id}/pieces/0", headers=key)
    assert piece.status == 200
    assert LAYER.startswith(piece.body)
    for task_id in [*(spec.task_id for spec in specs), *listed, *(short + "0" * 52 for short in listed)]:
        for daemon in (*pulled.cluster.seeders, *pulled.cluster.peers):
            for what in ("pieces/0", "availability"):
                answer = request(daemon.address, f"/v1/tasks/{task_id}/{what}")
                assert answer.status in (400, 404), (answer.status, task_id)


def test_commands_get_nothing_private(pulled: World) -> None:
    """What is held for gateways is no task of a command; nor is it read with a seeder's login."""
    layer, secret = pulled.registry.url(PRIVATE, digest_of(LAYER)), f"Authorization: {BOB}"
    for peer in pulled.cluster.peers:
        pulled.cluster.get(f"{layer}?kind=blob", peer).check_failed("may not be read by everybody")
        pulled.cluster.get(f"{layer}?kind=blob", peer, "--no-origin").check_failed()
        pulled.cluster.get(layer, peer, "--header", secret).check_failed()
        pulled.cluster.get(layer, peer, "--no-origin").check_failed()
        pulled.cluster.get(f"oci-descriptor{layer.removeprefix('oci')}", peer).check_failed()


def test_a_seeders_login_is_for_commands_and_not_for_gateways(pulled: World) -> None:
    """An operator who gives a seeder a login lets everybody who may use a daemon's socket read with it."""
    layer = pulled.registry.url(PRIVATE, digest_of(LAYER))
    pulled.cluster.get(layer, pulled.cluster.peers[1]).check(LAYER)
    for who, authorization in REFUSED.items():
        for machine in (0, 1):
            for what, path in pulled.places.items():
                check_refused(pulled.client(machine, authorization).ask(path), f"{what} for {who}")


def test_skopeo(pulled: World, tmp_path: Path) -> None:
    """Which names the registry in the path, and is asked for user and password."""
    peer = pulled.cluster.peers[1]
    copy(pulled.registry, peer, tmp_path / "alice", USER)
    assert (tmp_path / "alice" / digest_of(LAYER).removeprefix("sha256:")).read_bytes() == LAYER
    copy(pulled.registry, peer, tmp_path / "carol", "carol")
    for user, password in (("bob", PASSWORD), (USER, "wrong"), ("", "")):
        refused = copy(pulled.registry, peer, tmp_path / f"not-{user}", user, password, fails=True)
        assert "unauthorized" in refused or "authentication required" in refused or "denied" in refused
    for user in ("", "bob"):
        copy(pulled.registry, peer, tmp_path / f"open-{user}", user, repository=OPEN)
    assert pulled.given(PRIVATE, LAYER) <= 2 * len(LAYER), "once for images, once for a command"


def test_a_token_that_ends(pulled: World) -> None:
    """While the registry is away, a proof lasts as long as its token, and not longer."""
    tokens, registry = pulled.tokens, pulled.registry
    tokens.expires = 4
    try:
        _, told = tokens.answer(f"/token?service=registry.tests&scope=repository:{PRIVATE}:pull", ALICE)
    finally:
        tokens.expires = 3600
    client = client_with(pulled.client(1), f"Bearer {told['token']}")
    assert client.ask(pulled.places["the tag"]).status == 200
    registry.__exit__()
    try:
        assert client.ask(pulled.places["a layer"]).body == LAYER
        wait_until(lambda: client.ask(pulled.places["a layer"]).status != 200, "the proof ends", 20)
        check_refused(client.ask(pulled.places["a layer"]), "a layer without a proof")
    finally:
        registry.__enter__()


def test_while_the_registry_is_away(pulled: World) -> None:
    for machine in (0, 1):
        assert pulled.client(machine).pull(OPEN)[1:] == [SHARED]
        assert pulled.client(machine, ALICE).ask(pulled.places["the tag"]).status == 200
    pulled.registry.__exit__()
    try:
        for machine in (0, 1):
            assert pulled.client(machine, ALICE).ask(pulled.places["a layer"]).body == LAYER, "proven before"
            assert pulled.client(machine).pull(OPEN)[1:] == [SHARED], "public"
            for who, authorization in REFUSED.items():
                for what, path in pulled.places.items():
                    answer = pulled.client(machine, authorization).ask(path)
                    check_refused(answer, f"{what} for {who}")
    finally:
        pulled.registry.__enter__()


def test_no_credentials_anywhere(pulled: World) -> None:
    """Not on the wires between the hosts, not in any file that they keep."""
    wires = [b"\n".join(recorder.streams) for recorder in pulled.recorders]
    assert any(b"PeerRegistered" in wire or b"registered" in wire for wire in wires)
    files = [path for path in pulled.cluster.folder.rglob("*") if path.is_file()]
    assert any(path.name == "index.mdb" for path in files)
    assert any(path.name == "peer1.log" for path in files)
    for told in (*wires, *(path.read_bytes() for path in files)):
        for secret in SECRETS:
            assert secret.encode() not in told
    name, secret = pulled.registry.name, scope_secret(pulled)
    layer = blob_spec(name, PRIVATE, digest_of(LAYER), scope=repository_scope(secret, name, PRIVATE))
    scheduler = pulled.cluster.scheduler
    assert scheduler is not None
    shown = [request(scheduler.address, page).text for page in ("/v1/tasks", "/v1/hosts")]
    for daemon in pulled.cluster.daemons:
        metrics = daemon.address if daemon is not scheduler else pulled.recorders[0].target
        shown += [daemon.log, request(metrics, "/metrics").text]
    for told in shown:
        for hidden in (*SECRETS, secret.hex(), layer.scope, layer.piece_key):
            assert hidden not in told


# --- other registries ----------------------------------------------------------------------------------


def test_user_and_password(images: tuple[Path, bytes, str], tmp_path: Path) -> None:
    """A registry that asks for them itself, with each request."""
    folder, manifest, _ = images
    auth = htpasswd(tmp_path, "carol")
    with (
        DockerRegistry(folder, require_program("docker-registry"), auth=auth) as registry,
        cluster_with(registry, tmp_path, []) as cluster,
    ):
        one, other = cluster.peers
        assert Client(one, registry.name, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]
        copy(registry, other, tmp_path / "copy", "carol")
        assert registry.gets(f"/v2/{PRIVATE}/blobs/{digest_of(LAYER)}") == 1
        refused = [value for value in REFUSED.values() if value != BOB]
        registry.__exit__()
        for authorization in (*refused, basic("carol", "wrong")):
            for path in (f"manifests/{digest_of(manifest)}", f"blobs/{digest_of(LAYER)}", "manifests/v1"):
                check_refused(Client(other, registry.name, authorization).ask(f"{PRIVATE}/{path}"), path)
        layer = f"{PRIVATE}/blobs/{digest_of(LAYER)}"
        assert Client(other, registry.name, CAROL).ask(layer).body == LAYER
        other.terminate()
        other.wait()
        other.restart()
        check_refused(Client(other, registry.name, CAROL).ask(layer), "proofs end with the process")
        registry.__enter__()
        assert Client(other, registry.name, CAROL).pull(PRIVATE)[1:] == [LAYER, SMALL]
        assert registry.gets(f"/v2/{layer}") == 0, "it was all here"
        for authorization in (*refused, basic("carol", "wrong")):
            for path in (f"manifests/{digest_of(manifest)}", f"blobs/{digest_of(LAYER)}", "manifests/v1"):
                check_refused(Client(other, registry.name, authorization).ask(f"{PRIVATE}/{path}"), path)


def test_a_login_that_a_machine_shares(images: tuple[Path, bytes, str], tmp_path: Path) -> None:
    folder, manifest, _ = images
    with (
        DockerRegistry(folder, require_program("docker-registry"), auth=htpasswd(tmp_path)) as registry,
        cluster_with(registry, tmp_path, [], sharing=True) as cluster,
    ):
        sharing, other = (Client(peer, registry.name) for peer in cluster.peers)
        assert sharing.pull(PRIVATE)[1:] == [LAYER, SMALL]
        for path in (f"manifests/{digest_of(manifest)}", f"blobs/{digest_of(LAYER)}", "manifests/v1"):
            check_refused(other.ask(f"{PRIVATE}/{path}"), "it is that machine's, and nobody else's")
            answer = client_with(sharing, REFUSED["a wrong password"]).ask(f"{PRIVATE}/{path}")
            check_refused(answer, "who shows something is judged by it")
        assert client_with(other, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]
        assert registry.gets(f"/v2/{PRIVATE}/blobs/{digest_of(LAYER)}") == 1


def test_a_repository_that_becomes_private(images: tuple[Path, bytes, str], tmp_path: Path) -> None:
    folder, manifest, _ = images
    short = {"DRAGONET_REGISTRY_PUBLIC_FOR": "1s", "DRAGONET_SOURCE_REVALIDATE": "oci-descriptor=1"}
    with (
        TokenService(frozenset({PRIVATE}), lifetime=1) as tokens,
        DockerRegistry(folder, require_program("docker-registry"), auth=tokens.auth) as registry,
        cluster_with(registry, tmp_path, [], short) as cluster,
    ):
        for peer in cluster.peers:
            assert Client(peer, registry.name).pull(PRIVATE)[1:] == [LAYER, SMALL]
        assert registry.gets(f"/v2/{PRIVATE}/blobs/{digest_of(LAYER)}") == 1
        tokens.public = frozenset()
        paths = [f"manifests/{digest_of(manifest)}", f"blobs/{digest_of(LAYER)}", "manifests/v1"]
        for peer in cluster.peers:
            client = Client(peer, registry.name)
            for path in paths:
                wait_until(
                    lambda client=client, path=path: client.ask(f"{PRIVATE}/{path}").status == 401,
                    f"{path} is refused",
                )
            for path in paths:
                check_refused(client.ask(f"{PRIVATE}/{path}"), path)
        registry.__exit__()
        for peer in cluster.peers:
            for path in paths:
                check_refused(Client(peer, registry.name).ask(f"{PRIVATE}/{path}"), path)
        registry.__enter__()
        assert Client(cluster.peers[0], registry.name, ALICE).pull(PRIVATE)[1:] == [LAYER, SMALL]


# --- what they use -------------------------------------------------------------------------------------


def check_refused(answer: Answer, what: str) -> None:
    """That nothing of a private image is in an answer."""
    assert answer.status in (400, 401, 403, 404, 429, 502, 503, 504), (
        f"{what}: {answer.status} {answer.text[:300]}"
    )
    assert "docker-content-digest" not in answer.headers, what
    assert "etag" not in answer.headers, what
    assert len(answer.body) < 2000, what
    if answer.body:
        assert "errors" in answer.json(), what


def client_with(client: Client, authorization: str) -> Client:
    """The same machine, with these credentials."""
    return Client(client.peer, client.registry, authorization)


def copy(
    registry: DockerRegistry,
    peer: Peer,
    place: Path,
    user: str,
    password: str = PASSWORD,
    *,
    repository: str = PRIVATE,
    fails: bool = False,
) -> str:
    """Have skopeo copy an image through a gateway to a folder; what it said."""
    login = ["--src-creds", f"{user}:{password}"] if user else []
    source = f"docker://{peer.gateway}/{registry.name.replace(':', '_')}/{repository}:v1"
    command = [
        require_program("skopeo"),
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        *login,
        source,
    ]
    place.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        [*bound_to_us(), *command, f"dir:{place}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(place.parent, {}),
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr.lower()


def scope_secret(world: World) -> bytes:
    """The secret from which the hosts of the cluster derive scopes."""
    (found, *_) = world.cluster.folder.glob("peer1/peer/scope-secret")
    return bytes.fromhex(found.read_text().split()[0])
