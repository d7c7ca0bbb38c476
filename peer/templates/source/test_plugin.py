"""Tests the plugin beside this file; run it with pytest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdn.sources.interface import SourceRequest
from cdn.sources.testing import Example, SourceConformance, load_plugin
from shared.errors import SourceError

PLUGIN = Path(__file__).with_name("d7y-resource-plugin-templatefs.py")
CONTENT = os.urandom(300_000)


class TestConformance(SourceConformance):
    """What dragonet expects of every source."""

    @pytest.fixture
    def example(self, tmp_path: Path) -> Example:
        """A folder with a file and a folder in it, and how it changes."""
        (tmp_path / "folder" / "below").mkdir(parents=True)
        (tmp_path / "folder" / "file").write_bytes(CONTENT)

        def change() -> None:
            (tmp_path / "folder" / "file").write_bytes(CONTENT[::-1] + b"more")

        return Example(
            load_plugin(PLUGIN, {"root": str(tmp_path)}),
            url="templatefs://host/folder/file",
            content=CONTENT,
            missing="templatefs://host/folder/nothing",
            folder="templatefs://host/folder/",
            children={"below": True, "file": False},
            change=change,
        )


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    """What only this source has to be careful with."""
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("secret")
    client = load_plugin(PLUGIN, {"root": str(tmp_path / "root")})
    with pytest.raises(SourceError, match="leads out"):
        client.download(SourceRequest("templatefs://host/%2e%2e/secret"))
