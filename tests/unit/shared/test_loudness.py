"""What others can make happen without end does not fill the log."""

from __future__ import annotations

from shared.loudness import MOST, REST, Loudness


def test_much_at_once_and_then_little() -> None:
    loud = Loudness()
    assert sum(loud.one_more(50.0) for _ in range(1000)) == MOST
    assert loud.left_out == 1000 - MOST
    assert sum(loud.one_more(50.0 + second) for second in range(1, 106)) == 100 / REST
    assert sum(loud.one_more(1e6) for _ in range(1000)) == MOST
