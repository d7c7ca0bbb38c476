"""``GET /v1/lan`` from the client to the eyes of the daemon, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from peer.client import LocalClient, NoDaemon
from peer.lan.views import HostView, LanView
from peer.local_api import LocalApi, Look, look_alone
from shared.errors import DragonetError, Unavailable
from shared.http.listeners import listen_unix
from shared.http.router import Router
from shared.http.server import HttpServer
from shared.plugins import PluginRegistry
from shared.version import version
from tests.unit.shared.swarm.worlds import World, new_world

HERE = HostView(id="a", name="anna", state="present", rtt=None, member=True)
BERT = HostView(id="b", name="b\x1b[2J", addresses=("[fe80::1%eth0]:65002",), found=("mdns", "dns"), rtt=0.5)
VIEW = LanView(here=HERE, cluster="lab", mode="ring", hosts=(BERT,), ignored={"cluster": 3})


@asynccontextmanager
async def served(world: World, look: Look, place: Path) -> AsyncIterator[LocalClient]:
    router = Router()
    LocalApi(world.host, PluginRegistry(), look).add_routes(router)
    await world.nursery.start(HttpServer(router, name="local").serve, [await listen_unix(place)])
    yield LocalClient(place)


async def test_a_view_comes_through_as_it_is(tmp_path: Path) -> None:
    probes: list[bool] = []

    async def look(probe: bool) -> LanView:
        probes.append(probe)
        return VIEW

    async with new_world() as world, served(world, look, tmp_path / "s") as client:
        assert await client.lan(probe=True) == VIEW
        assert await client.lan(probe=False) == VIEW
        await client._call("GET", "/v1/lan?probe=0")
        await client._call("GET", "/v1/lan?probe=")
    assert probes == [True, False, False, False]


async def test_trouble_comes_through_in_words(tmp_path: Path) -> None:
    async def look(_probe: bool) -> LanView:
        raise Unavailable("not yet")

    async with new_world() as world, served(world, look, tmp_path / "s") as client:
        with pytest.raises(DragonetError, match="not yet"):
            await client.lan(probe=True)
    with pytest.raises(NoDaemon):
        await LocalClient(tmp_path / "nobody").lan(probe=True)


async def test_a_host_that_looks_for_nobody(tmp_path: Path) -> None:
    async with new_world() as world:
        look = look_alone(world.host, "lab", "http://s:8002")
        async with served(world, look, tmp_path / "s") as client:
            view = await client.lan(probe=True)
        assert (view.mode, view.schedulers, view.discovery, view.hosts) == (
            "configured",
            ("http://s:8002",),
            False,
            (),
        )
        here = view.here
        assert (here.id, here.role, here.state) == (world.host.identity.id, "peer", "present")
        assert (here.version, here.tasks, here.held, here.address) == (
            version(),
            0,
            0,
            world.host.identity.address,
        )
