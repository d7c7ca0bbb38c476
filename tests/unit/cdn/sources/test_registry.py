"""Which client reads which scheme."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cdn.sources.interface import AsyncResourceClient
from cdn.sources.registry import SourceRegistry
from shared.errors import ConfigError, SourceError
from tests.unit.cdn.sources.examples import MemorySource


async def test_registry() -> None:
    registry, one = SourceRegistry(), MemorySource({})
    registry.register("D7YFS", one)
    registry.register("d7yfs", one)
    assert await registry.get("d7yFS") is one
    assert "d7yfs" in registry
    assert registry.schemes() == ["d7yfs"]
    with pytest.raises(ConfigError, match="two sources"):
        registry.register("d7yfs", MemorySource({}))
    with pytest.raises(SourceError, match="cannot read other") as caught:
        await registry.get("other")
    assert caught.value.fault == "reader"


async def test_clients_are_opened_when_they_are_asked_for_and_closed_once() -> None:
    opened: list[str] = []
    closed: list[AsyncResourceClient] = []

    class Closing(MemorySource):
        async def close(self) -> None:
            closed.append(self)

    async def opener() -> AsyncResourceClient:
        opened.append("lazy")
        return Closing({})

    registry = SourceRegistry()
    registry.offer("Lazy", opener)
    assert "LAZY" in registry
    assert opened == []
    client = await registry.get("lazy")
    assert await registry.get("LAZY") is client
    registry.register("other", client)
    await registry.close()
    assert (opened, closed) == (["lazy"], [client])


async def test_a_client_that_cannot_be_opened_is_tried_again() -> None:
    tries: list[int] = []

    async def opener() -> AsyncResourceClient:
        tries.append(1)
        if len(tries) == 1:
            raise SourceError("not now", fault="reader")
        return MemorySource({})

    registry = SourceRegistry()
    registry.offer("lazy", opener)
    with pytest.raises(SourceError, match="not now"):
        await registry.get("lazy")
    assert isinstance(await registry.get("lazy"), MemorySource)


async def test_what_is_missing_for_a_scheme_is_told() -> None:
    registry = SourceRegistry()
    registry.lack("S3", "it needs the package obstore")
    assert "s3" not in registry
    assert registry.schemes() == []
    with pytest.raises(SourceError, match="cannot read s3://: it needs the package obstore"):
        await registry.get("s3")


async def test_a_source_that_takes_long_to_open_keeps_no_other_one_waiting() -> None:
    async def never() -> AsyncResourceClient:
        await trio.sleep_forever()
        raise AssertionError

    async def at_once() -> AsyncResourceClient:
        return MemorySource({})

    registry = SourceRegistry()
    registry.offer("slow", never)
    registry.offer("quick", at_once)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.get, "slow")
        await trio.testing.wait_all_tasks_blocked()
        assert await registry.get("quick") is await registry.get("quick")
        nursery.cancel_scope.cancel()
