"""Outside programs that tests need: there, or a skip that a machine checks (a failure where CI is set)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_PATH = os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/sbin:/sbin"


def require_program(name: str) -> str:
    """The path of a program. Skips the test without it; fails it when CI is set."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        _missing(f"the program {name} is not installed: run `make deps` as root")
    return found


def require_module(name: str) -> None:
    """Goes on where a Python module is installed. Skips the test without it; fails it when CI is set."""
    if importlib.util.find_spec(name) is None:
        _missing(f"the Python package {name} is not installed: run `make deps`")


def require_file(path: Path, cure: str) -> None:
    """Goes on where a file is there. Skips the test without it; fails it when CI is set."""
    if not path.exists():
        _missing(f"{path.name} is not in {path.parent}: {cure}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
