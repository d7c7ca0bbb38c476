"""Labels, and bytes by source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.gateway.metrics import GIB, MIB, shared_out, size_class
from shared.swarm.metrics import SOURCES


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (0, "0-1MiB"),
        (MIB, "0-1MiB"),
        (MIB + 1, "1-10MiB"),
        (100 * MIB, "10-100MiB"),
        (GIB, "100MiB-1GiB"),
        (10 * GIB, "1-10GiB"),
        (10 * GIB + 1, "10GiB-"),
    ],
)
def test_size_classes(length: int, name: str) -> None:
    assert size_class(length) == name


@given(st.integers(0, 1 << 40), st.dictionaries(st.sampled_from(SOURCES), st.integers(0, 1 << 40)))
def test_every_byte_has_one_source(sent: int, obtained: dict[str, int]) -> None:
    shares = shared_out(sent, obtained)
    assert sum(shares.values()) == sent
    assert all(count >= 0 for count in shares.values())
    assert set(shares) <= {source for source, count in obtained.items() if count} or not any(
        obtained.values()
    )


def test_shares() -> None:
    assert shared_out(10, {}) == {"store": 10}
    assert shared_out(10, {"store": 0, "peer": 0}) == {"store": 10}
    assert shared_out(11, {"peer": 30, "origin": 10}) == {"peer": 9, "origin": 2}
