"""From a file in the plugin folder to a client, and everything on the way that may go wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from cdn.config import SourceConfig
from cdn.sources.interface import AsyncResourceClient, SourceRequest
from cdn.sources.plugins import survey as surveying
from cdn.sources.plugins.finder import RETRY, PluginFinder
from cdn.sources.plugins.survey import survey
from cdn.sources.registry import SourceRegistry
from shared.errors import SourceError
from shared.plugins import PluginKind, PluginRecord, PluginRegistry, PluginState
from tests.unit.cdn.sources.plugins.writing import BLOCKED, GATE, GOOD, package, write

# What ends an endless loop may hit it in a callback of the garbage collector, which can only be reported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OTHER = "d7y-resource-plugin-other.py"


@pytest.fixture(autouse=True)
def clean_modules() -> Iterator[None]:
    before = set(sys.modules)
    GATE.close()
    yield
    GATE.open.set()
    for name in set(sys.modules) - before:
        if name.startswith(("_dragonet_plugin_", "d7yfs_source")):
            sys.modules.pop(name, None)


def config(folder: Path, **settings: object) -> SourceConfig:
    return SourceConfig(plugin_dir=folder, **settings)  # type: ignore[arg-type]


class Found:
    """A finder in use."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.plugins = PluginRegistry()
        self.finder = PluginFinder(config(folder, **settings), self.plugins)
        self.registry = SourceRegistry(self.finder)

    @property
    def records(self) -> list[PluginRecord]:
        return [record for record in self.plugins.current() if not record.in_tree]

    @property
    def states(self) -> list[str]:
        return [record.state.value for record in self.records]

    async def refused(self, scheme: str = "d7yfs") -> str:
        with pytest.raises(SourceError) as caught:
            await self.registry.get(scheme)
        assert caught.value.fault == "reader"
        return str(caught.value)

    async def get(self, scheme: str = "d7yfs") -> AsyncResourceClient:
        return await self.registry.get(scheme)


async def read(client: AsyncResourceClient) -> bytes:
    buffer = memoryview(bytearray(100))
    async with await client.download(SourceRequest("d7yfs://host/a")) as response:
        return bytes(buffer[: await response.receive_into(buffer)])


async def test_found_by_name_and_loaded_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "raise SystemExit", OTHER)
    found = Found(tmp_path)
    assert list(found.finder.schemes()) == ["d7yfs", "other"]
    assert "D7YFS" in found.registry
    assert found.finder.find("third") is None
    assert found.states == ["INACTIVE", "INACTIVE"]
    assert not [name for name in sys.modules if name.startswith("_dragonet_plugin_")]
    client = await found.get("D7yFS")
    assert await read(client) == b"hello world"
    assert found.states == ["ACTIVE", "INACTIVE"]
    (record, _) = found.records
    assert (record.identity, record.location) == (
        "d7y@d7yfs",
        str(tmp_path / "d7y-resource-plugin-d7yfs.py"),
    )
    assert await found.get() is client
    await found.registry.close()


async def test_a_file_dropped_in_is_found_and_one_taken_away_is_forgotten(tmp_path: Path) -> None:
    found = Found(tmp_path)
    assert list(found.finder.schemes()) == []
    words = await found.refused()
    assert f"plugins are looked for in {tmp_path}/d7y-resource-plugin-SCHEME.py" in words
    assert "entry points dragonet.sources" in words
    path = write(tmp_path)
    assert list(found.finder.schemes()) == ["d7yfs"]
    path.unlink()
    assert list(found.finder.schemes()) == []
    assert found.records == []
    write(tmp_path)
    assert await read(await found.get()) == b"hello world"
    path.unlink()
    write(tmp_path, GOOD, OTHER)
    assert found.states == ["ACTIVE", "INACTIVE"], "what is loaded goes on"


async def test_options_reach_the_plugin_and_secrets_reach_nobody(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("return 11", "raise ValueError(str(self.options))"))
    found = Found(tmp_path, options={"d7yfs": {"token": "hunter2hunter2", "root": "/srv/x"}})
    with pytest.raises(SourceError, match="'root': '/srv/x'") as caught:
        await (await found.get()).get_content_length(SourceRequest("d7yfs://host/a"))
    assert "d7yfs (" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_plugin_that_fails_is_tried_again_when_it_changes(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = write(tmp_path, "1 / 0")
    found = Found(tmp_path)
    words = await found.refused()
    assert words == (
        f"the source plugin d7yfs ({path}) cannot be used: "
        "line 1: its import raised ZeroDivisionError: division by zero"
    )
    assert found.states == ["FAILED"]
    assert found.records[0].reason == "line 1: its import raised ZeroDivisionError: division by zero"
    assert list(found.finder.schemes()) == ["d7yfs"], (
        "another host is not asked for what this one should read"
    )
    times = path.stat()
    path.write_text("x = 0")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.write_text("2 / 0")
    assert await found.refused() == words
    path.write_text(GOOD)
    assert await read(await found.get()) == b"hello world"
    assert found.states == ["ACTIVE"]


async def test_a_plugin_that_fails_is_tried_again_after_a_while(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    tries = tmp_path / "tries"
    write(tmp_path / "plugins", f"with open({str(tries)!r}, 'a') as f:\n    f.write('x')\n1 / 0")
    found = Found(tmp_path / "plugins")
    for _ in range(3):
        assert "division by zero" in await found.refused()
    assert tries.read_text() == "x"
    mock_clock.jump(RETRY)
    for _ in range(3):
        assert "division by zero" in await found.refused()
    assert tries.read_text() == "xx"


async def test_a_mode_that_is_mended_is_a_change(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.chmod(0o666)
    found = Found(tmp_path)
    assert f"chmod {'go' if os.geteuid() == 0 else 'o'}-w {path}" in await found.refused()
    path.chmod(0o644)
    os.chmod(tmp_path, 0o777)
    assert f"-w {tmp_path}" in await found.refused()
    os.chmod(tmp_path, 0o755)
    assert await read(await found.get()) == b"hello world"


async def test_two_for_one_scheme_are_both_refused_until_one_is_gone(tmp_path: Path) -> None:
    path = write(tmp_path)
    folder = tmp_path / "d7y-resource-plugin-d7yfs"
    write(folder, GOOD, "__init__.py")
    found = Found(tmp_path)
    assert list(found.finder.schemes()) == ["d7yfs"]
    words = await found.refused()
    assert f"({folder} and {path}): remove all but one" in words
    assert found.states == ["FAILED", "FAILED"]
    assert all("remove all but one" in record.reason for record in found.records)
    path.unlink()
    assert found.states == ["INACTIVE"]
    assert await read(await found.get()) == b"hello world"


async def test_a_file_and_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    path = write(tmp_path / "plugins")
    info = package(site, points="D7YFS = d7yfs_source")
    found = Found(tmp_path / "plugins")
    assert f"({path} and package d7yfs-source 1.5)" in await found.refused()
    path.unlink()
    client = await found.get()
    assert await read(client) == b"hello world"
    assert (found.records[0].location, found.records[0].version) == ("package d7yfs-source 1.5", "1.5")
    write(tmp_path / "plugins")
    assert sorted(found.states) == ["ACTIVE", "FAILED"]
    (refused,) = [record for record in found.records if record.state is PluginState.FAILED]
    assert refused.reason == (
        "d7yfs:// is read by package d7yfs-source 1.5 already: remove one of them, and restart"
    )
    assert await found.get() is client
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: d7yfs-source\nVersion: 1.6\n")
    (site / "touched").write_text("")
    assert sorted(found.states) == ["ACTIVE", "FAILED", "FAILED"], "what is loaded goes on"


async def test_what_is_built_in_goes_on(tmp_path: Path) -> None:
    for scheme in ("http", "S3", "file"):
        write(tmp_path, "raise SystemExit", f"d7y-resource-plugin-{scheme}.py")
    found = Found(tmp_path)
    assert list(found.finder.schemes()) == []
    for scheme in ("http", "s3", "file"):
        assert found.finder.find(scheme) is None
    assert found.states == ["FAILED"] * 3
    assert found.records[1].reason == "http:// is built in: remove the plugin, or give it another scheme"
    assert found.plugins.get(PluginKind.SOURCE, "http") is not None


async def test_what_is_built_in_tells_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = Found(tmp_path)
    by_name = {record.name: record for record in found.plugins.records()}
    assert by_name["http"].state is PluginState.ACTIVE
    assert by_name["s3"].reason == "it needs the package obstore: install dragonet[objectstore]"
    assert "source.file_roots" in by_name["file"].reason
    assert Found(tmp_path, file_roots=(tmp_path,)).plugins.get(PluginKind.SOURCE, "file") is not None


async def test_a_plugin_that_blocks_is_given_up_and_keeps_nobody_else_waiting(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    path = write(tmp_path, BLOCKED)
    write(tmp_path, GOOD.replace('"d7yfs"', '"other"'), OTHER)
    found = Found(tmp_path)
    told: list[str] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            told.append(await found.refused())

        nursery.start_soon(ask)
        await trio.to_thread.run_sync(GATE.reached.wait)
        assert found.states == ["STARTING", "INACTIVE"]
        assert await read(await found.get("other")) == b"hello world"
        mock_clock.jump(61)
    assert told == [
        f"the source plugin d7yfs ({path}) cannot be used: dragonet_plugin_init did not end within 60 s "
        "(source.plugin_timeout)"
    ]
    assert found.states == ["FAILED", "ACTIVE"]
    mock_clock.jump(10 * RETRY)
    assert await found.refused() == told[0], "no second thread for a plugin whose first one still hangs"
    path.write_text(GOOD + "# mended")
    assert await read(await found.get()) == b"hello world"


async def test_a_plugin_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    write(tmp_path, "x = []\nwhile True:\n    x.append(bytearray(1 << 16))")
    found = Found(tmp_path, plugin_memory=24 * 1024 * 1024)
    words = await found.refused()
    assert "its import took more" in words
    assert "(source.plugin_memory)" in words
    assert found.states == ["FAILED"]


async def test_who_hangs_up_spoils_nothing_for_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, BLOCKED)
    found = Found(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.get)
        await trio.to_thread.run_sync(GATE.reached.wait)
        nursery.cancel_scope.cancel()
    assert found.states == ["INACTIVE"]
    GATE.reached.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.get)
        await trio.testing.wait_all_tasks_blocked()
        GATE.open.set()
    assert found.states == ["ACTIVE"]
    assert not GATE.reached.is_set(), "the attempt that was under way is what came out"


async def test_an_async_entry_function_that_was_cancelled_is_called_anew(tmp_path: Path) -> None:
    waiting = "import trio\nfrom tests.unit.cdn.sources.plugins.writing import GATE\n" + GOOD.replace(
        "def dragonet_plugin_init(options):",
        "async def dragonet_plugin_init(options):\n"
        "    GATE.reached.set()\n"
        "    await trio.sleep(options['wait'] == 'yes' and 1e9)",
    )
    write(tmp_path, waiting)
    options = {"d7yfs": {"wait": "yes"}}
    found = Found(tmp_path, options=options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.get)
        await trio.to_thread.run_sync(GATE.reached.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert found.states == ["INACTIVE"]
    options["d7yfs"]["wait"] = "no"
    assert await read(await found.get()) == b"hello world"


async def test_the_survey_loads_everything_and_closes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    records = PluginRegistry()
    monkeypatch.setattr(surveying, "PluginRegistry", lambda: records)
    closed = tmp_path / "closed"
    plugins = tmp_path / "plugins"
    write(plugins, GOOD + f"\nClient.close = lambda self: open({str(closed)!r}, 'w').close()\n")
    write(plugins, BLOCKED, OTHER)
    write(plugins, "y = = 2", "d7y-resource-plugin-wrong.py")
    write(plugins, "", "README")
    surveys = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            surveys.append(await survey(config(plugins)))

        nursery.start_soon(look)
        await trio.to_thread.run_sync(GATE.reached.wait)
        while not closed.exists() or [r.state for r in records.records()].count(PluginState.FAILED) < 1:
            await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(surveying.PATIENCE)
    (found,) = surveys
    assert found.folder == plugins
    assert {r.name: (r.state.value, r.reason) for r in found.records if not r.in_tree} == {
        "d7yfs": ("ACTIVE", ""),
        "other": ("FAILED", "dragonet_plugin_init did not end within 10 s (source.plugin_timeout)"),
        "wrong": ("FAILED", "line 1: invalid syntax"),
    }
    assert found.refused
    for name in (OTHER, "d7y-resource-plugin-wrong.py"):
        (plugins / name).unlink()
    monkeypatch.undo()
    again = await survey(config(plugins))
    assert not again.refused
    assert [stray.words for stray in again.strays] == ["not valid plugin name: README"]
    write(plugins, "", "d7y-resource-plugin-x.so")
    assert (await survey(config(plugins))).refused
