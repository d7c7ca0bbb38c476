"""TOML as text: statements are found where they are, and what is written means what it was made of."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.runtime import toml_text
from peer.runtime.errors import BrokenFile

AWKWARD = '''\
# a comment with [brackets] and "quotes"
title = "a # no comment"  # a comment
"quoted.key" = 'literal "x"'
multi = """
[not.a.table]
x = 1 \\""" still
"""
ends = """two quotes at its end"""""
literal = \'\'\'
[[nor.this]]
\'\'\'
list = [ # with a comment ]
  "a]", [1, 2], { b = "}" },
]
dotted."x.y".z = 1
  [plugins]
    [ plugins . "io.a" . 'b' ]  # spaces
      key = true
[[many]]
a = 1
[[many]]
[many.sub]
last = 2020-01-01'''


def test_where_statements_stand() -> None:
    found = [(s.kind, s.path) for s in toml_text.statements(AWKWARD)]
    assert found == [
        ("key", ("title",)),
        ("key", ("quoted.key",)),
        ("key", ("multi",)),
        ("key", ("ends",)),
        ("key", ("literal",)),
        ("key", ("list",)),
        ("key", ("dotted", "x.y", "z")),
        ("table", ("plugins",)),
        ("table", ("plugins", "io.a", "b")),
        ("key", ("plugins", "io.a", "b", "key")),
        ("array", ("many",)),
        ("key", ("many", "a")),
        ("array", ("many",)),
        ("table", ("many", "sub")),
        ("key", ("many", "sub", "last")),
    ]
    for statement in toml_text.statements(AWKWARD):
        text = AWKWARD[statement.start + len(statement.indent) : statement.end]
        assert tomllib.loads(text), text
        if statement.kind == "key":
            value = AWKWARD[statement.value : statement.end]
            assert tomllib.loads(f"x = {value}")["x"] is not None
    indents = {s.path: s.indent for s in toml_text.statements(AWKWARD) if s.kind == "table"}
    assert indents == {("plugins",): "  ", ("plugins", "io.a", "b"): "    ", ("many", "sub"): ""}


NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.dates()
    | st.datetimes()
    | st.times()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=5)


@given(TABLES)
def test_what_is_written_means_the_same(table: dict[str, object]) -> None:
    text = toml_text.write(table)
    assert tomllib.loads(text) == table


@given(TABLES)
def test_every_key_of_a_text_is_found(table: dict[str, object]) -> None:
    text = toml_text.write(table)
    for statement in toml_text.statements(text):
        node: object = table
        for name in statement.path:
            assert isinstance(node, dict)
            node = node[name]
        if statement.kind == "key":
            assert tomllib.loads(f"x = {text[statement.value : statement.end]}")["x"] == node


def test_what_is_broken_is_told_with_its_line() -> None:
    with pytest.raises(BrokenFile, match=r"/etc/x is broken, nothing was changed: .*line 2"):
        toml_text.load("/etc/x", "a = 1\nb =\n")
    with pytest.raises(BrokenFile, match=r"not UTF-8 \(at line 3\)"):
        toml_text.decode("/etc/x", b"a = 1\n\n\xff")
