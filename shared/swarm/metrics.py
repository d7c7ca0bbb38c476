"""Metrics of transfers: names, help texts and bounded labels, in one place."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SOURCES = ("store", "peer", "seeder", "origin")
"""Where bytes of a download come from; the label of ``dragonet_received_bytes_total``."""


class SwarmMetrics:
    """The transfer metrics of one host."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.received = Counter(
            "dragonet_received_bytes_total",
            "Content bytes obtained, by source; 'store' counts bytes that were held already.",
            ["source"],
            registry=registry,
        )
        for source in SOURCES:
            self.received.labels(source)
        self.crossed = Counter(
            "dragonet_cross_zone_bytes_total",
            "Piece bytes received from parents in other zones (location or subnet), by the parents' role.",
            ["source"],
            registry=registry,
        )
        for role in ("peer", "seeder"):
            self.crossed.labels(role)
        self.sent = Counter("dragonet_sent_bytes_total", "Piece bytes sent to children.", registry=registry)
        self.pieces_failed = Counter(
            "dragonet_pieces_failed_total",
            "Pieces that a parent was asked for and did not deliver, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in ("corrupt", "missing", "busy", "stalled", "gone"):
            self.pieces_failed.labels(reason)
        self.verify_failures = Counter(
            "dragonet_verify_failures_total",
            "Pieces and whole contents that did not have the digest they should have.",
            registry=registry,
        )
        self.piece_seconds = Histogram(
            "dragonet_piece_seconds",
            "Seconds from the first byte of a piece to the last, by source.",
            ["source"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self.downloads = Counter(
            "dragonet_downloads_total", "Downloads that ended, by result.", ["result"], registry=registry
        )
        for result in ("done", "failed", "cancelled"):
            self.downloads.labels(result)
        self.refused = Counter(
            "dragonet_uploads_refused_total",
            "Piece requests refused because all upload slots were taken.",
            registry=registry,
        )
        self.source_fallbacks = Counter(
            "dragonet_source_fallbacks_total",
            "Origin reads begun without a grant because no scheduler answered.",
            registry=registry,
        )
        self._registry = registry

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge read from ``value()`` at every scrape."""
        Gauge(name, text, registry=self._registry).set_function(value)
