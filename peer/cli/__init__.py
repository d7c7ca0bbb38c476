"""The command line. Only what a command needs is imported, so that ``get`` starts quickly."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code is returned: 0 done, 1 failed, 2 wrong usage, 128 + n ended by
    signal n."""
    collecting = gc.isenabled()
    gc.disable()  # what is loaded now stays: looking through it again and again is time lost
    try:
        from peer.cli.execution import execute

        code = execute(arguments)
    finally:
        if collecting:
            gc.enable()
    if arguments is None:
        # the whole process: everything is closed, and taking the rest apart piece by piece only takes time
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code
