"""The reference pages name everything that there is."""

import re
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App
from prometheus_client import CollectorRegistry

from cdn.metrics import OriginMetrics
from peer.cli.app import app
from peer.config import Config
from peer.gateway.metrics import RegistryMetrics
from scheduler.metrics import SchedulerMetrics
from shared.config.fields import keys_of
from shared.http.metrics import HttpMetrics
from shared.swarm.metrics import SwarmMetrics
from tests.reference import PAGE, SECTIONS, page

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_the_configuration_page_is_up_to_date() -> None:
    """When it is not: ``.venv/bin/python -m tests.reference``."""
    assert PAGE.read_text(encoding="utf-8") == page()
    assert {key.path[0] for key in keys_of(Config)} == set(SECTIONS)


def test_every_metric_is_on_the_metrics_page() -> None:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    registry = CollectorRegistry()
    for metrics in (SwarmMetrics, OriginMetrics, SchedulerMetrics, HttpMetrics, RegistryMetrics):
        metrics(registry)
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    for folder in ("shared", "scheduler", "cdn", "peer"):
        for module in (ROOT / folder).rglob("*.py"):
            names |= set(re.findall(r'gauge\(\s*"(dragonet_\w+)"', module.read_text(encoding="utf-8")))
    assert sorted(name for name in names if f"`{name}" not in text) == []


def commands(parent: App, above: str = "") -> Iterator[tuple[str, App]]:
    for name in parent:
        if not name.startswith("-"):
            command = parent[name]
            assert isinstance(command, App)
            yield f"{above}{name}", command
            yield from commands(command, f"{name} ")


def test_every_command_and_option_is_on_the_command_page() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    missing = []
    for name, command in commands(app):
        missing += [name] if f"dragonet {name}" not in text else []
        for argument in command.assemble_argument_collection():
            missing += [
                f"{name} {option}"
                for option in argument.names
                if option.startswith("--") and f"`{option}" not in text
            ]
    assert missing == []


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{source.relative_to(ROOT)}: {target}"
        for source in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source.read_text(encoding="utf-8"))
        if not (source.parent / target).exists()
    ]
    assert broken == []
