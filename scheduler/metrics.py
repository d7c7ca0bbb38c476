"""Metrics of the scheduler: names, help texts and bounded labels, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from scheduler.cluster import Tally
from scheduler.state import Statistics
from shared.swarm.metrics import SOURCES

PREFIX = "dragonet_scheduler"
RESULTS = ("succeeded", "partial", "failed", "cancelled")
OUTCOMES = ("succeeded", "failed")


class SchedulerMetrics:
    """What one scheduler counts. Numbers that its state knows are read from it at every scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decision_seconds = Histogram(
            f"{PREFIX}_decision_seconds",
            "Seconds from an event to all decisions that follow from it.",
            buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1),
            registry=registry,
        )
        self.stream_overflows = Counter(
            f"{PREFIX}_stream_overflows_total",
            "Assignment streams closed because their host did not read fast enough.",
            registry=registry,
        )
        self._statistics: Callable[[], Statistics] | None = None
        registry.register(self)

    def watch(self, statistics: Callable[[], Statistics]) -> None:
        """Read the numbers of the state from here at every scrape."""
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at every scrape."""
        if self._statistics is None:
            return
        now = self._statistics()
        hosts = GaugeMetricFamily(f"{PREFIX}_hosts", "Hosts with a lease, by role.", labels=["role"])
        hosts.add_metric(["peer"], now.peers)
        hosts.add_metric(["seeder"], now.seeders)
        yield hosts
        yield GaugeMetricFamily(f"{PREFIX}_tasks", "Tasks that the scheduler knows.", now.tasks)
        yield GaugeMetricFamily(f"{PREFIX}_waiting_peers", "Peers that wait for content.", now.waiting)
        yield GaugeMetricFamily(f"{PREFIX}_grants_active", "Origin reads under way.", now.grants)
        tally = now.tally
        for name, text, value in (
            ("grants", "Origin reads granted.", tally.grants),
            ("grants_adopted", "Origin reads taken over from another scheduler.", tally.grants_adopted),
            ("grants_taken_back", "Origin reads taken back from their host.", tally.taken_back),
            ("refusals", "Peers told that their content cannot be had.", tally.failures),
            ("same_host", "Leases refused to a second process with the same host id.", tally.same_host),
            ("reports_invalid", "Reports left out because they cannot be true.", tally.invalid),
            ("digest_contradictions", "Digests that differ from known ones.", tally.contradictions),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value)
        checks = CounterMetricFamily(
            f"{PREFIX}_checks", "Checks of content against its source, by outcome.", labels=["outcome"]
        )
        for outcome in ("valid", "expired", "failed", "unanswered"):
            checks.add_metric([outcome], tally.checks[outcome])
        yield checks
        yield from _preheats(tally)
        reports = CounterMetricFamily(f"{PREFIX}_reports", "Reports taken, by type.", labels=["type"])
        for name, count in tally.reports.items():
            reports.add_metric([name], count)
        yield reports


def _preheats(tally: Tally) -> Iterator[Metric]:
    for name, text, label, values, counts in (
        ("jobs", "Preheats that are over, by result.", "result", RESULTS, tally.preheat_jobs),
        (
            "items",
            "Contents brought to a host by a preheat, by result.",
            "result",
            OUTCOMES,
            tally.preheat_items,
        ),
        ("bytes", "Bytes brought to hosts by preheats, by source.", "source", SOURCES, tally.preheat_bytes),
    ):
        family = CounterMetricFamily(f"dragonet_preheat_{name}", text, labels=[label])
        for value in values:
            family.add_metric([value], counts[value])
        yield family
