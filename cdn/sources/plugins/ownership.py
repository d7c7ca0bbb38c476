"""Whether code may be run from a place: what others could have changed is refused.

Root runs what root alone may write. A user runs what the user or root owns and not everybody may write:
groups of one member are usual there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path


class UnsafePlace(Exception):
    """Others may write there; the message says where, and the command that ends it."""


def check_ownership(paths: Iterable[Path], uid: int | None = None) -> None:
    """Raises UnsafePlace when one of ``paths`` (symbolic links are followed) may be written by others than
    ``uid`` (default: who runs this) and root; OSError when one cannot be looked at. Blocking."""
    uid = os.geteuid() if uid is None else uid
    for path in paths:
        status = path.stat()
        if status.st_uid not in (0, uid):
            raise UnsafePlace(
                f"{path} belongs to {_user(status.st_uid)}, who could change what runs here: "
                f"chown {_user(uid)} {path}"
            )
        if uid == 0 and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafePlace(f"{path} may be written by others than root: chmod go-w {path}")
        if status.st_mode & stat.S_IWOTH:
            raise UnsafePlace(f"{path} may be written by everybody: chmod o-w {path}")


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
