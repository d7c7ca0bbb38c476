"""One request to the registry gateway, from its beginning to its end: what is counted and logged of it."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
import trio

from peer.gateway.content import Cache
from peer.gateway.metrics import RegistryMetrics, shared_out, size_class
from peer.gateway.target import Target
from shared.http.messages import Request, Response

log = structlog.get_logger()

GONE = 499
"""Stands for the status where a client hung up before there was one."""


class Exchange:
    """What is known of a request so far. ``deadline`` is until when its answer must have begun (trio's clock)."""

    def __init__(self, request: Request, metrics: RegistryMetrics, patience: float) -> None:
        """``patience`` in seconds."""
        self.request = request
        self.target: Target | None = None
        self.entry = ""
        """The entry of registry.allow that matched; "" where the registry is not allowed."""
        self.cache: Cache = "none"
        self.length: int | None = None
        """Of the blob that is given, in bytes."""
        self.sent = 0
        self.expected = 0
        """Bytes of content that the answer was to have."""
        self.obtained: Mapping[str, int] = {}
        """Where the content came from, in bytes by source."""
        self.broken = ""
        """Why the answer could not be brought to its end."""
        self.why = ""
        """Why there is no content, as the client is told."""
        self._metrics = metrics
        self._began = trio.current_time()
        self.deadline = self._began + patience

    @property
    def left(self) -> float:
        """Seconds until the deadline, more than 0."""
        return max(self.deadline - trio.current_time(), 0.001)

    def ends_with(self, response: Response) -> Response:
        """The same response, which ends the exchange when it is over."""
        if 200 <= response.status < 300 and self.target is not None:
            self._metrics.first_byte.labels(self.target.kind, self.cache).observe(self._seconds())

        def over() -> None:
            try:
                response.finish()
            finally:
                self.ended(response.status)

        return Response(
            response.status, response.body, response.headers, response.content_type, over, response.length
        )

    def ended(self, status: int) -> None:
        """Count the request, and say what became of it."""
        target, metrics, method = self.target, self._metrics, self.request.method
        kind = target.kind if target is not None and self.entry else "none"
        metrics.answered(self.entry, method, kind, status, self.cache)
        sources = shared_out(self.sent, self.obtained) if self.sent else {}
        metrics.sent_bytes(sources)
        if self.length is not None:
            metrics.blobs.labels(size_class(self.length)).inc()
        if self.cache == "stale":
            metrics.stale.inc()
        if self.broken:
            metrics.broken.inc()
        elif status == GONE or self.sent < self.expected:
            metrics.hangups.inc()
        if target is None:
            return
        log.info(
            "registry request",
            method=method,
            registry=target.registry,
            repository=target.repository,
            kind=target.kind,
            reference=target.reference,
            code=status,
            cache=self.cache,
            bytes=self.sent,
            seconds=round(self._seconds(), 3),
            sources=sources,
            **({"why": self.why} if self.why else {}),
            **({"broken": self.broken} if self.broken else {}),
        )

    def _seconds(self) -> float:
        return trio.current_time() - self._began
