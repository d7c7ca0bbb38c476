"""Which paths a glob stands for."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.tree.globs import MAX_GLOB, Glob


@pytest.mark.parametrize(
    ("glob", "paths", "others"),
    [
        ("*.bin", ["a.bin", "x/y/a.bin"], ["a.bin/x", "a.binx"]),
        ("a?c", ["abc", "x/abc"], ["ac", "a/c", "abcd"]),
        ("[ab].txt", ["a.txt", "d/b.txt"], ["c.txt"]),
        ("docs/*.md", ["docs/a.md"], ["a.md", "docs/x/a.md", "x/docs/a.md"]),
        ("/a.bin", ["a.bin"], ["x/a.bin"]),
        ("docs/", ["docs/a", "docs/x/y"], ["docs", "x/docs/a", "docsa"]),
        ("**/tmp/*", ["tmp/a", "x/tmp/a", "x/y/tmp/a"], ["tmp", "tmp/a/b"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "z", "a/b/zz"]),
        ("**", ["a", "a/b"], []),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("A*", ["Abc"], ["abc"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_paths(glob: str, paths: list[str], others: list[str]) -> None:
    assert [path for path in paths + others if Glob(glob).matches(path)] == paths


@pytest.mark.parametrize(
    ("glob", "folder", "covered"),
    [
        ("docs/", "docs", True),
        ("docs/**", "docs", True),
        ("docs/**", "docs/x", True),
        ("docs/**", "other", False),
        ("**", "any", True),
        ("docs/*", "docs", False),
        ("**/tmp/**", "x/tmp", True),
    ],
)
def test_what_covers_a_folder(glob: str, folder: str, covered: bool) -> None:
    assert Glob(glob).covers(folder) is covered


@pytest.mark.parametrize("text", ["", "/", "//", "x" * (MAX_GLOB + 1)])
def test_no_globs(text: str) -> None:
    with pytest.raises(ValueError, match=r"glob"):
        Glob(text)


def by_recursion(names: list[str], parts: list[str]) -> bool:
    """The rule, written as it is said."""
    if not names:
        return not parts
    if names[0] == "**":
        if len(names) == 1:
            return bool(parts)
        return any(by_recursion(names[1:], parts[n:]) for n in range(len(parts) + 1))
    return bool(parts) and bool(
        re.match(fnmatch.translate(names[0]), parts[0]) and by_recursion(names[1:], parts[1:])
    )


NAMES = st.sampled_from(["**", "*", "a", "b", "a*", "?", "[ab]b", "*b*"])
PARTS = st.sampled_from(["a", "b", "ab", "bb", "aab", "c"])


@given(st.lists(NAMES, min_size=1, max_size=5), st.lists(PARTS, min_size=1, max_size=5))
def test_any_glob_means_what_the_rule_says(names: list[str], parts: list[str]) -> None:
    assert Glob("/" + "/".join(names)).matches("/".join(parts)) == by_recursion(names, parts)


def test_a_glob_that_is_made_to_take_long_does_not() -> None:
    assert not Glob("**/" * 200 + "*a" * 100 + "b").matches("/".join(["a" * 250] * 8))
