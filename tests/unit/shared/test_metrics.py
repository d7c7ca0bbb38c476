from prometheus_client import Counter
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


def test_openmetrics_on_request() -> None:
    body, content_type = exposition(new_registry("peer"), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
