"""Layers of images: tar archives of random bytes that runtimes can unpack, packed in each way there is."""

from __future__ import annotations

import hashlib
import random
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MIB = 1 << 20
_CHUNK = MIB
_ZSTD_BLOCK = 128 * 1024

Packing = Literal["tar", "gzip", "zstd"]
"""How a layer travels. gzip and zstd only wrap the bytes, since random ones do not get smaller."""


@dataclass(frozen=True)
class Layer:
    """A layer as it travels: its own digest and size, and the digest of the tar archive in it.

    The archive has one file ``name``, with the digest ``file_sha256`` ("" for an empty layer).
    """

    digest: str
    diff_id: str
    size: int
    packing: Packing
    name: str
    file_sha256: str


def write_layer(path: Path, size: int, packing: Packing, seed: int, name: str = "") -> Layer:
    """Write a layer with one file of ``size`` bytes, which depend on ``seed`` only; 0: a layer of nothing."""
    name = name or f"file-{seed}"
    whole, archive, inner = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    written = 0
    with path.open("wb") as out:
        for part in _PACKERS[packing](_tar(size, seed, name, archive, inner)):
            whole.update(part)
            out.write(part)
            written += len(part)
    file_sha256 = inner.hexdigest() if size else ""
    digest, diff_id = (f"sha256:{hashed.hexdigest()}" for hashed in (whole, archive))
    return Layer(digest, diff_id, written, packing, name, file_sha256)


def _tar(size: int, seed: int, name: str, archive: hashlib._Hash, inner: hashlib._Hash) -> Iterator[bytes]:
    if size:
        head = _head(name, size)
        archive.update(head)
        yield head
    for part in _random(size, seed):
        archive.update(part)
        inner.update(part)
        yield part
    end = bytes(-size % 512 + 1024)
    archive.update(end)
    yield end


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()


def _random(size: int, seed: int) -> Iterator[bytes]:
    source = random.Random(seed)
    block = source.randbytes(min(size, 16 * _CHUNK))
    for start in range(0, size, _CHUNK):
        # each chunk is told apart by its first bytes, so that no two pieces are the same
        at = start % len(block)
        part = source.randbytes(16) + block[at + 16 : at + _CHUNK]
        yield part[: size - start]


def _stored(parts: Iterable[bytes]) -> Iterator[bytes]:
    yield from parts


def _gzip(parts: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _zstd(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A frame of raw blocks (RFC 8878, section 3.1.1)."""
    yield b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x50"  # no checksum, no length; a window of 1 MiB
    for part in parts:
        for start in range(0, len(part), _ZSTD_BLOCK):
            block = part[start : start + _ZSTD_BLOCK]
            yield (len(block) << 3).to_bytes(3, "little") + block
    yield (1).to_bytes(3, "little")  # the last block, of nothing


_PACKERS = {"tar": _stored, "gzip": _gzip, "zstd": _zstd}
