"""A machine loses its network for some seconds, as a laptop does that changes its Wi-Fi: its downloads go on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.net import wait_until
from tests.integration.origins import MIB, Origin, random_content
from tests.lab.lan import LanHost, LanLab
from tests.lab.network import MBIT

pytestmark = pytest.mark.root

CONTENT = random_content(16 * MIB + 1, seed=77)
QUARTER = 4 * MIB
AWAY = 5.0
"""Seconds for which the card is down."""


def alone(lab: LanLab) -> tuple[LanHost, Origin]:
    """A host that schedules for itself, and an origin on another machine."""
    network = lab.network()
    origin = lab.origin(network)
    host = lab.host(network)
    host.wait_ready()
    return host, origin


def be_away(host: LanHost) -> None:
    """Be without network for a while."""
    back_at = time.monotonic() + AWAY
    host.machine.cables[0].down()
    wait_until(lambda: time.monotonic() >= back_at, "the card was down for long enough")
    host.machine.cables[0].up()


def test_without_network_at_the_very_start(lab: LanLab) -> None:
    host, origin = alone(lab)
    url = origin.add("/file", CONTENT)
    host.machine.cables[0].down()
    running = host.start_get(url)
    wait_until(lambda: len(host.said("reading the source failed")) >= 3, "it has been tried some times")
    host.machine.cables[0].up()
    running.wait(60).check(CONTENT)
    assert origin.count("/file").body == len(CONTENT)
    assert host.said("reading the source failed")[0]["level"] == "info"


def test_without_network_in_mid_download(lab: LanLab, figure: Callable[[str], None]) -> None:
    host, origin = alone(lab)
    url = origin.add("/file", CONTENT)
    host.machine.limit(20 * MBIT)
    running = host.start_get(url)
    wait_until(lambda: host.held(url) >= QUARTER, "the download is under way")
    be_away(host)
    running.wait(60).check(CONTENT)
    figure(f"egress {origin.count('/file').body / len(CONTENT):.2f}")


def test_another_address_in_mid_download(lab: LanLab, figure: Callable[[str], None]) -> None:
    """The connection is dead, and nobody says so but the own kernel."""
    host, origin = alone(lab)
    url = origin.add("/file", CONTENT)
    host.machine.limit(20 * MBIT)
    running = host.start_get(url)
    wait_until(lambda: host.held(url) >= QUARTER, "the download is under way")
    host.machine.cables[0].readdress()
    running.wait(90).check(CONTENT)
    figure(f"egress {origin.count('/file').body / len(CONTENT):.2f}")
