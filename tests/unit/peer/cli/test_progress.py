import io

import pytest

from peer.cli.progress import (
    BarDisplay,
    LineDisplay,
    NoDisplay,
    RateMeter,
    TreeDisplay,
    TreeProgress,
    choose_display,
    describe_progress,
    describe_sources,
    describe_tree,
)
from peer.orders import DownloadProgress

MIB = 1024 * 1024


def progress(done: int, length: int | None = 100 * MIB, **counts: int) -> DownloadProgress:
    return DownloadProgress(length=length, done=done, bytes=counts, parents=3)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter(window=4)
    assert meter.rate == 0
    for second in range(10):
        meter.add(second, 100 * second)
    assert meter.rate == pytest.approx(100)
    for second in range(10, 20):
        meter.add(second, 900)
    assert meter.rate == 0


def test_two_samples_at_the_same_time_are_no_rate() -> None:
    meter = RateMeter()
    meter.add(1, 0)
    meter.add(1, 100)
    assert meter.rate == 0


def test_sources_without_bytes_are_left_out() -> None:
    assert describe_sources({"origin": 5 * MIB, "peer": MIB, "store": 0}) == "peer 1.0 MiB, origin 5.0 MiB"
    assert describe_sources({}) == ""


def test_a_line() -> None:
    assert describe_progress(progress(50 * MIB, peer=50 * MIB), 10 * MIB) == (
        "50%, 50.0 MiB of 100 MiB, 10.0 MiB/s, peer 50.0 MiB, 3 parents, 5.0s left"
    )
    assert describe_progress(progress(MIB, length=None), 0) == "1.0 MiB, 0 B/s, 3 parents"
    assert describe_progress(progress(0, length=0), 0) == "0 B, 0 B/s, 3 parents"


def test_lines_come_every_five_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    display = LineDisplay(stream, clock)
    for tick in range(24):
        clock.now = tick / 2
        display.update(progress(tick * MIB, peer=tick * MIB))
    display.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("10%, 10.0 MiB of 100 MiB, 2.0 MiB/s")


def test_the_bar_shows_sources_rate_and_parents() -> None:
    clock, stream = Clock(), Terminal()
    display = BarDisplay("[file]", stream, clock)
    for tick in range(1, 5):
        clock.now = tick
        display.update(progress(tick * MIB, peer=tick * MIB))
    display.close()
    shown = stream.getvalue()
    assert "[file]" in shown
    assert "1.0 MiB/s" in shown


def test_the_display_suits_the_stream() -> None:
    assert isinstance(choose_display("f", silent=True), NoDisplay)
    assert isinstance(choose_display("f", silent=False, stream=io.StringIO()), LineDisplay)


def tree(files: int, total: int = 200, expected: int = 20 * MIB) -> TreeProgress:
    return TreeProgress(files, total, files * MIB, expected, {"origin": files * MIB, "store": 0})


def test_the_line_of_a_folder() -> None:
    assert describe_tree(tree(0, -1), 0) == "listing"
    assert (
        describe_tree(tree(10), 5 * MIB)
        == "10 of 200 files, 10.0 MiB of 20.0 MiB, 5.0 MiB/s, origin 10.0 MiB"
    )
    assert describe_tree(tree(10, expected=-1), 0).startswith("10 of 200 files, 10.0 MiB, ")


def test_a_folder_has_a_line_every_few_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    display = TreeDisplay(silent=False, stream=stream, clock=clock)
    for second in range(12):
        clock.now = float(second)
        display.update(tree(second))
    display.close()
    assert len(stream.getvalue().splitlines()) == 2


def test_a_folder_has_a_bar_on_a_terminal_when_it_takes_a_while() -> None:
    stream, clock = Terminal(), Clock()
    display = TreeDisplay(silent=False, stream=stream, clock=clock)
    display.update(tree(1))
    assert stream.getvalue() == ""
    for tenth in range(20):
        clock.now = tenth / 10
        display.update(tree(tenth))
    display.close()
    assert "18 of 200 files" in stream.getvalue()


def test_silence_for_a_folder() -> None:
    clock = Clock()
    stream = io.StringIO()
    display = TreeDisplay(silent=True, stream=stream, clock=clock)
    clock.now = 100
    display.update(tree(1))
    display.close()
    assert stream.getvalue() == ""
