"""Files out of a stream."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdn.tree.frames import Begun, Ended, File, Head, Refused, head_frame
from peer.cli.folder import TargetFolder
from peer.cli.unpacking import Outcome, Unpacker
from shared.errors import InvalidRequest


def stream(*parts: Head | bytes) -> bytes:
    return b"".join(part if isinstance(part, bytes) else head_frame(part) for part in parts)


def unpacked(target: Path, data: bytes, step: int = 1000) -> Outcome:
    with TargetFolder(target) as folder:
        unpacker = Unpacker(folder)
        try:
            for start in range(0, len(data), step):
                unpacker.feed(memoryview(data)[start : start + step])
        finally:
            unpacker.close()
        return unpacker.outcome


def files(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_files_and_the_rest(tmp_path: Path, step: int) -> None:
    data = stream(
        Begun(6, 9),
        Refused("bad%00", "its name is not safe"),
        File("a%20b", 3),
        b"123",
        File("x/empty", 0),
        File("x/big", -1, 5_000_000),
        Refused("x/gone", "404", again=True),
        File("x/y/c", 100),
        b"c" * 100,
        Ended(6),
    )
    outcome = unpacked(tmp_path, data, step)
    assert files(tmp_path) == {"a b": b"123", "x/empty": b"", "x/y/c": b"c" * 100}
    assert outcome == Outcome(
        total=6,
        expected=9,
        files=3,
        length=103,
        later=[("x/big", ""), ("x/gone", "404")],
        failed=[(r"bad\x00", "its name is not safe")],
    )


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize("name", ["../out", "/abs", "%2e%2e/out", "a%2f..", "", "x\\y", "a%0a", "x" * 300])
def test_a_stream_is_not_believed_about_names(tmp_path: Path, name: str, step: int) -> None:
    target = tmp_path / "target"
    data = stream(Begun(2), File(name, 3), b"bad", File("good", 4), b"good", Ended(2))
    outcome = unpacked(target, data, step)
    assert files(tmp_path) == {"target/good": b"good"}
    assert len(outcome.failed) == 1
    assert outcome.files == 1


def test_the_same_name_twice_and_names_in_each_others_way(tmp_path: Path) -> None:
    parts: list[Head | bytes] = [Begun(5)]
    for name in ("a", "a", "a/b", "c/d", "c"):
        parts += [File(name, 1), b"x"]
    outcome = unpacked(tmp_path, stream(*parts, Ended(5)))
    assert set(files(tmp_path)) == {"a", "c/d"}
    assert [name for name, _ in outcome.failed] == ["a", "a/b", "c"]


def test_beginning_again(tmp_path: Path) -> None:
    with TargetFolder(tmp_path) as folder:
        unpacker = Unpacker(folder)
        unpacker.feed(memoryview(stream(Begun(2), File("a", 1), b"1", File("b", 5), b"12")))
        unpacker.begin()
        assert not unpacker.ended
        unpacker.feed(memoryview(stream(Begun(1), File("a", 1), b"2", Ended(1))))
        assert unpacker.ended
    assert files(tmp_path) == {"a": b"2"}
    assert unpacker.outcome.files == 1


@given(st.binary(max_size=200), st.integers(1, 50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_junk_writes_nothing_outside(tmp_path: Path, junk: bytes, step: int) -> None:
    target = tmp_path / "target"
    with contextlib.suppress(InvalidRequest):
        unpacked(target, stream(Begun(1), File("ok", 2), b"ok") + junk, step)
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
