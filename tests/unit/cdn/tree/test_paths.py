"""Names from outside become paths below a folder, or nothing."""

from __future__ import annotations

import os
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdn.tree.paths import MAX_NAME, MAX_PATH, UnsafeName, relative_path, shown


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.bin", "a.bin"),
        ("x/y/a.bin", "x/y/a.bin"),
        ("a%20b", "a b"),
        ("%C3%A4.txt", "ä.txt"),
        (".hidden", ".hidden"),
        ("...", "..."),
        ("a..b", "a..b"),
        ("a?version=3", "a"),
        ("a#part", "a"),
        ("%25", "%"),
        ("100%", "100%"),
        ("caf%E9", os.fsdecode(b"caf\xe9")),
        ("-rf", "-rf"),
        ("x" * MAX_NAME, "x" * MAX_NAME),
    ],
)
def test_paths(name: str, path: str) -> None:
    assert relative_path(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        ".",
        "..",
        "../../etc/passwd",
        "a/../b",
        "%2e%2e",
        "%2e%2e%2fetc",
        "%2E%2E/x",
        "a%2fb",
        "%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "a\\b",
        "a%00b",
        "a\0b",
        "a%0Ab",
        "a%1b[31m",
        "%7f",
        "%C2%9b31m",
        "%E2%80%A8",
        "x" * (MAX_NAME + 1),
        "/".join(["x" * 200] * 20),
        "/".join("a" * 200),
        "?x",
        "#x",
    ],
)
def test_refused(name: str) -> None:
    with pytest.raises(UnsafeName):
        relative_path(name)


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "%2e",
        "%2F",
        "%5c",
        "\\",
        "%00",
        "a",
        "b.c",
        "%",
        "%C3%A4",
        "\n",
        " ",
        "~",
        "?",
        "#",
        "%ff",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=60))
@example("a/b")
def test_no_name_leads_out(name: str) -> None:
    try:
        path = relative_path(name)
    except UnsafeName:
        return
    data = os.fsencode(path)
    assert b"\0" not in data
    assert not data.startswith(b"/")
    assert os.path.normpath(data) == data
    assert data.split(b"/")[0] not in (b"..", b".")
    assert all(0 < len(part) <= MAX_NAME for part in data.split(b"/"))
    assert len(path) <= MAX_PATH
    # whatever is accepted comes back from its own URL
    assert relative_path(quote(data, safe="/")) == path


def test_shown() -> None:
    assert shown("a%0a%1b[31m%ff") == r"a\n\x1b[31m\xff"
    assert len(shown("x" * 10_000)) <= 200
