"""Digests: BLAKE3 for pieces, named algorithms (``sha256:…``) for whole contents. Pure.

Hashing releases the GIL; callers hash more than a few KiB in a worker thread.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from blake3 import blake3

from shared.errors import InvalidRequest

PIECE_DIGEST_LENGTH = 32
CONTENT_ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Algorithm names a caller may use, with the length of their hexadecimal form."""


class Hasher(Protocol):
    """What hashlib's objects offer."""

    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def piece_digest(data: bytes | memoryview) -> bytes:
    """The BLAKE3 digest of a piece, 32 bytes."""
    return blake3(data).digest()


def parse_content_digest(text: str) -> tuple[str, str]:
    """Split ``sha256:HEX`` into algorithm and lower-case hex. Raises InvalidRequest with the reason."""
    algorithm, colon, value = text.strip().partition(":")
    algorithm, value = algorithm.lower(), value.lower()
    if not colon:
        raise InvalidRequest(f"digest {text!r} has no algorithm: write it as sha256:HEX")
    if algorithm not in CONTENT_ALGORITHMS:
        raise InvalidRequest(
            f"digest algorithm {algorithm!r} is not known: use {' or '.join(CONTENT_ALGORITHMS)}"
        )
    if len(value) != CONTENT_ALGORITHMS[algorithm] or any(c not in "0123456789abcdef" for c in value):
        raise InvalidRequest(
            f"digest {text!r} is not valid: {algorithm} takes {CONTENT_ALGORITHMS[algorithm]} hexadecimal digits"
        )
    return algorithm, value


def content_hasher(algorithm: str) -> Hasher:
    """A fresh hasher for one of ``CONTENT_ALGORITHMS``."""
    return hashlib.new(algorithm, usedforsecurity=True)
