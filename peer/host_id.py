"""The id under which others know a host, kept in its data folder."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from shared.errors import ConfigError

LONGEST = 64


def read_host_id(data_dir: Path) -> str:
    """The id of the host whose data folder this is; made at the first start. Blocking; ConfigError."""
    path = _path(data_dir)
    try:
        if path.exists():
            text = path.read_text(encoding="ascii").strip()
            if text and len(text) <= LONGEST and text.isalnum():
                return text
        made = new_host_id()
        path.write_text(made + "\n", encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the host id in {path} cannot be read or written: {error}") from None
    return made


def keep_host_id(data_dir: Path, host: str) -> None:
    """Keep another id for the next start. Blocking; ConfigError."""
    path = _path(data_dir)
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w", encoding="ascii") as file:
            file.write(host + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the host id cannot be kept in {path}: {error}") from None


def new_host_id() -> str:
    """One that nobody else has."""
    return secrets.token_hex(8)


def _path(data_dir: Path) -> Path:
    return data_dir / "host-id"
