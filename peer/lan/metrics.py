"""Metrics of the LAN: names, help texts and bounded labels, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

MODES = ("none", "configured", "scheduler", "ring", "alone")
STATES = ("present", "absent", "unknown")
RESULTS = (
    "ok", "unreachable", "malformed", "cluster", "protocol", "self", "mismatch", "conflict", "full",
)  # fmt: skip
IGNORED = ("cluster", "protocol", "malformed", "self", "full", "conflict", "mismatch")


class LanMetrics:
    """What a host or a scheduler finds on its network."""

    def __init__(
        self,
        registry: CollectorRegistry,
        ignored: Callable[[], Mapping[str, int]],
        hosts: Callable[[str], int],
        members: Callable[[], int],
    ) -> None:
        """``ignored`` gives what was left out, by reason; ``hosts`` how many are in a state; ``members`` how many
        schedulers are connected."""
        self.probes = Counter(
            "dragonet_lan_probes_total",
            "Times that somebody was asked who it is.",
            ["result"],
            registry=registry,
        )
        for result in RESULTS:
            self.probes.labels(result)
        gauge = Gauge("dragonet_lan_hosts", "Hosts and schedulers found.", ["state"], registry=registry)
        for state in STATES:
            gauge.labels(state).set_function(lambda state=state: hosts(state))  # type: ignore[misc]  # mypy: a lambda's default
        count = Gauge(
            "dragonet_lan_members", "Schedulers, or hosts of the ring, that are connected.", registry=registry
        )
        count.set_function(members)
        self.mode = Gauge(
            "dragonet_lan_mode",
            "1 for what decides for this host now: a scheduler (configured or found), or the ring of hosts.",
            ["mode"],
            registry=registry,
        )
        self.use("none")
        registry.register(_Ignored(ignored))

    def asked(self, result: str) -> None:
        """Count a question."""
        self.probes.labels(result if result in RESULTS else "conflict").inc()

    def use(self, mode: str) -> None:
        """Tell the mode."""
        for name in MODES:
            self.mode.labels(name).set(name == mode)


class _Ignored(Collector):
    """What was left out: counted elsewhere."""

    def __init__(self, ignored: Callable[[], Mapping[str, int]]) -> None:
        self._ignored = ignored

    def collect(self) -> list[CounterMetricFamily]:
        family = CounterMetricFamily(
            "dragonet_lan_ignored", "Announcements and answers that were left out.", labels=["reason"]
        )
        counts = self._ignored()
        for reason in IGNORED:
            family.add_metric([reason], counts.get(reason, 0))
        return [family]
