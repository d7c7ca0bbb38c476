"""The short way to parse a command line means what the long one makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from hypothesis import given
from hypothesis import strategies as st

from peer.cli.app import app
from peer.cli.quick import _FLAGS, _GROUPS, _VALUES, quick

URL = "http://host/path?a=b"


def in_full(tokens: list[str]) -> dict[str, Any] | None:
    """What the full parser calls ``get`` with; None where it refuses."""
    try:
        command, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
    except CycloptsError:
        return None
    assert command.__name__ == "get"
    return dict(bound.arguments)


@pytest.mark.parametrize(
    "line",
    [
        "URL -o x",
        "-o x URL",
        "URL -o x --json --no-origin --tag t --limit 1MiB/s --timeout 3s",
        "URL -o dir/x --socket /run/s --config c.toml --set a.b=c --set d.e=f --verbose",
        "URL -r -o d --include *.bin --include a/** --exclude x --list",
        "URL --header A:b --header C:d --source-option a=b --no-env-credentials -o x",
        "URL -o x --digest sha256:00 --range 0-5 --application a --filter a&b",
        "URL",
    ],
)
def test_both_ways_mean_the_same(line: str) -> None:
    tokens = ["get", *line.replace("URL", URL).split()]
    found = quick(tokens)
    assert found is not None
    assert found == in_full(tokens)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "get",
        "get --help",
        "get URL --help",
        "get URL other -o x",
        "get URL -o",
        "get URL -o -x",
        "get URL -o=x",
        "get URL --output=x",
        "get URL -ox",
        "get URL -o x -o y",
        "get URL --jsn -o x",
        "get URL -o x --level 3",
        "get -- URL -o x",
        "get URL -o x --no-json",
        "ls",
        "up --json",
    ],
)
def test_what_is_left_to_the_full_parser(line: str) -> None:
    assert quick(line.replace("URL", URL).split()) is None


TOKENS = st.sampled_from(
    [*_FLAGS, *_VALUES, "--level", "-x", "--", "", "-", URL, "x", "a=b", "--json=1", "3"]
)


@given(st.lists(TOKENS, max_size=8))
def test_no_line_means_something_else(tokens: list[str]) -> None:
    found = quick(["get", *tokens])
    if found is not None:
        assert found == in_full(["get", *tokens])


def test_every_option_of_a_group_is_known() -> None:
    known = {*_FLAGS.values(), *_VALUES.values(), "level"}
    assert {name for names in _GROUPS.values() for name in names} <= known


def test_the_short_way_loads_neither_the_parser_nor_the_event_loop(tmp_path: Path) -> None:
    script = f"""
import sys
from peer.cli import main
code = main(["get", "h/x", "-o", {str(tmp_path / "x")!r}, "-r"])
print(code, sorted({{"cyclopts", "rich", "trio", "httpx", "h11"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert "has no scheme" in done.stderr
