from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from shared.errors import StoreDamaged, StoreError, StoreFull
from shared.store.environment import LOCK_LENGTH, MAX_READERS, MapFull, as_store_error, open_environment
from tests.unit.shared.store.samples import KIB, fill_disk, small_disk

MAP = 1 << 24


def test_lock_file_has_no_holes_and_the_length_that_lmdb_wants(tmp_path: Path) -> None:
    path = tmp_path / "some.mdb"
    with open_environment(path, MAP) as environment:
        assert environment.info()["max_readers"] == MAX_READERS
        stat = (tmp_path / "some.mdb-lock").stat()
        assert stat.st_size == LOCK_LENGTH
        assert stat.st_blocks * 512 >= LOCK_LENGTH
        readers = [environment.begin() for _ in range(MAX_READERS)]
        for reader in readers:
            reader.abort()


def test_nothing_that_memory_held_before_gets_into_the_file(tmp_path: Path) -> None:
    """Credentials of a source, say: the unused ends of pages are written too."""
    path = tmp_path / "some.mdb"
    with open_environment(path, MAP) as environment, environment.begin(write=True) as txn:
        held = [bytearray(b"a secret " * 450) for _ in range(400)]
        del held
        txn.put(b"long", b"v" * 6000)
        txn.put(b"short", b"v")
    assert b"a secret " not in path.read_bytes()


def test_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512 * KIB) as disk:
        old, new = disk / "old.mdb", disk / "new.mdb"
        with open_environment(old, MAP) as environment, environment.begin(write=True) as txn:
            txn.put(b"key", b"value")
        fill_disk(disk / "ballast")
        with pytest.raises(StoreFull, match="disk"):
            open_environment(new, MAP)
        with open_environment(old, MAP) as environment:
            readers = [environment.begin() for _ in range(MAX_READERS)]
            assert {reader.get(b"key") for reader in readers} == {b"value"}
            for reader in readers:
                reader.abort()


def test_short_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.mdb"
    with open_environment(path, MAP) as environment, environment.begin(write=True) as txn:
        txn.put(b"key", bytes(100 * KIB))
    os.truncate(path, 60 * KIB)
    with pytest.raises(StoreDamaged, match="shorter"):
        open_environment(path, MAP)


def test_too_many_readers_and_a_full_map_have_names(tmp_path: Path) -> None:
    with open_environment(tmp_path / "some.mdb", 64 * KIB) as environment:
        with pytest.raises(lmdb.MapFullError) as full, environment.begin(write=True) as txn:
            txn.put(b"key", bytes(100 * KIB))
        assert isinstance(as_store_error(full.value), MapFull)
        readers = [environment.begin() for _ in range(MAX_READERS)]
        with pytest.raises(lmdb.ReadersFullError) as crowd:
            environment.begin()
        assert type(as_store_error(crowd.value)) is StoreError
        for reader in readers:
            reader.abort()
