"""The secret that the hosts of a cluster have in common, as this host keeps it: a file that only its user reads.

Scopes are derived from it (see ``cdn.images.specs``). Each host begins with one of its own; the oldest of all
becomes the cluster's. The file holds it in hexadecimal, and when it was made.
"""

from __future__ import annotations

import os
import secrets
import time
from math import inf
from pathlib import Path

from shared.errors import ConfigError
from shared.protocol import SECRET_SIZE


def read_scope_secret(data_dir: Path) -> tuple[bytes, float]:
    """The secret of the host whose data folder this is, and when it was made, in Unix seconds; made at the first
    start. Blocking; ConfigError."""
    path = _path(data_dir)
    try:
        words = path.read_text(encoding="ascii").split()
        found = bytes.fromhex(words[0]) if words else b""
        since = float(words[1]) if len(words) > 1 else path.stat().st_mtime  # an older release's
    except FileNotFoundError:
        found, since = b"", 0.0
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the cluster's secret in {path} cannot be read: {error}. Remove it: the scheduler tells it again"
        ) from None
    if len(found) == SECRET_SIZE and 0 <= since < inf:
        return found, since
    made, now = secrets.token_bytes(SECRET_SIZE), time.time()
    keep_scope_secret(data_dir, made, now)
    return made, now


def keep_scope_secret(data_dir: Path, secret: bytes, since: float) -> None:
    """Keep the secret, made at ``since``, for the next start. Blocking; raises ConfigError."""
    path = _path(data_dir)
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secret.hex()} {since!r}\n")
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"the cluster's secret cannot be kept in {path}: {error}") from None


def _path(data_dir: Path) -> Path:
    return data_dir / "scope-secret"
