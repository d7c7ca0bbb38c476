import pytest
from prometheus_client import Counter, Histogram, enable_created_metrics
from prometheus_client.parser import text_string_to_metric_families

from shared.metrics import exposition, new_registry
from shared.version import version


def samples(text: str) -> dict[str, dict[str, str]]:
    return {s.name: s.labels for family in text_string_to_metric_families(text) for s in family.samples}


def test_every_role_tells_its_build_and_its_process() -> None:
    body, content_type = exposition(new_registry("peer"))
    found = samples(body.decode())
    assert found["dragonet_build_info"]["role"] == "peer"
    assert found["dragonet_build_info"]["version"] == version()
    assert "process_resident_memory_bytes" in found
    assert content_type.startswith("text/plain")


def test_two_roles_in_one_process_do_not_share_metrics() -> None:
    for role in ("peer", "seeder"):
        registry = new_registry(role)
        Counter("dragonet_same_total", "Same name in both.", registry=registry)
        assert b"dragonet_same_total" in exposition(registry)[0]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_nothing_tells_when_it_was_created(accept: str) -> None:
    enable_created_metrics()
    registry = new_registry("peer")
    Counter("dragonet_some_total", "A counter.", registry=registry).inc()
    Histogram("dragonet_some_seconds", "A histogram.", registry=registry).observe(1)
    body = exposition(registry, accept)[0]
    assert b"dragonet_some_total 1.0" in body
    assert b"dragonet_some_seconds_sum 1.0" in body
    assert b"_created" not in body


def test_openmetrics_on_request() -> None:
    body, content_type = exposition(new_registry("peer"), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
