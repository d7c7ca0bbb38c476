"""What the plugin folder holds, by name; and whose files are trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdn.sources.plugins.folder import PluginFolder, scheme_of
from cdn.sources.plugins.ownership import UnsafePlace, check_ownership
from tests.unit.cdn.sources.plugins.writing import GOOD, age, write


@pytest.mark.parametrize(
    ("name", "is_dir", "scheme"),
    [
        ("d7y-resource-plugin-d7yfs.py", False, "d7yfs"),
        ("d7y-resource-plugin-d7yfs", True, "d7yfs"),
        ("d7y-resource-plugin-D7yFS.py", False, "d7yfs"),
        ("d7y-resource-plugin-a.b+c-d.py", False, "a.b+c-d"),
        ("d7y-resource-plugin-d7yfs.so", False, ""),
        ("d7y-resource-plugin-d7yfs", False, ""),
        ("d7y-resource-plugin-d7yfs.py", True, ""),
        ("d7y-resource-plugin-.py", False, ""),
        ("d7y-resource-plugin-3fs.py", False, ""),
        ("d7y-resource-plugin-a_b.py", False, ""),
        ("d7y-manager-plugin-searcher.py", False, ""),
        ("d7yfs.py", False, ""),
    ],
)
def test_names(name: str, is_dir: bool, scheme: str) -> None:
    assert scheme_of(name, is_dir) == scheme


def test_plugins_and_strays(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "d7y-resource-plugin-pack", GOOD, "__init__.py")
    write(tmp_path / "d7y-resource-plugin-empty", "", "other.py")
    for name in ("d7y-resource-plugin-x.so", "notes.txt", "test_d7yfs.py", ".hidden", "__pycache__"):
        write(tmp_path, "", name)
    (tmp_path / "d7y-resource-plugin-loop.py").symlink_to("d7y-resource-plugin-loop.py")
    folder = PluginFolder(tmp_path)
    assert [(place.scheme, Path(place.location).name) for place in folder.places()] == [
        ("d7yfs", "d7y-resource-plugin-d7yfs.py"),
        ("loop", "d7y-resource-plugin-loop.py"),
        ("pack", "d7y-resource-plugin-pack"),
    ]
    assert [(stray.words, stray.meant) for stray in folder.strays] == [
        ("not valid plugin folder: d7y-resource-plugin-empty has no __init__.py", True),
        ("not valid plugin name: d7y-resource-plugin-x.so", True),
        ("not valid plugin name: notes.txt", False),
    ]


def test_a_folder_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    folder = PluginFolder(tmp_path / "plugins")
    assert folder.places() == ()
    assert folder.strays == ()
    write(tmp_path / "plugins")
    assert len(folder.places()) == 1
    broken = PluginFolder(write(tmp_path, "", "file"))
    assert broken.places() == ()
    assert "cannot list" in broken.strays[0].words
    assert broken.strays[0].meant


def test_the_listing_is_remembered_until_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[object] = []
    listdir = os.listdir

    def counting(path: object) -> list[str]:
        listed.append(path)
        return listdir(path)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(os, "listdir", counting)
    write(tmp_path)
    age(tmp_path)
    folder = PluginFolder(tmp_path)
    places = folder.places()
    assert folder.places() is places
    assert len(listed) == 1
    write(tmp_path, GOOD, "d7y-resource-plugin-other.py")
    assert len(folder.places()) == 2
    write(tmp_path, GOOD, "d7y-resource-plugin-third.py")
    # a change right after a listing may have the same time stamp: young listings are not believed
    assert len(folder.places()) == 3
    (tmp_path / "d7y-resource-plugin-third.py").unlink()
    age(tmp_path)
    assert len(folder.places()) == 2


def test_a_folder_plugin_is_seen_when_its_init_comes_later(tmp_path: Path) -> None:
    inside = tmp_path / "d7y-resource-plugin-pack"
    inside.mkdir()
    age(inside)
    age(tmp_path)
    folder = PluginFolder(tmp_path)
    assert folder.places() == folder.places() == ()
    write(inside, GOOD, "__init__.py")
    age(inside, 30)
    assert [place.scheme for place in folder.places()] == ["pack"]


ME = os.geteuid()


@pytest.mark.parametrize(
    ("mode", "uid", "words"),
    [
        (0o644, ME, ""),
        (0o755, ME, ""),
        (0o666, 0, "chmod go-w" if ME == 0 else "chown"),
        (0o664, 0, "others than root: chmod go-w" if ME == 0 else "chown"),
        (0o646, 1234 if ME == 0 else ME, "everybody: chmod o-w"),
        (0o664, 1234 if ME == 0 else ME, ""),
        (0o600, 1234 if ME == 0 else ME, ""),
    ],
)
def test_whose_files_are_trusted(tmp_path: Path, mode: int, uid: int, words: str) -> None:
    path = write(tmp_path)
    path.chmod(mode)
    if not words:
        check_ownership([path], uid)
        return
    with pytest.raises(UnsafePlace, match=words):
        check_ownership([path], uid)


@pytest.mark.skipif(ME != 0, reason="only root can give files away")
def test_files_of_others_are_not_trusted(tmp_path: Path) -> None:
    path = write(tmp_path)
    os.chown(path, 1234, -1)
    with pytest.raises(UnsafePlace, match=r"belongs to 1234.*: chown root "):
        check_ownership([path], 0)
    with pytest.raises(UnsafePlace, match="belongs to 1234"):
        check_ownership([path], 4321)
    check_ownership([path], 1234)
