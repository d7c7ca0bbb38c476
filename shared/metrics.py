"""The registry of a role's metrics and its exposition to Prometheus.

Each package has a ``metrics.py`` whose class takes the registry; there is no global one, so that
several roles can live in one process.
"""

from __future__ import annotations

import platform

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from shared.version import version


def new_registry(role: str) -> CollectorRegistry:
    """A registry with what every role tells of itself: ``dragonet_build_info{version,python,role}`` and the
    process, platform and garbage collection metrics of prometheus_client.

    No metric tells when it was created: those series would be as many as the others. prometheus_client has one
    switch for that in a process.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Info("dragonet_build", "The running release; always 1.", registry=registry)
    build.info({"version": version(), "python": platform.python_version(), "role": role})
    return registry


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """(body, content type) for a scrape: OpenMetrics where ``accept`` asks for it, else the text format."""
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
