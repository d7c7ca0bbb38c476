import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.units import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
    write_size,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10G", 10 * 2**30),
        ("256MiB", 256 * 2**20),
        ("256 mib", 256 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("7B", 7),
        ("2t", 2 * 2**40),
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 2", "1e3", "10X", "0x10", "1.", "½", "1MiB/s", "٣"])
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 256MiB"):
        parse_size(text)


@given(st.integers(0, 2**60))
def test_written_sizes_are_read_back(count: int) -> None:
    assert parse_size(write_size(count)) == count


def test_rates() -> None:
    assert parse_rate("20MiB/s") == 20 * 2**20
    assert parse_rate("1.5GB") == 1_500_000_000
    assert parse_rate("0") == 0
    with pytest.raises(ValueError, match="20MiB/s"):
        parse_rate("fast")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10.0),
        ("2.5", 2.5),
        ("10s", 10.0),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1 m", 60.0),
        ("2d", 172800.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "10x", "1h 30", "inf", "nan", "1e9"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 10s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (256 * 2**20, "256 MiB"), (3 * 2**50, "3.0 PiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert format_size(count) == text
    assert format_rate(count) == f"{text}/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00s"), (0.354, "0.35s"), (12, "12.0s"), (59.99, "1m00s"), (185, "3m05s"), (7620, "2h07m")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
