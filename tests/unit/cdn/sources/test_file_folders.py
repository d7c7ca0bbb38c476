"""Folders behind file://."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdn.sources import file as module
from cdn.sources.file import FileSource
from cdn.sources.interface import SourceRequest
from cdn.tree.frames import SMALL_FILE
from shared.errors import SourceError
from tests.unit.cdn.tree.folders import read_tree


async def names(client: FileSource, folder: Path | str) -> list[str]:
    found = await client.list(SourceRequest(f"file://{folder}"))
    base = f"file://{str(folder).rstrip('/')}/"
    assert all(entry.url.startswith(base) for entry in found)
    return [entry.url.removeprefix(base) for entry in found]


async def test_children(tmp_path: Path) -> None:
    (tmp_path / "sub" / "below").mkdir(parents=True)
    (tmp_path / "a b%?#.bin").write_bytes(b"123")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkfifo(tmp_path / "fifo")
    client = FileSource([tmp_path])
    expected = ["a%20b%25%3F%23.bin", "caf%E9/", "sub/"]
    assert await names(client, tmp_path) == expected
    assert await names(client, f"{tmp_path}/") == expected
    entry = (await client.list(SourceRequest(f"file://{tmp_path}")))[0]
    assert entry.size == 3
    answer = await client.download(SourceRequest(entry.url))
    await answer.aclose()
    assert answer.etag == entry.version


async def test_links_that_lead_out_are_left_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("x")
    (root / "inside").write_text("x")
    (root / "good").symlink_to("inside")
    (root / "bad").symlink_to(outside / "secret")
    (root / "worse").symlink_to(outside)
    (root / "nowhere").symlink_to("nothing")
    client = FileSource([root])
    assert await names(client, root) == ["good", "inside"]
    for folder in ("worse", "../outside"):
        with pytest.raises(SourceError) as caught:
            await names(client, f"{root}/{folder}")
        assert caught.value.origin_status == 403


async def test_what_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    client = FileSource([tmp_path])
    with pytest.raises(SourceError, match="cannot be listed: it is not a folder"):
        await names(client, tmp_path / "file")
    with pytest.raises(SourceError, match="No such file") as caught:
        await names(client, tmp_path / "gone")
    assert caught.value.origin_status == 404


async def test_a_folder_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(SourceError, match="more than 3 names"):
        await names(FileSource([tmp_path]), tmp_path)


async def test_a_tree(tmp_path: Path) -> None:
    files = {f"d{n % 3}/f{n}": os.urandom(n) for n in range(100)} | {"empty": b"", "most": bytes(SMALL_FILE)}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "large").write_bytes(bytes(SMALL_FILE + 1))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "unreadable").write_bytes(b"x")
    os.chmod(tmp_path / "unreadable", 0)
    collected, etag = await read_tree(FileSource([tmp_path]), root=f"file://{tmp_path}/")
    wanted = {**files, "unreadable": b"x"} if os.geteuid() == 0 else files
    assert collected.files == wanted
    assert collected.large == ["large"]
    assert not etag.startswith("W/")
    if os.geteuid() != 0:
        assert "Permission denied" in collected.refused["unreadable"]


async def test_what_grew_since_it_was_listed_is_not_taken_for_small(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    client = FileSource([tmp_path])
    list_before = client.list

    async def list_and_grow(request: SourceRequest) -> object:
        found = await list_before(request)
        (tmp_path / "file").write_bytes(bytes(SMALL_FILE + 1))
        return found

    client.list = list_and_grow  # type: ignore[method-assign,assignment]
    collected, _ = await read_tree(client, root=f"file://{tmp_path}/")
    assert collected.large == ["file"]
