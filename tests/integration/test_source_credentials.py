"""Credentials of sources stay with the host that was given them, and content stays with who may see it.

The hosts talk to the scheduler and to each other through recording proxies; what is searched for secrets is
everything that went through them, every file below the cluster's folder (logs, stores, what commands said),
and everything that a daemon or a command tells.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.moto import Moto
from tests.integration.net import request
from tests.integration.origins import Origin, random_content
from tests.integration.recording import Recorder
from tests.programs import require_module

PLUGIN = '''
"""Content that depends on who asks."""

import hashlib
from pathlib import Path

from cdn.sources.interface import ResourceClient, SourceResponse
from shared.errors import SourceError


class Vault(ResourceClient):
    def __init__(self, options):
        self.options = options

    def _token(self, request):
        token = request.headers.get("x-dragonet-source-token") or self.options["token"]
        with Path(self.options["seen"]).open("a") as seen:
            seen.write(token + "\\n")
        if request.url.endswith("/raises"):
            raise ValueError("who is " + token + "?")
        if request.url.endswith("/refuses"):
            raise SourceError("this is no token of mine: " + token, origin_status=403)
        return token

    def get_content_length(self, request):
        return -2

    def is_support_range(self, request):
        return False

    def is_expired(self, request, info):
        return False

    def get_last_modified(self, request):
        return -1

    def download(self, request):
        token = self._token(request)
        return SourceResponse([hashlib.sha256(token.encode()).digest()] * 1000)


def dragonet_plugin_init(options):
    return Vault(options), {"scheme": "vault", "type": "resource", "name": "vault"}
'''

CONFIGURED = "configured-0a5b1c9d7e"
ENVIRONED = "environed-4f6e8a2b3d"
OPTION = "option-91c8b7a6d5"
OTHER = "other-e7d6c5b4a3"
HEADER = "header-2b4d6f8a0c"
CALLER = "caller-5a3c1e9f7b"
SECRETS = (CONFIGURED, ENVIRONED, OPTION, OTHER, HEADER, CALLER)

AWS = {"AWS_ACCESS_KEY_ID": f"id-{CALLER}", "AWS_SECRET_ACCESS_KEY": CALLER}
"""What the user of a command has in the environment."""
OTHER_AWS = {"AWS_ACCESS_KEY_ID": f"id-{OTHER}", "AWS_SECRET_ACCESS_KEY": OTHER}


def vault(token: str) -> bytes:
    """What the plugin gives to who comes with this token."""
    import hashlib

    return hashlib.sha256(token.encode()).digest() * 1000


@dataclass
class World:
    """A scheduler, a seeder with credentials, two peers without, and what is recorded between them."""

    cluster: Cluster
    moto: Moto
    recorders: list[Recorder]
    folder: Path

    @property
    def seen(self) -> str:
        """The tokens that the plugin was given, one in each line."""
        return (self.folder / "seen").read_text()

    @property
    def peers(self) -> tuple[Peer, Peer]:
        """Both peers."""
        one, other = self.cluster.peers
        return one, other

    def check_hidden(self) -> None:
        """That no secret is where it should not be."""
        for where, told in self.everything():
            for secret in SECRETS:
                for form in forms(secret):
                    assert form not in told, f"{form!r} is in {where}"

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Whatever anybody could see: where, and what."""
        for recorder in self.recorders:
            yield f"what went to {recorder.target}", b"\n".join(recorder.streams)
        for path in self.cluster.folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()
        scheduler = self.cluster.scheduler
        assert scheduler is not None
        for daemon in self.cluster.daemons:
            if daemon.running:
                yield f"/metrics of {daemon.name}", request(daemon.address, "/metrics").body
        if scheduler.running:
            tasks = [f"/v1/tasks/{task['task_id']}" for task in scheduler.tasks()]
            for page in ("/v1/tasks", "/v1/hosts", *tasks):
                yield page, request(scheduler.address, page).body
        for peer in self.cluster.peers:
            if peer.running:
                for page in ("/v1/tasks", "/v1/plugins"):
                    yield f"{page} of {peer.name}", request(str(peer.socket), page).body


def forms(secret: str) -> list[bytes]:
    """How a secret may be written."""
    data = secret.encode()
    return [data, data.hex().encode(), *(base64.b64encode(b" " * n + data)[2 * n : -4] for n in range(3))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_module("moto")
    require_module("obstore")
    folder = tmp_path_factory.mktemp("credentials")
    with ExitStack() as stack:
        moto = stack.enter_context(Moto())
        moto.make_bucket("bucket")
        seen = folder / "seen"
        seen.touch()
        places = f"""
            [source.options.s3]
            endpoint = "{moto.endpoint}"
            [source.options.vault]
            seen = "{seen}"
            """
        (folder / "peer.toml").write_text(places)
        (folder / "seeder.toml").write_text(f'{places}\ntoken = "{CONFIGURED}"\n')
        cluster = Cluster()
        stack.callback(cluster.close)
        plugins = cluster.folder / "plugins"  # where every cluster of the tests looks for them
        plugins.mkdir()
        (plugins / "d7y-resource-plugin-vault.py").write_text(PLUGIN)
        scheduler = cluster.start_scheduler()
        recorders = [stack.enter_context(Recorder(scheduler.address)) for _ in range(4)]
        scheduler.address = recorders[0].address
        to_seeder, *to_peers = recorders[1:]
        seeder = cluster.start_seeder(
            wait=False,
            environ={
                "DRAGONET_CONFIG": str(folder / "seeder.toml"),
                "AWS_ACCESS_KEY_ID": f"id-{ENVIRONED}",
                "AWS_SECRET_ACCESS_KEY": ENVIRONED,
            },
            flags=["--advertise", to_seeder.address],
        )
        to_seeder.target = seeder.address
        for recorder in to_peers:
            peer = cluster.start_peer(
                wait=False,
                environ={"DRAGONET_CONFIG": str(folder / "peer.toml")},
                flags=["--advertise", recorder.address],
            )
            recorder.target = peer.address
        for daemon in cluster.daemons:
            daemon.wait_ready()
        world = World(cluster, moto, recorders, folder)
        yield world
        for daemon in cluster.daemons[::-1]:
            daemon.terminate()
            daemon.wait()
        world.check_hidden()
        problems = cluster.close()
        assert problems == []


def test_the_search_finds_what_is_there(world: World, origin: Origin) -> None:
    url = origin.add("/visible-in-all-places", b"x" * 1000)
    for peer in world.peers:
        world.cluster.get(url, peer).check(b"x" * 1000)
    found = [where for where, told in world.everything() if b"visible-in-all-places" in told]
    for place in ("what went to", "seeder1.log", "index.mdb", "/v1/tasks"):
        assert any(place in where for where in found), (place, found)


def test_configured_credentials(world: World) -> None:
    """The seeder's own: everybody may have what it reads with them, nobody learns them."""
    one, other = world.peers
    for peer in (one, other):
        world.cluster.get("vault://host/shared", peer).check(vault(CONFIGURED))
    assert world.seen.count(CONFIGURED) == 1
    content = random_content(600_000, seed=71)
    url = world.moto.put("bucket", "shared", content)
    for peer in (one, other):
        world.cluster.get(url, peer).check(content)
    world.check_hidden()


def test_credentials_of_a_request(world: World) -> None:
    """Each set has its own task, which only who comes with the same ones may have."""
    one, other = world.peers
    url = "vault://host/own"
    options = ("--source-option", f"token={OPTION}")
    mine = world.cluster.get(url, one, *options).check(vault(OPTION))
    assert world.seen.count(OPTION) == 1
    theirs = world.cluster.get(url, other, "--source-option", f"token={OTHER}").check(vault(OTHER))
    everybodys = world.cluster.get(url, other).check(vault(CONFIGURED))
    assert len({mine.task_id, theirs.task_id, everybodys.task_id}) == 3
    same = world.cluster.get(url, other, *options, "--no-origin").check(vault(OPTION))
    assert same.task_id == mine.task_id
    assert same.sources["peer"] == len(vault(OPTION))
    assert world.seen.count(OPTION) == 1
    told = world.cluster.run("stat", url, *options, "--json", "--socket", str(one.socket))
    assert json.loads(told.stdout)["task_id"] == mine.task_id
    world.check_hidden()


def test_credentials_from_the_environment_of_a_command(world: World) -> None:
    one, other = world.peers
    content = random_content(700_000, seed=72)
    url = world.moto.put("bucket", "own", content)
    mine = world.cluster.get(url, one, environ=AWS).check(content)
    assert mine.sources["origin"] == len(content), "who has credentials reads the source itself"
    read = world.moto.requests("/bucket/own")
    world.cluster.get(url, other, "--no-origin").check_failed()
    world.cluster.get(url, other, "--no-origin", environ=OTHER_AWS).check_failed()
    world.cluster.get(url, other, "--no-origin", "--no-env-credentials", environ=AWS).check_failed()
    assert world.cluster.get(url, other, "--no-origin", environ=AWS).check(content).task_id == mine.task_id
    assert world.moto.requests("/bucket/own") == read
    theirs = world.cluster.get(url, other, environ=OTHER_AWS).check(content)
    assert theirs.task_id != mine.task_id
    assert world.moto.requests("/bucket/own") > read
    plain = world.cluster.get(url, one, "--no-env-credentials", environ=AWS).check(content)
    assert plain.task_id not in (mine.task_id, theirs.task_id)
    told = world.cluster.run("stat", url, "--json", "--socket", str(one.socket), environ=AWS)
    assert json.loads(told.stdout)["task_id"] == mine.task_id
    removed = world.cluster.run("rm", url, "--socket", str(one.socket), environ=AWS)
    assert mine.task_id in removed.stdout
    world.check_hidden()


def test_a_command_without_a_daemon(world: World) -> None:
    config = {"DRAGONET_CONFIG": str(world.folder / "peer.toml")}
    token = ("--source-option", f"token={OPTION}")
    world.cluster.get("vault://host/alone", None, *token, environ=config).check(vault(OPTION))
    content = random_content(600_000, seed=74)
    url = world.moto.put("bucket", "alone", content)
    world.cluster.get(url, None, environ=config).check_failed("403")
    world.cluster.get(url, None, environ={**config, **AWS}).check(content)
    world.check_hidden()


def test_headers_of_http(world: World, origin: Origin) -> None:
    one, other = world.peers
    content = random_content(600_000, seed=73)
    url = origin.add("/private", content, authorization=f"Bearer {HEADER}")
    flags = ("--header", f"Authorization: Bearer {HEADER}")
    mine = world.cluster.get(url, one, *flags).check(content)
    world.cluster.get(url, other).check_failed("401")
    world.cluster.get(url, other, "--no-origin").check_failed()
    assert world.cluster.get(url, other, *flags, "--no-origin").check(content).task_id == mine.task_id
    world.cluster.get(url, one, "--header", f"Authorization: Bearer {OTHER}").check_failed("401")
    world.check_hidden()


@pytest.mark.parametrize("name", ["raises", "refuses"])
def test_errors_hold_no_credentials(world: World, name: str) -> None:
    """Not even when the source itself repeats them."""
    for flags in ((), ("--source-option", f"token={OPTION}")):
        world.cluster.get(f"vault://host/{name}", world.peers[0], *flags).check_failed("***")
    world.check_hidden()


def test_wrong_credentials_are_not_repeated(world: World) -> None:
    one, _ = world.peers
    world.cluster.get("s3://bucket/own", one, "--source-option", f"tokn={OPTION}").check_failed("tokn")
    world.cluster.get("s3://bucket/own", one, "--source-option", f"access_key_id={OPTION}").check_failed()
    world.cluster.get("s3://bucket/own", one, "--header", f"Authorization: {HEADER}").check_failed()
    world.check_hidden()


def test_commands_show_no_credentials(world: World) -> None:
    """What the seeder was started with, asked for in its own environment."""
    environ = world.cluster.seeders[0].environ
    for command in (("config",), ("plugin",), ("plugin", "--json"), ("config", "--verbose")):
        done = world.cluster.run(*command, environ=environ)
        assert done.returncode == 0, done.stderr
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
    assert '"token" = "***"' in world.cluster.run("config", environ=environ).stdout
