"""Whose data folder it is: one process at a time, on one boot of the machine. Blocking."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shared.errors import StoreDamaged, StoreLocked
from shared.store.environment import DISK_FULL, full


def boot_id() -> str:
    """Which boot of the machine this is; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def lock_folder(data_dir: Path) -> int:
    """Make the data folder and lock it; gives the descriptor that holds the lock until it is closed.

    Raises StoreLocked, StoreFull, or StoreDamaged when the folder cannot be used.
    """
    try:
        (data_dir / "content").mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreLocked(
            f"another dragonet (pid {owner or 'unknown'}) uses {data_dir}: "
            "stop it, or give --data-dir another folder"
        ) from None
    except OSError as error:
        os.close(lock)
        raise _unusable(data_dir, error) from None
    return lock


def _unusable(data_dir: Path, error: OSError) -> Exception:
    if error.errno in DISK_FULL:
        return full("disk")
    return StoreDamaged(
        f"the data folder {data_dir} cannot be used ({error.strerror}): give another with --data-dir"
    )
