"""What is wanted of a folder, as text and as a filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.tree.order import MAX_GLOBS, MAX_LEVEL, Filter, TreeOrder, folder_url
from shared.errors import InvalidRequest
from shared.task.identity import make_spec

GLOBS = st.lists(st.text(min_size=1, max_size=20).filter(lambda text: text.strip("/")), max_size=5).map(tuple)


def test_text() -> None:
    order = TreeOrder(3, ("*.md", "a b&c"), ("tmp",))
    assert order.text == "v=1&level=3&include=*.md&include=a+b%26c&exclude=tmp"
    assert TreeOrder(contents=False).text == "v=1&level=5&list=1"


@given(st.integers(0, 1000), GLOBS, GLOBS, st.booleans())
def test_equal_wishes_have_equal_texts(
    level: int, include: tuple[str, ...], exclude: tuple[str, ...], contents: bool
) -> None:
    order = TreeOrder(level, include, exclude, contents)
    again = TreeOrder(level, include[::-1] + include, exclude[::-1], contents)
    assert order.text == again.text
    parsed = TreeOrder.parse(order.text)
    assert (parsed.level, parsed.contents) == (level, contents)
    assert (set(parsed.include), set(parsed.exclude)) == (set(include), set(exclude))


@given(st.text(max_size=200) | st.from_regex(r"v=1&level=\d+(&(include|exclude)=[a-z*/]*)*"))
def test_whatever_comes_is_an_order_with_that_text_or_refused(text: str) -> None:
    try:
        order = TreeOrder.parse(text)
    except InvalidRequest:
        return
    assert order.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=2&level=5",
        "level=5",
        "v=1&level=-1",
        "v=1&level=05",
        "v=1&level=5&level=6",
        "v=1&level=5&x=1",
        "v=1&level=5&list=0",
        "v=1&level=5&include=b&include=a",
        "v=1&level=5&include=",
        "v=1&level=5&include=" + "x" * 20_000,
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        TreeOrder.parse(text)


def test_bounds() -> None:
    with pytest.raises(InvalidRequest, match="level"):
        TreeOrder(-1)
    with pytest.raises(InvalidRequest, match="at most"):
        TreeOrder(include=tuple(f"{n}" for n in range(MAX_GLOBS + 1)))


def test_filter() -> None:
    wanted = Filter(TreeOrder(0, include=("*.bin", "docs/**"), exclude=("tmp", "docs/old/", "*.secret.bin")))
    assert wanted.levels == MAX_LEVEL
    assert [path for path in ("a.bin", "x/a.bin", "docs/a", "a.txt") if wanted.takes(path)] == [
        "a.bin",
        "x/a.bin",
        "docs/a",
    ]
    assert not wanted.takes("my.secret.bin")
    assert not wanted.takes("docs/old/a")
    assert wanted.enters("docs")
    assert not wanted.enters("x/tmp")
    assert not wanted.enters("docs/old")


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("http://h/a", "http://h/a/"),
        ("http://h/a/", "http://h/a/"),
        ("http://h", "http://h/"),
        ("http://h/a?b=c", "http://h/a/?b=c"),
        ("s3://bucket/prefix", "s3://bucket/prefix/"),
        ("file:///a", "file:///a/"),
    ],
)
def test_folder_url(url: str, folder: str) -> None:
    assert folder_url(url) == folder


def test_a_tree_is_another_task_than_a_file_and_than_another_tree() -> None:
    texts = ["", TreeOrder().text, TreeOrder(1).text, TreeOrder(include=("*",)).text]
    ids = {make_spec("http://h/a/", tree=text)[0].task_id for text in texts}
    assert len(ids) == len(texts)
