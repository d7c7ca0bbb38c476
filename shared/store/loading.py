"""What the store finds at its start: which tasks are still to be trusted, and which files are nobody's.

Everything committed before a crash of the process is there. After a crash of the machine (another boot
id) only tasks with the durable flag are trusted, because nothing else was synchronised. Blocking.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from shared.errors import StoreDamaged, StoreError
from shared.protocol import TaskMeta
from shared.store.content import ContentFile, InlineContent, Pieces, content_path, discard, unlink_all
from shared.store.index import Index, Write
from shared.store.records import TaskRecord, decode_record
from shared.task.bitmap import Bitmap
from shared.task.pieces import PieceLayout

log = structlog.get_logger()

BOOT_KEY = b"mboot"


def load_records(folder: Path, index: Index, boot: str, max_map: int) -> dict[str, TaskRecord]:
    """The tasks to be trusted; what cannot be is struck off the index, and stray files are deleted.

    ``held``, ``size`` and ``complete`` of a record are what its content says. Raises StoreError when the
    index itself cannot be read.
    """
    same_boot = bool(boot) and index.get(BOOT_KEY) == boot.encode()
    records: dict[str, TaskRecord] = {}
    gone: list[Write] = [(BOOT_KEY, boot.encode())]
    for key, value in index.items(b"t"):
        task_id = key.decode(errors="replace")
        record = _load_record(folder, index, task_id, value, same_boot, max_map)
        if record is None:
            gone += [(b"t" + key, None), (b"i" + key, None)]
            discard(folder, task_id)
        else:
            records[task_id] = record
    index.write_later(*gone)
    _delete_strays(folder, records)
    return records


def open_pieces(
    folder: Path, index: Index, task_id: str, meta: TaskMeta, inline: bool, max_map: int
) -> Pieces:
    """A task's storage, made if need be. Raises StoreError."""
    if inline:
        return InlineContent(index, task_id)
    return ContentFile(content_path(folder, task_id), meta, max_map)


def covers(held: Bitmap, meta: TaskMeta) -> bool:
    """Whether ``held`` are all pieces of the content."""
    return meta.length is not None and held.covers(PieceLayout(meta.length, meta.piece_length).count)


def _load_record(
    folder: Path, index: Index, task_id: str, value: bytes, same_boot: bool, max_map: int
) -> TaskRecord | None:
    try:
        record = decode_record(value)
        if not record.inline and not content_path(folder, task_id).exists():
            return None
        if not same_boot and not record.durable:
            log.info("content is dropped, the machine went down before it was durable", task=task_id)
            return None
        if not (record.durable and record.complete):
            _recover(folder, index, task_id, record, max_map)
    except StoreDamaged as error:
        log.warning("a stored content is damaged and is dropped", task=task_id, cause=str(error))
        return None
    except (msgspec.MsgspecError, ValueError) as error:
        log.warning("a record of the index cannot be read and is dropped", task=task_id, cause=str(error))
        return None
    return record if record.held or record.complete or record.pinned else None


def _recover(folder: Path, index: Index, task_id: str, record: TaskRecord, max_map: int) -> None:
    """Set a record right from its content. One that cannot be opened just now is left as it was."""
    try:
        pieces = open_pieces(folder, index, task_id, record.meta, record.inline, max_map)
    except StoreDamaged:
        raise
    except StoreError as error:
        log.warning("a stored content cannot be opened now", task=task_id, cause=str(error))
        return
    try:
        digests, record.size = pieces.load()
    finally:
        pieces.close()
    held = Bitmap(digests)
    record.held = held.to_bytes()
    record.complete = covers(held, record.meta)


def _delete_strays(folder: Path, records: dict[str, TaskRecord]) -> None:
    unlink_all(path for path in folder.iterdir() if not path.is_dir() and not _belongs(path.name, records))


def _belongs(name: str, records: dict[str, TaskRecord]) -> bool:
    task_id, dot, rest = name.partition(".")
    return task_id in records and dot + rest in (".mdb", ".mdb-lock")
