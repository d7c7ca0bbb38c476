"""A registry, and the swarm in front of it, in memory: what each is asked, and who may have what."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from cdn.sources.oci.client import Proven
from cdn.sources.oci.descriptor import Descriptor
from cdn.sources.oci.logins import Login
from cdn.sources.oci.names import Kind, Reference
from peer.gateway import access as module
from peer.gateway.access import Access
from peer.gateway.config import RegistryConfig
from peer.gateway.target import Target
from shared.errors import SourceError, Unavailable
from shared.http.client import ClientResponse
from shared.http.fields import Headers
from shared.swarm.reading import ReadOrder

REGISTRY = "registry.example"
SECRET = b"s" * 32
BEARER = f'Bearer realm="https://{REGISTRY}/token",service="{REGISTRY}",scope="repository:team/app:pull"'


def basic(user: str, password: str = "secret") -> str:
    """The Authorization of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


ALICE, BOB, EVE = basic("alice"), basic("bob"), basic("eve")


def digest_of(text: str) -> str:
    """A digest."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def descriptor(text: str) -> Descriptor:
    """What ``text`` would have."""
    return Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(text), len(text))


def tag(name: str = "v1", repository: str = "team/app", *, prefix: str = "", ns: str = "") -> Target:
    """A manifest by tag."""
    return Target("manifests", REGISTRY, repository, tag=name, prefix=prefix, ns=ns)


def blob(text: str = "layer", repository: str = "team/app") -> Target:
    """A blob."""
    return Target("blobs", REGISTRY, repository, digest=digest_of(text))


def manifest(text: str = "v1", repository: str = "team/app") -> Target:
    """A manifest by digest."""
    return Target("manifests", REGISTRY, repository, digest=digest_of(text))


@dataclass
class FakeRegistry:
    """Repositories with who may read them ("" among the names: everybody). ``trouble`` is raised for all."""

    readers: dict[str, set[str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=lambda: {"v1": "v1"})
    blobs: set[str] = field(default_factory=lambda: {digest_of("layer"), digest_of("v1")})
    trouble: SourceError | None = None
    lifetime: float = math.inf
    challenge: str = BEARER
    delay: float = 0.0
    own: Login | None = None
    heads: list[tuple[str, str]] = field(default_factory=list)
    challenged: int = 0
    running: int = 0
    most: int = 0
    gets: list[tuple[str, str, Mapping[str, str], Login | None]] = field(default_factory=list)
    page: ClientResponse = field(default_factory=lambda: ClientResponse(200, Headers(), b"{}"))

    def judge(self, reference: Reference, who: str) -> Descriptor:
        """What the registry says to ``who``, whoever asks for it."""
        if self.trouble is not None:
            raise self.trouble
        if not {"", who} & self.readers.get(reference.repository, set()):
            raise SourceError(f"{reference} may not be read", origin_status=401)
        if reference.digest:
            if reference.digest not in self.blobs:
                raise SourceError(f"there is no {reference}", origin_status=404)
            return Descriptor("application/octet-stream", reference.digest, 5)
        if reference.tag not in self.tags:
            raise SourceError(f"there is no {reference}", origin_status=404)
        return descriptor(self.tags[reference.tag])

    # --- as RegistryClient -------------------------------------------------------------------------

    async def head(self, reference: Reference, kind: Kind, login: Login | None) -> Proven:
        who = login.username if login is not None else ""
        self.heads.append((who, reference.repository))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.delay)
        finally:
            self.running -= 1
        return Proven(self.judge(reference, who), trio.current_time() + self.lifetime)

    async def own_login(self, reference: Reference) -> Login | None:
        await trio.lowlevel.checkpoint()
        return self.own

    async def unauthenticated(self, reference: Reference, kind: Kind) -> ClientResponse:
        self.challenged += 1
        await trio.sleep(self.delay)
        if self.trouble is not None:
            raise self.trouble
        fields = [("www-authenticate", self.challenge)] if self.challenge else []
        return ClientResponse(401 if fields else 404, Headers(fields), b"")

    async def get(
        self,
        registry: str,
        repository: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        login: Login | None,
    ) -> ClientResponse:
        self.gets.append((f"{registry}/{repository}/{path}", query, headers, login))
        await trio.sleep(self.delay)
        if self.trouble is not None:
            raise self.trouble
        return self.page


class FakeSwarm:
    """Reads descriptors at the registry for everybody, and keeps them; ``held`` are contents by task id."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.kept: dict[str, Descriptor] = {}
        self.held: set[str] = set()
        self.orders: list[ReadOrder] = []
        self.looked: list[ReadOrder] = []
        self.answer: Callable[[Descriptor], bytes] = Descriptor.encode
        self.silent = False

    async def read_whole(self, _host: object, order: ReadOrder, limit: int) -> SimpleNamespace:
        self.orders.append(order)
        await trio.lowlevel.checkpoint()
        if self.silent:
            raise Unavailable("nobody answers")
        kept = self.kept.get(order.spec.url)
        try:
            read = self.registry.judge(_reference(order.spec.url), "")
        except SourceError as error:
            if kept is None or error.origin_status in (401, 403, 404):
                self.kept.pop(order.spec.url, None)
                raise
            return SimpleNamespace(data=self.answer(kept), stale=True, hit=True)
        self.kept[order.spec.url] = read
        return SimpleNamespace(data=self.answer(read), stale=False, hit=kept is not None)

    async def open_reading(self, _host: object, order: ReadOrder) -> SimpleNamespace:
        self.looked.append(order)
        await trio.lowlevel.checkpoint()
        if order.spec.task_id not in self.held:
            raise Unavailable("not in the cluster")
        return SimpleNamespace(aclose=trio.lowlevel.checkpoint)


def _reference(url: str) -> Reference:
    place = url.partition("://")[2].partition("?")[0]
    registry, _, rest = place.partition("/")
    name, at, digest = rest.partition("@")
    repository, _, tag_name = name.partition(":")
    return Reference(registry, repository, "" if at else tag_name, digest)


@dataclass
class World:
    """A gateway's access, with everything that it talks to."""

    registry: FakeRegistry
    swarm: FakeSwarm
    access: Access
    reader: Any


def new_world(
    monkeypatch: pytest.MonkeyPatch, config: RegistryConfig | None = None, **readers: set[str]
) -> World:
    """``readers``: who may read which repository ("team_app" is "team/app")."""
    registry = FakeRegistry({name.replace("_", "/"): who for name, who in readers.items()})
    swarm = FakeSwarm(registry)
    monkeypatch.setattr(module, "read_whole", swarm.read_whole)
    monkeypatch.setattr(module, "open_reading", swarm.open_reading)

    async def registry_client() -> Any:
        await trio.lowlevel.checkpoint()
        return registry

    reader = SimpleNamespace(registry_client=registry_client)
    host = SimpleNamespace(scope_secret=SECRET)
    access = Access(cast(Any, host), cast(Any, reader), config or RegistryConfig(allow=(REGISTRY,)))
    return World(registry, swarm, access, reader)
