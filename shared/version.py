"""Which dragonet this is."""

from __future__ import annotations


def version() -> str:
    """The installed release, such as ``0.1.0``; "unknown" in a tree that is not installed."""
    from importlib import metadata  # 10 ms that only those who ask should pay

    try:
        return metadata.version("dragonet")
    except metadata.PackageNotFoundError:
        return "unknown"
