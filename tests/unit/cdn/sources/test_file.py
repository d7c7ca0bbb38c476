"""What only the source behind file:// does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdn.sources.file import FileSource
from cdn.sources.interface import SourceCut, SourceRequest
from shared.errors import SourceError
from tests.unit.cdn.sources.examples import read


async def test_nothing_outside_the_folders_is_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_text("secret")
    (root / "link").symlink_to(secret)
    (root / "inside").write_text("fine")
    (root / "good").symlink_to(root / "inside")
    (tmp_path / "rootling").write_text("x")
    os.mkfifo(root / "fifo")
    client = FileSource([root])
    for path in ("link", "../secret", "%2e%2e/secret", "../rootling", "fifo", "."):
        with pytest.raises(SourceError) as caught:
            await client.download(SourceRequest(f"file://{root}/{path}"))
        assert (caught.value.fault, caught.value.origin_status) == ("reader", 403), path
    assert await read(await client.download(SourceRequest(f"file://localhost{root}/good"))) == b"fine"
    for url in (f"file://elsewhere{root}/inside", "file:relative", "file:///a%00b"):
        with pytest.raises(SourceError) as caught:
            await client.download(SourceRequest(url))
        assert caught.value.fault == "request"


async def test_a_file_that_changes_is_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    response = await FileSource([tmp_path]).download(SourceRequest(f"file://{path}"))
    async with response:
        buffer = memoryview(bytearray(10))
        assert await response.receive_into(buffer) == 10
        path.write_bytes(b"b" * 101)
        with pytest.raises(SourceCut, match="changed"):
            await response.receive_into(buffer)
