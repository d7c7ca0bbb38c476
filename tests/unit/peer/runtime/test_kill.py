"""Killed at any file operation, half-way through it or just after it: restore gives back the first bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peer.runtime import disk
from peer.runtime.configuring import configure
from peer.runtime.restoring import restore
from tests.unit.peer.runtime.test_changing import FILES
from tests.unit.peer.runtime.trees import GATEWAY, asked, machine, snapshot

MUTATING = (
    "open",
    "write",
    "fsync",
    "fchown",
    "fchmod",
    "rename",
    "unlink",
    "mkdir",
    "chmod",
    "rmdir",
    "close",
)


class Killed(BaseException):
    """The process ends here."""


class DyingOs:
    """``os``, of which the ``last`` mutating call is the process's last: not made, made by half, or made."""

    def __init__(self, last: int, how: str) -> None:
        self.last = last
        self.how = how
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in MUTATING else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls > self.last:
                if name == "close":
                    return real(*arguments, **named)  # the system closes what a dead process had open
                raise Killed
            if self.calls < self.last:
                return real(*arguments, **named)
            if self.how == "half" and name == "write":
                fd, content = arguments
                real(fd, bytes(content)[: len(content) // 2])
            elif self.how != "before" or name == "close":
                real(*arguments, **named)
            raise Killed

        return call


def run(monkeypatch: pytest.MonkeyPatch, last: int, how: str, work: Callable[[], object]) -> bool:
    """Whether the work was killed."""
    dying = DyingOs(last, how)
    with monkeypatch.context() as patched:
        patched.setattr(disk, "os", dying)
        try:
            work()
        except Killed:
            return True
    return False


def prepare(root: Path, name: str) -> None:
    root.mkdir()
    machine(root, FILES)
    if name == "again":
        for runtime in ("containerd", "podman"):
            configure(machine(root), asked(runtime, "quay.io"))


def configured(root: Path) -> None:
    there = machine(root)
    configure(there, asked("containerd", gateway="http://127.0.0.1:7000"))
    configure(there, asked("crio", "ghcr.io"))
    configure(there, asked("docker"))


@pytest.mark.parametrize("how", ["before", "half", "after"])
@pytest.mark.parametrize("name", ["first", "again"])
def test_killed_while_configuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    (tmp_path / "model").mkdir()
    machine(tmp_path / "model", FILES)
    first = snapshot(tmp_path / "model")
    for last in range(1, 10_000):
        root = tmp_path / f"{last}"
        prepare(root, name)
        killed = run(monkeypatch, last, how, lambda root=root: configured(root))  # type: ignore[misc]
        restore(machine(root))
        assert snapshot(root) == first, f"operation {last}"
        if not killed:
            break
    assert last > 50


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_killed_while_restoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    (tmp_path / "model").mkdir()
    machine(tmp_path / "model", FILES)
    first = snapshot(tmp_path / "model")
    for last in range(1, 10_000):
        root = tmp_path / f"{last}"
        prepare(root, "again")
        configured(root)
        killed = run(monkeypatch, last, how, lambda root=root: restore(machine(root)))  # type: ignore[misc]
        restore(machine(root))
        assert snapshot(root) == first, f"operation {last}"
        if not killed:
            break
    assert last > 20


def test_killed_and_configured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is finished by the next run, and the record of the first bytes is still the first."""
    (tmp_path / "model").mkdir()
    there = machine(tmp_path / "model", FILES)
    first = snapshot(tmp_path / "model")
    configured(tmp_path / "model")
    wanted = snapshot(tmp_path / "model")
    restore(there)
    for last in range(1, 10_000, 3):
        root = tmp_path / f"{last}"
        prepare(root, "first")
        killed = run(monkeypatch, last, "half", lambda root=root: configured(root))  # type: ignore[misc]
        configured(root)
        assert {p: f for p, f in snapshot(root).items() if not p.endswith("-new")} == wanted
        restore(machine(root))
        assert snapshot(root) == first, f"operation {last}"
        if not killed:
            break


def test_a_full_disk_is_said_and_leaves_a_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peer.runtime.errors import SetupError

    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    real = os.write
    left = [1]

    def write(fd: int, content: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device", None)
        left[0] -= 1
        return real(fd, content)

    monkeypatch.setattr(disk.os, "write", write)
    with pytest.raises(SetupError, match=r"No space left.*restore"):
        configure(there, asked("docker", gateway=GATEWAY))
    left[0] = 100
    restore(there)
    assert snapshot(tmp_path, journal=True) == first
