"""The secret that the hosts of a cluster have in common, as this host keeps it: a file that only its user reads.

Scopes are derived from it (see ``cdn.images.specs``). Each host begins with one of its own; the scheduler makes
that of one host the cluster's.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from shared.errors import ConfigError
from shared.protocol import SECRET_SIZE


def read_scope_secret(data_dir: Path) -> bytes:
    """The secret of the host whose data folder this is; made at the first start. Blocking; ConfigError."""
    path = _path(data_dir)
    try:
        found = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        found = b""
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the cluster's secret in {path} cannot be read: {error}. Remove it: the scheduler tells it again"
        ) from None
    if len(found) == SECRET_SIZE:
        return found
    made = secrets.token_bytes(SECRET_SIZE)
    keep_scope_secret(data_dir, made)
    return made


def keep_scope_secret(data_dir: Path, secret: bytes) -> None:
    """Keep the secret for the next start. Blocking; raises ConfigError."""
    path = _path(data_dir)
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"the cluster's secret cannot be kept in {path}: {error}") from None


def _path(data_dir: Path) -> Path:
    return data_dir / "scope-secret"
