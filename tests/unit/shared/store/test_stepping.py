from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from shared.protocol import TaskMeta
from shared.store.content import ContentFile
from shared.store.stepping import LEAST, RETRY, SLOW, STEP, Stepping, go_ahead, write_in_steps

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, STEP, STEP + 1, 3 * STEP - 1])
def test_all_bytes_are_written_at_their_place(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with path.open("r+b") as file:
        write_in_steps(file.fileno(), memoryview(data), 6)
    assert path.read_bytes() == b"before" + data


def test_only_slow_large_writes_are_prepared_and_not_for_ever() -> None:
    stepping = Stepping()
    assert not stepping.wanted(LEAST)
    stepping.took(LEAST, SLOW * LEAST / 2)
    stepping.took(LEAST - 1, 10.0)
    assert not stepping.wanted(LEAST)
    stepping.took(LEAST, SLOW * LEAST * 2)
    assert not stepping.wanted(LEAST - 1)
    assert [stepping.wanted(LEAST) for _ in range(RETRY + 1)] == [True] * RETRY + [False]


def test_going_ahead_of_a_full_disk_is_no_error(tmp_path: Path) -> None:
    with (tmp_path / "read-only").open("wb") as file:
        pass
    with (tmp_path / "read-only").open("rb") as file:
        go_ahead(file.fileno(), 0, MIB)


def test_what_is_held_stays_as_it_is_when_writes_are_prepared(tmp_path: Path) -> None:
    pieces = [os.urandom(MIB + n) for n in range(12)]
    content = ContentFile(tmp_path / "c.mdb", TaskMeta("v", 2 * MIB), 64 * MIB)
    try:
        for number, data in enumerate(pieces):
            content._stepping.took(LEAST, 10.0)
            content.put(number, data, bytes(32))
            if number == 5:
                content.drop(2)
        content.put(2, pieces[2], bytes(32))
        for number, data in enumerate(pieces):
            piece = content.open(number)
            assert piece is not None
            assert bytes(piece.data) == data
            piece.close()
    finally:
        content.close()
    with lmdb.open(str(tmp_path / "c.mdb"), subdir=False, readonly=True) as environment:
        assert environment.stat()["entries"] == 25
