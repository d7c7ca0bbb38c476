"""Plugins as tests write them, and gates at which a plugin that blocks can be held and let go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

GOOD = """
from cdn.sources.interface import ResourceClient, SourceResponse

class Client(ResourceClient):
    def __init__(self, options):
        self.options = options

    def get_content_length(self, request):
        return 11

    def is_support_range(self, request):
        return False

    def is_expired(self, request, info):
        return False

    def download(self, request):
        return SourceResponse(b"hello world")

    def get_last_modified(self, request):
        return -1

def dragonet_plugin_init(options):
    return Client(options), {"type": "resource", "name": "d7yfs", "scheme": "d7yfs", "vendor": "d7y"}
"""
"""A plugin that works."""

BLOCKED = """
from tests.unit.cdn.sources.plugins.writing import GATE

def dragonet_plugin_init(options):
    GATE.pass_through()
    from tests.unit.cdn.sources.plugins.writing import GOOD
    found = {}
    exec(GOOD, found)
    return found["dragonet_plugin_init"](options)
"""
"""A plugin whose entry function waits at the gate."""


class Gate:
    """What a plugin's thread waits at."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_through(self) -> None:
        """Called by the plugin."""
        self.reached.set()
        self.open.wait(60)

    def close(self) -> None:
        """As it was in the beginning."""
        self.reached.clear()
        self.open.clear()


GATE = Gate()


def write(folder: Path, text: str = GOOD, name: str = "d7y-resource-plugin-d7yfs.py") -> Path:
    """A file in the plugin folder, written by nobody but its owner, and with a time of change of its own."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / name
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def package(
    folder: Path, *, name: str = "d7yfs-source", module: str = "d7yfs_source", points: str, text: str = GOOD
) -> Path:
    """A package as an installer leaves it in ``folder``: a module, and what is known of the package."""
    (folder / f"{module}.py").parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[dragonet.sources]\n{points}\n")
    return info


def age(path: Path, seconds: float = 60) -> None:
    """Have ``path`` look as if it had not changed for so long."""
    when = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(when, when))
