"""Plugins of installed packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdn.sources.plugins.loading import Loading, PluginRefused
from cdn.sources.plugins.packages import PluginPackages
from tests.unit.cdn.sources.plugins.writing import GOOD, age, package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules come from."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("d7yfs_source", GOOD),
        ("d7yfs_source:make", GOOD.replace("dragonet_plugin_init", "make")),
        ("d7yfs_source:Client.make", GOOD + "\nClient.make = dragonet_plugin_init\n"),
    ],
)
async def test_an_entry_point_is_a_module_or_a_function(site: Path, value: str, text: str) -> None:
    packages = PluginPackages()
    assert packages.places() == ()
    package(site, points=f"D7yFS = {value}", text=text)
    (place,) = packages.places()
    assert (place.scheme, place.location, place.version) == ("d7yfs", "package d7yfs-source 1.5", "1.5")
    assert "d7yfs_source" not in sys.modules, "looking for plugins runs none"
    loaded = await Loading(place, {}).wait()
    assert loaded.attributes["vendor"] == "d7y"


@pytest.mark.parametrize(
    ("value", "text", "words"),
    [
        ("d7yfs_source", "x = 1", "it has no function dragonet_plugin_init"),
        ("d7yfs_source:nothing.there", GOOD, "it has no function nothing.there"),
        ("missing_module", GOOD, "it needs the module missing_module, which is not installed"),
        ("d7yfs_source", "1 / 0", "its import raised ZeroDivisionError"),
        ("d7yfs_source", "x = = 1", "line 1 of d7yfs_source.py: invalid syntax"),
        ("d7yfs_source", GOOD.replace('"type"', '"kind"'), "lacks the attribute 'type'"),
    ],
)
async def test_bad_packages_leave_nothing_and_can_be_mended(
    site: Path, value: str, text: str, words: str
) -> None:
    info = package(site, points=f"d7yfs = {value}", text=text)
    packages = PluginPackages()
    (place,) = packages.places()
    with pytest.raises(PluginRefused) as caught:
        await Loading(place, {}).wait()
    assert words in str(caught.value)
    assert "d7yfs_source" not in sys.modules
    (site / "d7yfs_source.py").write_text(GOOD + "\n# mended")
    (info / "entry_points.txt").write_text("[dragonet.sources]\nd7yfs = d7yfs_source\n")
    age(site, 30)
    (place,) = packages.places()
    assert (await Loading(place, {}).wait()).attributes["name"] == "d7yfs"


def test_the_entry_points_are_remembered_until_a_folder_changes(site: Path) -> None:
    package(site, points="d7yfs = d7yfs_source")
    for folder in sys.path:
        if folder and Path(folder).is_dir() and str(site.parent) in folder:
            age(Path(folder))
    packages = PluginPackages()
    first = packages.places()
    package(site, name="other-source", module="other_source", points="other = other_source")
    assert [place.scheme for place in packages.places()] == ["d7yfs", "other"]
    assert packages.places()[0] == first[0]
    assert hash(packages.places()[0]) == hash(first[0])


def test_names_that_are_no_schemes_and_doubles_are_strays(site: Path) -> None:
    package(site, points="d7yfs = d7yfs_source\nD7YFS = d7yfs_source:make\n9fs = d7yfs_source")
    packages = PluginPackages()
    assert [place.location for place in packages.places()] == ["package d7yfs-source 1.5"]
    told = sorted(stray.words for stray in packages.strays)
    assert len(told) == 2
    assert told[0] == "not valid plugin name: 9fs = d7yfs_source (of package d7yfs-source 1.5)"
    assert "d7yfs" in told[1].lower()


async def test_a_package_that_changed_has_another_signature(site: Path) -> None:
    package(site, points="d7yfs = d7yfs_source", text="1 / 0")
    (place,) = PluginPackages().places()
    first = place.signature()
    assert place.signature() == first
    (site / "d7yfs_source.py").write_text(GOOD)
    assert place.signature() != first
    inside = site / "d7yfs_parts"
    inside.mkdir()
    (inside / "__init__.py").write_text("")
    (inside / "a.py").write_text("")
    package(site, name="parts", module="x", points="parts = d7yfs_parts.a")
    importlib.invalidate_caches()
    (_, parts) = PluginPackages().places()
    before = parts.signature()
    (inside / "a.py").write_text("x = 1")
    assert parts.signature() != before
