"""The bounded table of what was heard by mDNS."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peer.lan.hearing import LIFETIME, Hearing
from peer.lan.records import Announcement, encode, instance

HERE = ("10.0.0.1",)


class Table(Hearing):
    """A table that counts how often it woke the other side."""

    def __init__(self, limit: int = 4) -> None:
        self.woken = 0
        super().__init__("default", limit, self._count)

    def _count(self) -> None:
        self.woken += 1

    def announce(self, name: str, *, port: int = 1, now: float = 0, cluster: str = "default") -> bool:
        text = encode(Announcement(id="a1", role="peer", cluster=cluster, port=port))
        return self.heard(instance(name), text, port, HERE, now)

    @property
    def news(self) -> list[tuple[str, bool]]:
        return [(key, found is not None) for key, found in self.take(100)[0]]


def test_only_news_are_told() -> None:
    table = Table()
    assert table.announce("x")
    assert table.woken == 1
    assert table.announce("x")
    assert table.woken == 1
    assert table.news == [("x", True)]
    table.announce("X")
    assert table.announce("x", port=2)
    assert table.news == [("x", True)]
    table.gone(instance("x"))
    table.gone(instance("x"))
    assert table.news == [("x", False)]
    assert table.news == []


def test_who_comes_and_goes_between_two_looks_was_never_there() -> None:
    table = Table()
    table.announce("x")
    table.gone(instance("x"))
    assert table.news == []


def test_who_is_left_out_is_counted_once() -> None:
    table = Table()
    for _ in range(3):
        assert table.announce("x", cluster="other")
    assert table.take(10) == ([], {"cluster": 1})
    assert table.announce("x")
    assert table.news == [("x", True)]
    table.announce("x", cluster="other")
    assert table.take(10) == ([("x", None)], {"cluster": 1})
    assert not table.malformed(instance("y"), 0) or table.take(1)[1] == {"malformed": 1}


def test_an_instance_needs_a_port_and_an_address() -> None:
    table = Table()
    text = encode(Announcement(id="a1", role="peer", cluster="default", port=1))
    table.heard(instance("x"), text, 0, HERE, 0)
    table.heard(instance("y"), text, 1, (), 0)
    table.heard(instance("z"), text, 70000, HERE, 0)
    assert table.take(10) == ([], {"malformed": 3})


def test_what_is_too_much_is_counted_and_forgotten() -> None:
    table = Table(limit=2)
    assert table.announce("a")
    assert table.announce("b")
    assert not table.announce("c")
    assert table.announce("a", port=7)
    for name in "defg":
        table.announce(name, cluster="other")
    news, ignored = table.take(10)
    assert {key for key, _ in news} == {"a", "b"}
    assert ignored == {"full": 1, "cluster": 4}
    assert len(table) == 2
    table.gone(instance("a"))
    assert table.announce("c")


def test_what_is_not_heard_again_ends() -> None:
    table = Table()
    table.announce("a", now=0)
    table.announce("b", now=0)
    table.announce("b", now=100)
    assert len(table.news) == 2
    table.expire(LIFETIME)
    assert table.news == [("a", False)]
    table.expire(LIFETIME + 100)
    assert table.news == [("b", False)]


def test_news_are_given_in_portions() -> None:
    table = Table()
    for name in "abcd":
        table.announce(name)
    assert [key for key, _ in table.take(3)[0]] == ["a", "b", "c"]
    assert [key for key, _ in table.take(3)[0]] == ["d"]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["here", "out", "gone", "take"]))))
def test_what_was_told_is_what_is_there(steps: list[tuple[str, str]]) -> None:
    table = Table(limit=3)
    there: set[str] = set()
    for name, step in steps:
        if step == "gone":
            table.gone(instance(name))
        elif step != "take":
            table.announce(name, cluster="default" if step == "here" else "other")
        else:
            _follow(table, there)
        assert len(table) <= 3
        assert len(table._news) <= 6
        assert len(table._out) <= 3
    _follow(table, there)
    assert there == {key for key in "abcdefgh" if table.find(instance(key))}


def _follow(table: Table, there: set[str]) -> None:
    for key, found in table.take(100)[0]:
        if found:
            there.add(key)
        else:
            there.remove(key)
