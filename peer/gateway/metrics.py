"""Metrics of the registry gateway: names, help texts and bounded labels, in one place."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.swarm.metrics import SOURCES

MIB, GIB = 1 << 20, 1 << 30
SIZE_CLASSES = (
    (MIB, "0-1MiB"),
    (10 * MIB, "1-10MiB"),
    (100 * MIB, "10-100MiB"),
    (GIB, "100MiB-1GiB"),
    (10 * GIB, "1-10GiB"),
)
LARGEST = "10GiB-"
_METHODS = frozenset({"GET", "HEAD"})


class RegistryMetrics:
    """What container runtimes asked for, and what they got.

    ``registry`` in labels is the entry of ``registry.allow`` that matched, "" for refused requests, so that
    the configuration bounds its values.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "dragonet_registry_requests_total",
            "Requests to the registry gateway, by the entry of registry.allow that matched ('' for none), method, "
            "kind of resource, status ('499': the client hung up before it) and how the answer came about.",
            ["registry", "method", "kind", "code", "cache"],
            registry=registry,
        )
        self.first_byte = Histogram(
            "dragonet_registry_first_byte_seconds",
            "Seconds until the answer to a request with content could begin.",
            ["kind", "cache"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self.sent = Counter(
            "dragonet_registry_sent_bytes_total",
            "Bytes of manifests and blobs sent to container runtimes, by where they came from.",
            ["source"],
            registry=registry,
        )
        for source in SOURCES:
            self.sent.labels(source)
        self.blobs = Counter(
            "dragonet_registry_blobs_total",
            "Answers with a blob or a part of one, by the blob's size.",
            ["size_class"],
            registry=registry,
        )
        for _, name in SIZE_CLASSES:
            self.blobs.labels(name)
        self.blobs.labels(LARGEST)
        self.stale = Counter(
            "dragonet_registry_stale_total",
            "Answers by what was held of a tag, since its registry could not be asked whether it has moved.",
            registry=registry,
        )
        self.broken = Counter(
            "dragonet_registry_broken_total",
            "Answers that broke off after they had begun because the rest could not be had.",
            registry=registry,
        )
        self.hangups = Counter(
            "dragonet_registry_hangups_total",
            "Answers that the client did not take to their end.",
            registry=registry,
        )

    def answered(self, registry: str, method: str, kind: str, code: int, cache: str) -> None:
        """Count a request."""
        method = method if method in _METHODS else "other"
        self.requests.labels(registry, method, kind, str(code), cache).inc()

    def sent_bytes(self, sources: Mapping[str, int]) -> None:
        """Count bytes sent by source."""
        for source, count in sources.items():
            self.sent.labels(source).inc(count)


def size_class(length: int) -> str:
    """The label for a blob of so many bytes."""
    return next((name for limit, name in SIZE_CLASSES if length <= limit), LARGEST)


def shared_out(sent: int, obtained: Mapping[str, int]) -> dict[str, int]:
    """``sent`` bytes by source, in the proportion in which the content was ``obtained``; what was not obtained
    at all was in the store."""
    total = sum(obtained.values())
    if not total:
        return {"store": sent}
    shares = {source: sent * count // total for source, count in obtained.items() if count}
    largest = max(shares, key=lambda source: obtained[source])
    shares[largest] += sent - sum(shares.values())
    return shares
