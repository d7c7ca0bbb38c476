"""Metrics of source reading: names, help texts and bounded labels, in one place."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.errors import SourceError

ERROR_CLASSES = ("3xx", "4xx", "5xx", "unreachable", "invalid", "refused")
"""Labels of ``dragonet_origin_errors_total``."""
CHECK_RESULTS = ("valid", "expired", "error")
"""Labels of ``dragonet_origin_checks_total``."""


class OriginMetrics:
    """The origin metrics of one host."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reads = Counter(
            "dragonet_origin_reads_total",
            "Requests to origins whose answer began to deliver content.",
            registry=registry,
        )
        self.errors = Counter(
            "dragonet_origin_errors_total",
            "Reads of origins that failed: by class of the origin's status, unreachable (no connection), "
            "invalid (a wrong or broken answer), refused (the request is not allowed or cannot be met).",
            ["status"],
            registry=registry,
        )
        for label in ERROR_CLASSES:
            self.errors.labels(label)
        self.checks = Counter(
            "dragonet_origin_checks_total",
            "Times that an origin was asked whether its content has changed: valid (it has not), expired, "
            "error (that could not be found out, and counts as valid).",
            ["result"],
            registry=registry,
        )
        for label in CHECK_RESULTS:
            self.checks.labels(label)
        self.seconds = Histogram(
            "dragonet_origin_seconds",
            "Seconds from the begin to the end of a read, whatever its result.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
            registry=registry,
        )

    def failed(self, error: SourceError) -> None:
        """Count a failed read."""
        self.errors.labels(error_class(error)).inc()


def error_class(error: SourceError) -> str:
    """The label for an error, one of ``ERROR_CLASSES``."""
    status = error.origin_status
    if status is not None and 300 <= status < 600:
        return f"{status // 100}xx"
    return {"reader": "unreachable", "origin": "invalid", "request": "refused"}[error.fault]
