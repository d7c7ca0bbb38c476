"""What is checked of a host's lease and reports before anything is made of them. Pure."""

from __future__ import annotations

import re
from math import isfinite

from shared.errors import InvalidRequest
from shared.protocol import (
    SECRET_SIZE,
    FreshWanted,
    HostLease,
    PeerHolding,
    PeerRegistered,
    PiecesHeld,
    Preheated,
    Report,
    Resolved,
    SourceFailed,
    SourceFinished,
    SourceOpened,
    SourcePieces,
)
from shared.protocol.checks import (
    check_address,
    check_digests,
    check_failure,
    check_meta,
    check_numbers,
    check_spec,
    check_task,
    check_words,
)
from shared.swarm.metrics import SOURCES
from shared.task.bitmap import MAX_PIECES
from shared.task.identity import MAX_URL_LENGTH

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,63}")
MAX_SCHEMES = 256
MAX_SLOTS = 100_000
MAX_ITEMS = 10_000


def check_lease(lease: HostLease, name: str) -> None:
    """Raises InvalidRequest when the lease of host ``name`` (of the path) cannot be taken."""
    if lease.host != name:
        raise InvalidRequest(f"the lease is for host {lease.host[:128]!r}, the path names {name[:128]!r}")
    if not _HOST.fullmatch(name):
        raise InvalidRequest("a host name has up to 128 letters, digits and . _ : @ -")
    check_address(lease.address)
    if not 0 < len(lease.instance) <= 128:
        raise InvalidRequest("the lease's instance must have 1 to 128 characters")
    if max(len(lease.location), len(lease.network)) > 255:
        raise InvalidRequest("the lease's location or network is longer than 255 characters")
    if not 1 <= lease.upload_slots <= MAX_SLOTS or lease.uploads < 0:
        raise InvalidRequest(f"the lease's upload slots must be 1 to {MAX_SLOTS}, its uploads not negative")
    if lease.secret and len(lease.secret) != SECRET_SIZE:
        raise InvalidRequest(f"the lease's secret must have {SECRET_SIZE} bytes")
    if not (isfinite(lease.secret_since) and lease.secret_since >= 0):
        raise InvalidRequest("when the lease's secret was made is told in seconds since 1970")
    if len(lease.schemes) > MAX_SCHEMES or not all(_SCHEME.fullmatch(name) for name in lease.schemes):
        raise InvalidRequest(f"the lease's schemes must be at most {MAX_SCHEMES} names of URL schemes")


def check_report(report: Report) -> None:
    """Raises InvalidRequest when a report cannot be true."""
    if isinstance(report, Resolved):
        _check_resolved(report)
        return
    check_task(report.task)
    match report:
        case PeerRegistered():
            check_spec(report.task, report.spec)
        case PeerHolding():
            check_spec(report.task, report.spec)
            check_meta(report.meta)
            check_digests(report.digests)
            if len(report.held) > MAX_PIECES // 8:
                raise InvalidRequest("the bitmap is longer than any task needs")
            if not isfinite(report.fresh):
                raise InvalidRequest("how long content is fresh is told in seconds")
        case FreshWanted():
            check_spec(report.task, report.spec)
            check_meta(report.meta)
        case SourcePieces():
            check_digests(report.digests)
        case SourceOpened() | SourceFinished():
            check_meta(report.meta)
        case PiecesHeld():
            check_numbers(report.pieces)
        case SourceFailed():
            check_failure(report.failure)
        case Preheated():
            check_failure(report.failure)
            if report.length < 0 or not all(source in SOURCES for source in report.bytes):
                raise InvalidRequest(f"bytes are told by source: {', '.join(SOURCES)}")
        case _:
            pass


def _check_resolved(report: Resolved) -> None:
    if len(report.items) > MAX_ITEMS:
        raise InvalidRequest(f"a preheat brings at most {MAX_ITEMS} contents")
    check_failure(report.failure)
    for words in (report.image, *report.notes):
        check_words(words)
    for item in report.items:
        check_words(item.what)
        if len(item.spec.url) > MAX_URL_LENGTH or (item.length is not None and item.length < 0):
            raise InvalidRequest("a content has a URL, and a length that is not negative")
