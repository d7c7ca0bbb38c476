"""Machines made of a few files, for the tests of what changes them."""

from __future__ import annotations

import os
from pathlib import Path

from peer.runtime.configuring import Asked
from peer.runtime.machine import Machine
from peer.runtime.names import parse_gateway, parse_registries

GATEWAY = "http://127.0.0.1:65001"
ALLOW = ("docker.io", "ghcr.io", "quay.io")
DATA = "/data"

Snapshot = dict[str, tuple[str, bytes, int, int, int]]


class MemoryFiles:
    """``peer.runtime.plan.Files`` of a dictionary; a name that ends with a slash is an empty folder."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def read(self, path: str) -> bytes | None:
        return self.files[path].encode() if path in self.files else None

    def names(self, path: str) -> list[str]:
        below = [name.removeprefix(f"{path}/") for name in self.files if name.startswith(f"{path}/")]
        return sorted({name.split("/")[0] for name in below} - {""})

    def is_folder(self, path: str) -> bool:
        return any(name.startswith(f"{path}/") for name in self.files)

    def mode(self, path: str) -> int:
        return 0o640 if path in self.files else 0o644


def asked(
    runtime: str, *registries: str, gateway: str = GATEWAY, allow: tuple[str, ...] = ALLOW, **more: object
) -> Asked:
    chosen = parse_registries(registries, runtime)
    return Asked(runtime, parse_gateway(gateway), chosen, allow, "docker.io", **more)  # type: ignore[arg-type]


def machine(root: Path, files: dict[str, str] | None = None) -> Machine:
    """A machine below ``root`` with these files."""
    for path, text in (files or {}).items():
        place = root / path.lstrip("/")
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
    return Machine(root, Path(DATA))


def snapshot(root: Path, *, journal: bool = False) -> Snapshot:
    """Everything below ``root``: (kind, content, mode, uid, gid) by path; without the journal's folder."""
    found: Snapshot = {}
    for folder, folders, names in os.walk(root):
        if not journal and Path(folder) == root and DATA.lstrip("/") in folders:
            folders.remove(DATA.lstrip("/"))
        for name in [*folders, *names]:
            path = Path(folder) / name
            status = path.lstat()
            kind, content = "folder", b""
            if path.is_symlink():
                kind, content = "link", os.fsencode(os.readlink(path))
            elif path.is_file():
                kind, content = "file", path.read_bytes()
            found[str(path.relative_to(root))] = (
                kind,
                content,
                status.st_mode,
                status.st_uid,
                status.st_gid,
            )
    return found
