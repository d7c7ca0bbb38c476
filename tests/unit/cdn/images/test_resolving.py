"""What images are made of, with a swarm that is a dictionary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from cdn.images import resolving as module
from cdn.images.manifests import EMPTY, ManifestError
from cdn.images.resolving import HasRegistryClient, ImageResolver
from cdn.images.specs import descriptor_spec, repository_scope
from cdn.sources.oci.client import Proven
from cdn.sources.oci.descriptor import Descriptor
from cdn.sources.oci.logins import Login
from shared.errors import SourceError
from shared.protocol import Resolved, ResolveWanted
from shared.swarm.host import Host
from shared.swarm.reading import ReadOrder, Whole

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "r.test/team/app:v1"
SECRET = b"s" * 32
ALICE = Login("alice", "pw")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Swarm:
    """Contents by digest; descriptors by tag, for those who may have them. Is host and reader at once."""

    def __init__(self) -> None:
        self.scope_secret = SECRET
        self.identity = SimpleNamespace(role="seeder")
        self.contents: dict[str, bytes] = {}
        self.descriptors: dict[str, Descriptor] = {}
        self.public = True
        self.own: Login | None = None
        self.good: list[Login] = []
        self.trouble: SourceError | None = None
        self.orders: list[ReadOrder] = []

    # --- making

    def add(self, value: Any, kind: str, tag: str = "") -> dict[str, Any]:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = digest_of(content)
        self.contents[digest] = content
        for name in (tag, digest):
            self.descriptors[name] = Descriptor(kind, digest, len(content))
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def image(self, *layers: bytes, tag: str = "", architecture: str = "amd64") -> dict[str, Any]:
        config = self.add({"os": "linux", "architecture": architecture, "layers": len(layers)}, "config")
        return self.add({"config": config, "layers": [self.add(one, "layer") for one in layers]}, OCI, tag)

    def index(self, tag: str, *entries: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        manifests = []
        for platform, entry in entries:
            os, _, architecture = platform.partition("/")
            told = {"platform": {"os": os, "architecture": architecture}} if platform else {}
            manifests.append(entry | told)
        return self.add({"manifests": manifests}, INDEX, tag)

    # --- being asked

    async def read_whole(self, _host: object, order: ReadOrder, limit: int) -> Whole:
        await trio.lowlevel.checkpoint()
        self.orders.append(order)
        spec = order.spec
        if self.trouble is not None:
            raise self.trouble
        if spec.scheme == "oci-descriptor":
            tag = spec.url.rpartition("@" if "@" in spec.url else ":")[2]
            if not self.public or tag not in self.descriptors:
                raise SourceError("no", origin_status=401 if not self.public else 404)
            return _whole(self.descriptors[tag].encode())
        assert (spec.scope != "") is (not self.public), "content is read in the scope in which it may be had"
        return _whole(self.contents[spec.digest])

    async def registry_client(self) -> Swarm:
        await trio.lowlevel.checkpoint()
        return self

    async def own_login(self, reference: object) -> Login | None:
        await trio.lowlevel.checkpoint()
        return self.own

    async def head(self, reference: Any, kind: str, login: Login) -> Proven:
        await trio.lowlevel.checkpoint()
        if login not in self.good:
            raise SourceError("these credentials are not accepted", origin_status=401)
        return Proven(self.descriptors[reference.tag or reference.digest], 0.0)


def _whole(data: bytes) -> Whole:
    return cast(Whole, SimpleNamespace(data=data, stale=False))


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> Swarm:
    made = Swarm()
    monkeypatch.setattr(module, "read_whole", made.read_whole)
    return made


async def resolve(
    swarm: Swarm,
    image: str = IMAGE,
    *platforms: str,
    headers: Mapping[str, str] | None = None,
    own_login: bool = True,
) -> Resolved:
    resolver = ImageResolver(cast(Host, swarm), cast(HasRegistryClient, swarm))
    wanted = ResolveWanted(7, image, 60.0, platforms, dict(headers or {}))
    return await resolver.resolve(wanted, own_login=own_login)


def whats(resolved: Resolved) -> list[str]:
    return [item.what.partition(" ")[0] for item in resolved.items]


async def test_an_image(swarm: Swarm) -> None:
    manifest = swarm.image(b"short", b"the longest layer", b"longer layer", tag="v1")
    resolved = await resolve(swarm)
    assert (resolved.job, resolved.image, resolved.private, resolved.notes) == (7, IMAGE, False, [])
    assert whats(resolved) == ["descriptor", "manifest", "config", "layer", "layer", "layer"]
    assert resolved.items[0].spec == descriptor_spec("r.test", "team/app", "v1")
    assert resolved.items[1].spec.digest == manifest["digest"]
    assert [item.length for item in resolved.items[3:]] == [17, 12, 5], "the longest first"
    assert all(item.length is not None and not item.spec.scope for item in resolved.items)
    assert swarm.orders[0].private_headers == {}


async def test_an_image_by_its_digest(swarm: Swarm) -> None:
    digest = swarm.image(b"layer", tag="v1")["digest"]
    resolved = await resolve(swarm, f"r.test/team/app@{digest}")
    assert resolved.items[0].spec == descriptor_spec("r.test", "team/app", digest)


async def test_all_platforms_of_an_index(swarm: Swarm) -> None:
    swarm.index(
        "v1",
        ("linux/amd64", swarm.image(b"one", b"shared")),
        ("linux/arm64", swarm.image(b"two", b"shared", architecture="arm64")),
        ("", swarm.image(b"attestation")),
    )
    resolved = await resolve(swarm)
    assert whats(resolved) == ["descriptor", "index", *["manifest"] * 3, *["config"] * 3, *["layer"] * 4]
    assert resolved.notes == ["2 platforms: name those that are needed with --platform to bring less"]


async def test_some_platforms_of_an_index(swarm: Swarm) -> None:
    swarm.index(
        "v1",
        ("linux/amd64", swarm.image(b"one")),
        ("linux/arm64", swarm.image(b"two", architecture="arm64")),
        ("", swarm.image(b"attestation")),
    )
    resolved = await resolve(swarm, IMAGE, "linux/arm64")
    assert whats(resolved) == ["descriptor", "index", "manifest", "config", "layer"]
    assert resolved.items[-1].spec.digest == digest_of(b"two")
    with pytest.raises(SourceError, match=r"not there for linux/s390x: it is for linux/amd64, linux/arm64"):
        await resolve(swarm, IMAGE, "linux/arm64", "linux/s390x")


async def test_indexes_within_indexes(swarm: Swarm) -> None:
    inner = swarm.index("inner", ("linux/amd64", swarm.image(b"one")))
    swarm.index("v1", ("", inner))
    assert whats(await resolve(swarm, IMAGE, "linux/amd64"))[:4] == [
        "descriptor",
        "index",
        "index",
        "manifest",
    ]
    entry = inner
    for _ in range(4):
        entry = swarm.index("deep", ("", entry))
    with pytest.raises(ManifestError, match="indexes within indexes"):
        await resolve(swarm, "r.test/team/app:deep")


async def test_an_image_of_one_platform(swarm: Swarm) -> None:
    swarm.image(b"one", tag="v1")
    assert whats(await resolve(swarm, IMAGE, "linux/amd64"))[-1] == "layer"
    with pytest.raises(SourceError, match=r"not there for linux/arm64: it is for linux/amd64"):
        await resolve(swarm, IMAGE, "linux/arm64")


async def test_an_artifact_is_for_every_platform(swarm: Swarm) -> None:
    empty = {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2}
    swarm.add({"config": empty, "layers": [swarm.add(b"model", "weights")]}, OCI, "v1")
    assert whats(await resolve(swarm, IMAGE, "linux/arm64")) == ["descriptor", "manifest", "layer"]


async def test_foreign_layers_are_left_out_with_a_note(swarm: Swarm) -> None:
    foreign = {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}
    layers = [swarm.add(b"base", "x") | foreign, swarm.add(b"own", "x")]
    swarm.add({"config": swarm.add({"os": "windows"}, "config"), "layers": layers}, OCI, "v1")
    resolved = await resolve(swarm)
    assert whats(resolved) == ["descriptor", "manifest", "config", "layer"]
    assert resolved.notes == ["one layer lies outside of registries and cannot be preheated"]


# --- who may have it ---------------------------------------------------------------------------------


async def test_a_private_image_with_the_credentials_of_the_order(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    swarm.public, swarm.good = False, [ALICE]
    resolved = await resolve(swarm, headers={"authorization": ALICE.basic})
    assert (resolved.private, resolved.own_login) == (True, False)
    assert whats(resolved) == ["manifest", "config", "layer"], "who pulls it asks the registry"
    scope = repository_scope(SECRET, "r.test", "team/app")
    assert {item.spec.scope for item in resolved.items} == {scope}
    assert [order.private_headers for order in swarm.orders] == [{}, {"authorization": ALICE.basic}]
    assert "the credentials of the order" in resolved.notes[0]


async def test_a_public_image_is_read_without_the_credentials_of_the_order(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    resolved = await resolve(swarm, headers={"authorization": ALICE.basic})
    assert not resolved.private
    assert not any(order.private_headers for order in swarm.orders)


async def test_a_private_image_with_the_seeders_login(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    swarm.public, swarm.own, swarm.good = False, ALICE, [ALICE]
    resolved = await resolve(swarm)
    assert (resolved.private, resolved.own_login) == (True, True)
    resolver = ImageResolver(cast(Host, swarm), cast(HasRegistryClient, swarm))
    shown = await resolver.own_headers(resolved.items[0].spec.url)
    assert shown == {"authorization": ALICE.basic}


async def test_the_seeders_login_is_not_for_everybody(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    swarm.public, swarm.own, swarm.good = False, ALICE, [ALICE]
    with pytest.raises(SourceError, match="no login of this host's is shown for a scheduler that was found"):
        await resolve(swarm, own_login=False)
    resolved = await resolve(swarm, headers={"authorization": ALICE.basic}, own_login=False)
    assert (resolved.private, resolved.own_login) == (True, False)


async def test_a_peers_own_login_is_not_used(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    swarm.public, swarm.own, swarm.good = False, ALICE, [ALICE]
    swarm.identity.role = "peer"
    with pytest.raises(SourceError, match="does not let everybody read team/app"):
        await resolve(swarm)


async def test_wrong_credentials_are_refused_by_the_registry(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    swarm.public, swarm.own, swarm.good = False, ALICE, [ALICE]
    with pytest.raises(SourceError, match="not accepted"):
        await resolve(swarm, headers={"authorization": "Bearer wrong"})


async def test_what_is_not_there_is_said_as_it_is(swarm: Swarm) -> None:
    with pytest.raises(SourceError) as caught:
        await resolve(swarm)
    assert caught.value.origin_status == 404


@pytest.mark.parametrize("status", [None, 429, 503])
async def test_trouble_is_no_reason_to_show_credentials(swarm: Swarm, status: int | None) -> None:
    swarm.good = [ALICE]
    swarm.trouble = SourceError("trouble", origin_status=status)
    with pytest.raises(SourceError, match="trouble"):
        await resolve(swarm, headers={"authorization": ALICE.basic})


async def test_a_manifest_that_is_too_long_is_not_read(swarm: Swarm) -> None:
    swarm.image(b"layer", tag="v1")
    told = swarm.descriptors["v1"]
    swarm.descriptors["v1"] = Descriptor(told.media_type, told.digest, 1 << 40)
    with pytest.raises(ManifestError, match="at most"):
        await resolve(swarm)
    assert len(swarm.orders) == 1
