"""Reading the Prometheus text format back: just enough for assertions on counters and gauges."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')

SOURCES = ("store", "peer", "seeder", "origin")


@dataclass(frozen=True)
class Metrics:
    """All samples of one scrape as (name, labels, value)."""

    samples: tuple[tuple[str, dict[str, str], float], ...]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that have these labels; 0 when there are none."""
        return sum(
            value
            for sample, has, value in self.samples
            if sample == name and all(has.get(key) == wanted for key, wanted in labels.items())
        )

    def has(self, name: str) -> bool:
        """Whether there is any sample of that name."""
        return any(sample == name for sample, _, _ in self.samples)

    def received(self, *sources: str) -> int:
        """Bytes received from these sources (default: from other hosts and the origin)."""
        wanted = sources or ("peer", "seeder", "origin")
        return int(sum(self.value("dragonet_received_bytes_total", source=source) for source in wanted))

    def text(self) -> str:
        """Names and labels for searching (secrets must not be in them)."""
        return "\n".join(f"{name} {labels}" for name, labels, _ in self.samples)


def parse_metrics(text: str) -> Metrics:
    """Read a whole exposition. Lines that are no samples are skipped."""
    samples: list[tuple[str, dict[str, str], float]] = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None or line.startswith("#"):
            continue
        samples.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return Metrics(tuple(samples))
