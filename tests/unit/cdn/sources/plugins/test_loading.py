"""Plugins that do something wrong when they are loaded: each is refused in words, and leaves nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from cdn.sources.plugins.loading import Loading, PluginRefused, load_plugin
from cdn.sources.plugins.places import FilePlace
from tests.unit.cdn.sources.plugins.writing import BLOCKED, GATE, GOOD, write

ENTRY = "def dragonet_plugin_init(options):\n"


def place_of(path: Path) -> FilePlace:
    return FilePlace("d7yfs", path)


def left_behind() -> list[str]:
    return [name for name in sys.modules if name.startswith("_dragonet_plugin_")]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> object:
    """What a test that loads plugins well may leave is removed; see ``left_behind`` for the others."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("_dragonet_plugin_"):
            del sys.modules[name]


async def refused(path: Path, options: dict[str, str] | None = None) -> str:
    with pytest.raises(PluginRefused) as caught:
        await Loading(place_of(path), options or {}).wait()
    assert left_behind() == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no function dragonet_plugin_init"),
        ("dragonet_plugin_init = 3", "it has no function dragonet_plugin_init"),
        ("x = 1\nimport nothing_like_this\n", "line 2: it needs the module nothing_like_this, which is not"),
        ("from os import nothing", "line 1: its import raised ImportError: cannot import name 'nothing'"),
        ("x = 1\ny = = 2\n", "line 2: invalid syntax"),
        ("if x:\npass", "line 2: expected an indented block"),
        ("x = 'a\0b'", "null bytes"),
        ("1 / 0", "line 1: its import raised ZeroDivisionError: division by zero"),
        ("x = 1\nraise MemoryError", "line 2: its import took more memory than there was for it (source.plu"),
        ("raise KeyboardInterrupt", "line 1: its import raised KeyboardInterrupt"),
        ("import sys; sys.exit(0)", "line 1: its import wanted to end the process"),
        (ENTRY + "    return None", "dragonet_plugin_init gave None, expected (client, attributes)"),
        (ENTRY + "    return object()", "gave an object, expected (client, attributes)"),
        (ENTRY + "    return 1, 2, 3", "gave 3 values, expected (client, attributes)"),
        (ENTRY + "    return None, {}", "gave None as its client"),
        (
            ENTRY + "    raise ValueError('no\\n root')",
            "line 2: dragonet_plugin_init raised ValueError: no root",
        ),
        (ENTRY + "    raise SystemExit('bye')", "line 2: dragonet_plugin_init wanted to end the process"),
        ("def dragonet_plugin_init(): pass", "raised TypeError: dragonet_plugin_init() takes 0"),
        (
            "async " + ENTRY + "    raise ValueError('late')",
            "line 2: dragonet_plugin_init raised ValueError: late",
        ),
        ("async " + ENTRY + "    pass", "gave None, expected (client, attributes)"),
        (GOOD.replace('"type"', '"kind"'), "lacks the attribute 'type', expected 'resource'"),
        (GOOD.replace('"scheme": "d7yfs"', '"scheme": "other"'), "'scheme' is 'other', expected 'd7yfs'"),
        (GOOD.replace('"vendor": "d7y"', '"vendor": 7'), "'vendor' is of type int, expected a text"),
        (GOOD.replace("def download", "def upload").replace("(ResourceClient)", ""), "it lacks download"),
        (GOOD.replace("Client(options), {", "Client, {"), "the class Client"),
        (GOOD.replace("def get_last_modified", "def get_modified"), "abstract method"),
    ],
)
async def test_bad_plugins(tmp_path: Path, text: str, words: str) -> None:
    told = await refused(write(tmp_path, text))
    assert words in told
    assert "\n" not in told


async def test_secrets_among_the_options_are_not_told(tmp_path: Path) -> None:
    path = write(tmp_path, ENTRY + "    raise ValueError(f'cannot use {options}')")
    told = await refused(path, {"access_token": "hunter2", "root": "/srv"})
    assert "hunter2" not in told
    assert "'root': '/srv'" in told


async def test_what_others_may_write_is_not_run(tmp_path: Path) -> None:
    for path in (write(tmp_path, "raise SystemExit"), tmp_path):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert "chmod" in await refused(tmp_path / "d7y-resource-plugin-d7yfs.py")
        path.chmod(mode)
    folder = tmp_path / "d7y-resource-plugin-pack"
    write(folder, "raise SystemExit", "__init__.py")
    write(folder, "", "part.py").chmod(0o666)
    assert "part.py may be written" in await refused(folder)


async def test_a_link_is_as_safe_as_what_it_leads_to(tmp_path: Path) -> None:
    target = write(tmp_path / "elsewhere", "raise SystemExit", "plugin.py")
    link = write(tmp_path / "plugins")
    link.unlink()
    link.symlink_to(target)
    target.parent.chmod(0o777)
    assert f"chmod {'go' if target.stat().st_uid == 0 else 'o'}-w {target.parent}" in await refused(link)


async def test_gone(tmp_path: Path) -> None:
    assert await refused(tmp_path / "d7y-resource-plugin-d7yfs.py") == "its file is gone"


async def test_a_good_one_gets_its_options_and_clobbers_nothing(tmp_path: Path) -> None:
    import os as real

    path = write(tmp_path, GOOD, "d7y-resource-plugin-d7yfs.py")
    options = {"root": "/srv"}
    loaded = await Loading(place_of(path), options).wait()
    assert loaded.attributes["vendor"] == "d7y"
    assert loaded.client.options == options  # type: ignore[attr-defined]
    assert loaded.client.options is not options  # type: ignore[attr-defined]
    assert sys.modules["os"] is real
    assert "d7y-resource-plugin-d7yfs" not in sys.modules
    assert len(left_behind()) == 1
    again = await Loading(place_of(path), options).wait()
    assert type(again.client) is not type(loaded.client), "each attempt has a module of its own"


async def test_an_async_entry_function(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("def dragonet", "async def dragonet"))
    assert (await Loading(place_of(path), {}).wait()).attributes["name"] == "d7yfs"


async def test_a_folder_imports_its_own_parts_and_leaves_them_behind_only_when_it_works(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "d7y-resource-plugin-d7yfs"
    write(folder, "from . import part\n1 / 0\n", "__init__.py")
    write(folder, GOOD, "part.py")
    assert "line 2" in await refused(folder)
    write(folder, "from .part import dragonet_plugin_init\nfrom .below.deep import X\n", "__init__.py")
    write(folder / "below", "X = 3\n", "deep.py")
    write(folder / "below", "", "__init__.py")
    loaded = await Loading(place_of(folder), {}).wait()
    assert loaded.attributes["name"] == "d7yfs"
    (module,) = {name.partition(".")[0] for name in left_behind()}
    assert f"{module}.below.deep" in sys.modules
    write(folder, "y = = 2\n", "__init__.py")
    with pytest.raises(PluginRefused, match=r"line 1: invalid syntax"):
        await Loading(place_of(folder), {}).wait()
    write(folder, "from . import wrong\n", "__init__.py")
    write(folder, "\n\ny = = 2\n", "wrong.py")
    with pytest.raises(PluginRefused, match=r"line 3 of wrong\.py: invalid syntax"):
        await Loading(place_of(folder), {}).wait()


async def test_who_gives_up_leaves_a_thread_and_nothing_else(tmp_path: Path) -> None:
    GATE.close()
    loading = Loading(place_of(write(tmp_path, BLOCKED)), {})
    await trio.to_thread.run_sync(GATE.reached.wait)
    assert loading.doing == "dragonet_plugin_init"
    assert loading.running
    loading.give_up()
    assert left_behind() == []
    GATE.open.set()
    with pytest.raises(PluginRefused):
        await loading.wait()
    assert not loading.running
    assert left_behind() == []


def test_for_the_tests_of_a_plugin(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    client = load_plugin(path, {"a": "b"})
    assert client.options == {"a": "b"}  # type: ignore[attr-defined]
    path = write(tmp_path, GOOD.replace("def dragonet", "async def dragonet"))
    assert load_plugin(str(path)).options == {}  # type: ignore[attr-defined]
    with pytest.raises(PluginRefused, match="not a plugin's name"):
        load_plugin(write(tmp_path, GOOD, "plugin.py"))
    with pytest.raises(PluginRefused, match="gave None"):
        load_plugin(write(tmp_path, ENTRY + "    return None"))
    with pytest.raises(ZeroDivisionError):
        load_plugin(write(tmp_path, "1 / 0"))
