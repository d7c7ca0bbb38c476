"""The HTTP servers' figures for Prometheus, read from their statistics at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from shared.http.server import HttpServer


class HttpMetrics(Collector):
    """Collects from any number of servers; the label ``server`` is a server's name.

    Nothing is counted while requests are served: the servers' own counters are read.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._servers: list[HttpServer] = []
        registry.register(self)

    def watch(self, server: HttpServer) -> None:
        """Show this server's figures from now on."""
        self._servers.append(server)

    def collect(self) -> Iterator[Metric]:
        label = ["server"]
        connections = GaugeMetricFamily("dragonet_http_connections", "Open connections.", labels=label)
        active = GaugeMetricFamily("dragonet_http_active_requests", "Requests being answered.", labels=label)
        accepted = CounterMetricFamily("dragonet_http_accepted", "Connections accepted.", labels=label)
        refused = CounterMetricFamily(
            "dragonet_http_refused", "Connections turned away because the server was full.", labels=label
        )
        unwelcome = CounterMetricFamily(
            "dragonet_http_unwelcome",
            "Connections closed unread because their callers are outside of the networks that are admitted.",
            labels=label,
        )
        malformed = CounterMetricFamily(
            "dragonet_http_malformed", "Requests that were not valid HTTP or beyond a limit.", labels=label
        )
        responses = CounterMetricFamily(
            "dragonet_http_responses", "Responses by status class.", labels=["server", "class"]
        )
        for server in self._servers:
            now, name = server.statistics(), [server.name]
            connections.add_metric(name, now.connections)
            active.add_metric(name, now.active_requests)
            accepted.add_metric(name, now.accepted)
            refused.add_metric(name, now.refused)
            unwelcome.add_metric(name, now.unwelcome)
            malformed.add_metric(name, now.malformed)
            for index, count in enumerate(now.responses):
                responses.add_metric([server.name, f"{index + 1}xx"], count)
        yield from (connections, active, accepted, refused, unwelcome, malformed, responses)
