"""The command line. Only what a command needs is imported, so that ``get`` starts quickly."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code is returned: 0 done, 1 failed, 2 wrong usage, 128 + n ended by
    signal n."""
    from peer.cli.execution import execute

    return execute(arguments)
