"""Who may have what: nobody, nothing, unless a registry gave it to everybody or to these credentials."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cdn.images.specs import blob_spec, manifest_spec, repository_scope
from cdn.sources.oci.logins import Login
from peer.gateway.access import Granted, Passed
from peer.gateway.config import RegistryConfig
from peer.gateway.proofs import TAG_FOR
from peer.gateway.target import Target
from shared.errors import InvalidRequest, SourceError, Unavailable
from tests.unit.peer.gateway.registries import (
    ALICE,
    BOB,
    EVE,
    REGISTRY,
    SECRET,
    World,
    blob,
    descriptor,
    digest_of,
    manifest,
    new_world,
    tag,
)

DOWN = SourceError("it cannot be reached", fault="reader")
BUSY = SourceError("too many requests", origin_status=429, retry_after=30)
SCOPE = repository_scope(SECRET, REGISTRY, "team/app")
EVERYTHING = (tag(), manifest(), blob())


async def granted(world: World, target: Target, authorization: str = "") -> Granted:
    verdict = await world.access.check(target, authorization)
    assert isinstance(verdict, Granted), verdict
    return verdict


async def refused(world: World, target: Target, authorization: str = "") -> int:
    """The status of the refusal."""
    try:
        verdict = await world.access.check(target, authorization)
    except SourceError as error:
        return error.origin_status or 0
    assert isinstance(verdict, Passed), verdict
    return verdict.response.status


# --- public --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", EVERYTHING, ids=["tag", "manifest", "blob"])
@pytest.mark.parametrize("shown", ["", EVE])
async def test_public_content(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, target: Target, shown: str
) -> None:
    world = new_world(monkeypatch, team_app={""})
    verdict = await granted(world, target, shown)
    assert (verdict.scope, verdict.headers, verdict.stale, verdict.cluster_only) == ("", {}, False, False)
    assert verdict.descriptor is not None
    (order,) = world.swarm.orders
    assert order.spec.scope == ""
    assert not order.private_headers
    assert order.spec.scheme == "oci-descriptor"
    assert ("kind=blob" in order.spec.url) == (target.kind == "blobs")
    assert world.registry.heads == []
    assert world.registry.challenged == 0


async def test_below_what_is_public_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    await granted(world, tag())
    for target in (blob(), manifest(), blob("another")):
        assert await granted(world, target) == Granted()
    assert len(world.swarm.orders) == 1
    await trio.sleep(301)
    await granted(world, blob())
    assert len(world.swarm.orders) == 2


async def test_a_tag_is_always_looked_up(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={""})
    assert (await granted(world, tag())).descriptor == descriptor("v1")
    world.registry.tags["v1"] = "v2"
    assert (await granted(world, tag())).descriptor == descriptor("v2")


@pytest.mark.parametrize("shown", ["Basic Og==", "basic Og=="])
async def test_an_empty_name_is_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, shown: str
) -> None:
    """Podman and skopeo show one where they have no login."""
    world = new_world(monkeypatch, team_app={"alice"}, open_app={""})
    await granted(world, tag(repository="open/app"), shown)
    assert await refused(world, tag(), shown) == 401
    assert world.registry.heads == []


async def test_public_is_one_repository(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={""}, team_other={"alice"})
    await granted(world, tag())
    assert await refused(world, blob("layer", "team/other")) == 401
    assert (
        await refused(world, Target("blobs", "other.example", "team/app2", digest=digest_of("layer"))) == 401
    )


async def test_a_repository_that_becomes_private(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.swarm.held = {blob_spec(REGISTRY, "team/app", digest_of("layer")).task_id}
    await granted(world, tag())
    await granted(world, blob())
    world.registry.readers["team/app"] = {"alice"}
    assert await refused(world, tag()) == 401
    assert await refused(world, blob()) == 401, "one refusal ends what was known"
    world.registry.trouble = DOWN
    await trio.sleep(10)
    for target in EVERYTHING:
        with pytest.raises(SourceError):
            await world.access.check(target, "")
    assert world.swarm.looked == []


async def test_a_repository_that_becomes_private_unasked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    await granted(world, blob())
    world.registry.readers["team/app"] = {"alice"}
    await trio.sleep(301)
    assert await refused(world, blob()) == 401


async def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.registry.challenge = ""
    assert await refused(world, tag("none")) == 404
    assert await refused(world, tag("none"), ALICE) == 404
    await granted(world, tag())


async def test_a_name_that_is_none_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch)
    with pytest.raises(InvalidRequest):
        await world.access.check(Target("manifests", "", "\n", tag="x"), "")


@pytest.mark.parametrize("data", [b"", b"{}", b'{"mediaType":"a","digest":"md5:1","size":1}'])
async def test_a_descriptor_that_is_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, data: bytes
) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.swarm.answer = lambda _: data
    with pytest.raises(SourceError, match="descriptor"):
        await world.access.check(tag(), "")


async def test_a_descriptor_of_something_else(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.swarm.answer = lambda _: descriptor("other").encode()
    with pytest.raises(SourceError, match="descriptor"):
        await world.access.check(blob(), "")


# --- private -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", EVERYTHING, ids=["tag", "manifest", "blob"])
async def test_the_clients_own_credentials(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, target: Target
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    verdict = await granted(world, target, ALICE)
    assert (verdict.scope, verdict.headers) == (SCOPE, {"authorization": ALICE})
    assert (verdict.descriptor is not None, verdict.stale, verdict.cluster_only) == (True, False, False)
    assert world.registry.heads == [("alice", "team/app")]
    assert len(world.swarm.orders) == 1
    assert not world.swarm.orders[0].private_headers


@pytest.mark.parametrize("target", EVERYTHING, ids=["tag", "manifest", "blob"])
@pytest.mark.parametrize("shown", ["", EVE, "Bearer abc", "nonsense", "Basic !!!", "Basic Og=="])
async def test_others_get_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, target: Target, shown: str
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    await granted(world, target, ALICE)
    await granted(world, target, ALICE)
    assert await refused(world, target, shown) == 401
    await trio.sleep(10)
    assert await refused(world, target, shown) == 401
    world.registry.trouble = BUSY
    await trio.sleep(10)
    assert await refused(world, target, shown) == 429
    assert world.swarm.looked == [], "a refused one is no reason to look what is held"


async def test_a_proof_is_for_one_repository(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"}, team_other={"bob"})
    await granted(world, tag(), ALICE)
    assert await refused(world, tag("v1", "team/other"), ALICE) == 401
    assert await refused(world, blob("layer", "team/other"), ALICE) == 401
    assert (await granted(world, blob("layer", "team/other"), BOB)).scope != SCOPE


async def test_a_proof_counts_for_all_of_its_repository(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    await granted(world, tag(), ALICE)
    for target in (manifest(), blob(), blob("unknown")):
        assert (await granted(world, target, ALICE)).headers == {"authorization": ALICE}
    assert (await granted(world, tag(), ALICE)).hit
    assert len(world.registry.heads) == 1
    await granted(world, tag("v1"), ALICE)
    with pytest.raises(SourceError):
        await world.access.check(tag("none"), ALICE)
    assert len(world.registry.heads) == 2


async def test_a_proof_ends(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    await granted(world, tag(), ALICE)
    world.registry.readers["team/app"] = {"bob"}
    await granted(world, blob(), ALICE)
    await trio.sleep(61)
    assert await refused(world, blob(), ALICE) == 401


@pytest.mark.parametrize("lifetime", [-1.0, 0.0, 1.0, 20.0])
async def test_a_proof_ends_with_its_token(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, lifetime: float
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    world.registry.lifetime = lifetime
    await granted(world, blob(), ALICE)
    world.registry.readers["team/app"] = {"bob"}
    await trio.sleep(max(0.0, lifetime) + 0.01)
    assert await refused(world, blob(), ALICE) == 401


async def test_a_tag_is_looked_up_with_the_credentials(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    config = RegistryConfig(allow=(REGISTRY,), proof_for=1000)
    world = new_world(monkeypatch, config, team_app={"alice"})
    await granted(world, tag(), ALICE)
    world.registry.tags["v1"] = "v2"
    assert (await granted(world, tag(), ALICE)).descriptor == descriptor("v1")
    await trio.sleep(TAG_FOR + 1)
    assert (await granted(world, tag(), ALICE)).descriptor == descriptor("v2")
    world.registry.trouble = DOWN
    await trio.sleep(TAG_FOR + 1)
    verdict = await granted(world, tag(), ALICE)
    assert verdict.stale
    assert verdict.descriptor == descriptor("v2")
    assert verdict.scope == SCOPE
    world.registry.trouble = None
    world.registry.readers["team/app"] = {"bob"}
    await trio.sleep(TAG_FOR + 1)
    assert await refused(world, tag(), ALICE) == 401
    assert await refused(world, blob(), ALICE) == 401, "the proof was given up with the refusal"


async def test_nothing_private_without_a_proof_while_a_registry_is_down(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    await granted(world, tag(), ALICE)
    world.registry.trouble = DOWN
    assert (await granted(world, blob(), ALICE)).scope == SCOPE
    await trio.sleep(61)
    for target in EVERYTHING:
        with pytest.raises(SourceError):
            await world.access.check(target, ALICE)


async def test_credentials_may_do_better_than_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A registry that is tired of everybody may still answer its users."""
    world = new_world(monkeypatch, team_app={"alice"})
    world.swarm.silent = True
    verdict = await granted(world, tag(), ALICE)
    assert verdict.scope == SCOPE


async def test_what_is_forgotten_is_proven_anew(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    await granted(world, blob(), ALICE)
    world.registry.readers["team/app"] = set()
    await trio.sleep(5)
    world.access.forget(blob(), ALICE)
    assert await refused(world, blob(), ALICE) == 401


async def test_forbidden_is_said_as_it_is(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    real = world.registry.judge

    def judge(reference: object, who: str) -> object:
        if who == "eve":
            raise SourceError("no", origin_status=403)
        return real(reference, who)  # type: ignore[arg-type]

    monkeypatch.setattr(world.registry, "judge", judge)
    assert await refused(world, tag(), EVE) == 403
    assert world.registry.challenged == 0


@pytest.mark.parametrize("shown", ["Basic \xe4", "Bearer a\r\nX: y", "Bearer\ta", "\x00", "\x7f"])
async def test_an_authorization_that_is_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, shown: str
) -> None:
    world = new_world(monkeypatch, team_app={""})
    with pytest.raises(InvalidRequest, match="ASCII"):
        await world.access.check(tag(), shown)
    world.access.forget(tag(), shown)


# --- challenges ----------------------------------------------------------------------------------------


async def test_what_is_to_be_shown_is_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    for shown in ("", EVE):
        verdict = await world.access.check(tag(), shown)
        assert isinstance(verdict, Passed)
        assert dict(verdict.response.headers)["www-authenticate"] == world.registry.challenge


async def test_who_names_the_registry_in_the_path_is_asked_for_a_password(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    verdict = await world.access.check(tag(prefix=f"{REGISTRY}/"), "")
    assert isinstance(verdict, Passed)
    assert dict(verdict.response.headers)["www-authenticate"].startswith('Basic realm="registry.example"')
    world.registry.challenge = 'Basic realm="theirs"'
    await trio.sleep(10)
    verdict = await world.access.check(tag(prefix=f"{REGISTRY}/"), "")
    assert isinstance(verdict, Passed)
    assert dict(verdict.response.headers)["www-authenticate"] == 'Basic realm="theirs"'


async def test_no_way_in(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    world.registry.challenge = ""
    with pytest.raises(SourceError, match="may not be read"):
        await world.access.check(tag(), "")


# --- trouble -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [DOWN, BUSY, SourceError("503", origin_status=503)])
@pytest.mark.parametrize("shown", ["", EVE])
async def test_what_was_public_is_served_from_the_cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, trouble: SourceError, shown: str
) -> None:
    world = new_world(monkeypatch, team_app={""})
    await granted(world, tag())
    await trio.sleep(1000)
    world.registry.trouble = trouble
    verdict = await granted(world, tag(), shown)
    assert verdict.stale
    assert verdict.scope == ""
    assert verdict.descriptor == descriptor("v1")
    for target, make in ((manifest(), manifest_spec), (blob(), blob_spec)):
        with pytest.raises(SourceError) as caught:
            await world.access.check(target, shown)
        assert (caught.value.origin_status, caught.value.retry_after) == (
            trouble.origin_status,
            trouble.retry_after,
        )
        spec = make(REGISTRY, "team/app", target.digest)
        world.swarm.held.add(spec.task_id)
        verdict = await granted(world, target, shown)
        assert verdict == Granted(stale=True, cluster_only=True, hit=False)
        order = world.swarm.looked[-1]
        assert order.cluster_only
        assert order.spec == spec
        assert not order.private_headers
    for order in world.swarm.looked:
        assert order.spec.scope == "", "what is private is never looked for"


async def test_a_registry_in_trouble_is_not_asked_for_each_blob(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.registry.trouble = BUSY
    for number in range(20):
        with pytest.raises(SourceError):
            await world.access.check(blob(str(number)), "")
    assert len(world.swarm.orders) == 1
    world.registry.trouble = None
    await trio.sleep(6)
    await granted(world, blob())


async def test_a_cluster_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.swarm.silent = True
    with pytest.raises(Unavailable):
        await world.access.check(tag(), "")
    world.swarm.held.add(blob_spec(REGISTRY, "team/app", blob().digest).task_id)
    assert (await granted(world, blob())).cluster_only


async def test_trouble_with_a_blob_does_not_hide_tags(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={""})
    await granted(world, tag())
    await trio.sleep(1000)
    world.registry.trouble = DOWN
    assert await refused(world, blob()) == 0
    assert (await granted(world, tag())).stale


async def test_what_is_known_not_to_be_public_is_not_served_stale(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Though this host has forgotten that the descriptor of the tag is outdated."""
    world = new_world(monkeypatch, team_app={""})
    await granted(world, tag())
    await trio.sleep(1000)
    world.registry.readers["team/app"] = {"alice"}
    assert await refused(world, blob()) == 401
    world.registry.trouble = DOWN
    await trio.sleep(10)
    with pytest.raises(SourceError, match="cannot be asked"):
        await world.access.check(tag(), "")


async def test_a_clear_no_is_no_trouble(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={""})
    world.swarm.held.add(blob_spec(REGISTRY, "team/app", blob("gone").digest).task_id)
    world.registry.challenge = ""
    assert await refused(world, blob("gone")) == 404
    assert world.swarm.looked == []


# --- shared logins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REGISTRY, REGISTRY.upper()])
async def test_a_shared_login(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, name: str) -> None:
    config = RegistryConfig(allow=(REGISTRY,), share_login=(name,))
    world = new_world(monkeypatch, config, team_app={"alice"})
    assert await refused(world, tag()) == 401
    world.registry.own = Login("alice", "secret")
    verdict = await granted(world, tag())
    assert (verdict.scope, verdict.headers) == (SCOPE, {"authorization": ALICE})
    await trio.sleep(10)
    assert await refused(world, tag(), EVE) == 401, "who shows something is judged by that"


async def test_a_shared_login_that_changes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    config = RegistryConfig(allow=(REGISTRY,), share_login=(REGISTRY,))
    world = new_world(monkeypatch, config, team_app={"alice"})
    world.registry.own = Login("alice", "secret")
    await granted(world, blob())
    world.registry.readers["team/app"] = {"bob"}
    world.access.forget(blob(), "")
    await trio.sleep(5)
    assert await refused(world, blob()) == 401


async def test_a_login_that_cannot_be_read_is_none(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    config = RegistryConfig(allow=(REGISTRY,), share_login=(REGISTRY,))
    world = new_world(monkeypatch, config, team_app={"alice"}, open_app={""})

    async def own_login(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise SourceError("docker's credentials cannot be read", fault="reader")

    monkeypatch.setattr(world.registry, "own_login", own_login)
    await granted(world, tag(repository="open/app"))
    assert await refused(world, tag()) == 401


async def test_a_login_is_shared_only_where_it_is_said(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    config = RegistryConfig(allow=("*",), share_login=("other.example",))
    world = new_world(monkeypatch, config, team_app={"alice"})
    world.registry.own = Login("alice", "secret")
    for target in EVERYTHING:
        assert await refused(world, target) == 401
    assert world.registry.heads == []


# --- floods --------------------------------------------------------------------------------------------


async def test_many_with_the_same_credentials_are_one_question(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    world.registry.delay = 1
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(granted, world, tag(), ALICE)
            nursery.start_soon(refused, world, tag(), EVE)
    assert sorted(world.registry.heads) == [("alice", "team/app"), ("eve", "team/app")]
    assert world.registry.challenged == 1


async def test_a_flood_of_wrong_credentials_stays_small_upstream(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    world.registry.delay = 0.1
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(refused, world, blob(), f"Bearer {number}")
    assert world.registry.most <= 8
    assert len(world.registry.heads) == 200


async def test_one_who_hangs_up_does_not_take_the_others_along(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    world.registry.delay = 1
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def hang_up() -> None:
            with first:
                await world.access.check(tag(), ALICE)

        nursery.start_soon(hang_up)
        await trio.sleep(0.1)
        nursery.start_soon(granted, world, tag(), ALICE)
        await trio.sleep(0.1)
        first.cancel()
    assert len(world.registry.heads) == 2


# --- secrets -------------------------------------------------------------------------------------------


async def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    world = new_world(monkeypatch, team_app={"alice"})
    verdict = await granted(world, tag(), ALICE)
    asker = await world.access.asker(tag(), ALICE)
    for shown in map(repr, (verdict, asker, world.access, world.access.asking, asker and asker.key)):
        for secret in (ALICE, ALICE.split()[1], "secret", SCOPE):
            assert secret not in shown
