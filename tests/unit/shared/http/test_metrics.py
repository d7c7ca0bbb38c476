"""The servers' figures for Prometheus."""

from prometheus_client import CollectorRegistry

from shared.http.messages import Request, Response
from shared.http.metrics import HttpMetrics
from shared.http.server import HttpServer
from tests.unit.shared.http.wires import exchange


async def test_figures_are_read_at_each_scrape() -> None:
    async def handler(request: Request) -> Response:
        return Response(204)

    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    server = HttpServer(handler, name="peer")
    metrics.watch(server)
    await exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    label = {"server": "peer"}
    assert registry.get_sample_value("dragonet_http_accepted_total", label) == 1
    assert registry.get_sample_value("dragonet_http_malformed_total", label) == 1
    assert registry.get_sample_value("dragonet_http_connections", label) == 0
    assert registry.get_sample_value("dragonet_http_responses_total", {**label, "class": "2xx"}) == 1
    assert registry.get_sample_value("dragonet_http_responses_total", {**label, "class": "4xx"}) == 1
