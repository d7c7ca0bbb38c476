"""Who is let in where nothing was configured: machines near by, and nobody from elsewhere."""

from __future__ import annotations

import subprocess

import pytest

from tests.integration.metrics import parse_metrics
from tests.integration.net import wait_until
from tests.lab.lan import LanHost, LanLab
from tests.lab.network import Machine
from tests.programs import require_program

pytestmark = pytest.mark.root

NEAR4, NEAR6 = "10.99.0.{}", "fd99::{}"
ELSEWHERE = "203.0.113.{}"
"""As a machine has it that stands in the internet."""
GLOBAL6 = "2001:db8:5::{}"


def give(machine: Machine, number: int) -> None:
    """Let the machine have an address of each kind."""
    for text, length in ((NEAR4, 24), (NEAR6, 64), (ELSEWHERE, 24), (GLOBAL6, 64)):
        device = machine.cables[0].device
        command = ["ip", "address", "add", f"{text.format(number)}/{length}", "dev", device]
        subprocess.run([*machine.prefix, *command, *(("nodad",) if ":" in text else ())], check=True)


def asked(caller: Machine, host: str, port: int, path: str = "/healthz") -> tuple[int, str]:
    """curl's exit code, and what it got."""
    shown = f"[{host}]" if ":" in host else host
    command = [require_program("curl"), "--silent", "--noproxy", "*", "--max-time", "10"]
    done = subprocess.run(
        [*caller.prefix, *command, f"http://{shown}:{port}{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def unwelcome(host: LanHost) -> float:
    """Callers that were hung up on."""
    told = asked(host.machine, "127.0.0.1", 65002, "/metrics")[1]
    return parse_metrics(told).value("dragonet_http_unwelcome_total", server="peer")


def test_callers_near_by_alone(lab: LanLab) -> None:
    """IPv6 addresses of one's own subnet are near, whatever they are: every machine at home has one."""
    network = lab.network(ipv6=True)
    host, caller = lab.host(network, wait=True), network.machine()
    give(host.machine, 1)
    give(caller, 2)
    for near in (NEAR4, NEAR6, host.machine.address, "::1", "127.0.0.1", GLOBAL6):
        who = host.machine if near in ("::1", "127.0.0.1") else caller
        where = near.format(1)
        # a subnet that has just come is seen within seconds
        wait_until(lambda who=who, where=where: asked(who, where, 65002) == (0, "ok\n"), f"{where} is near")
    before = unwelcome(host)
    code, body = asked(caller, ELSEWHERE.format(1), 65002)
    assert code in (52, 56), "it is hung up on"
    assert body == ""
    assert unwelcome(host) == before + 1
    assert asked(caller, ELSEWHERE.format(1), 65001)[0] == 7, "and the gateway is for this machine alone"


def test_who_says_where_to_listen_lets_everybody_in(lab: LanLab) -> None:
    network = lab.network()
    host, caller = lab.host(network, "up", "--listen", "*:65002", wait=True), network.machine()
    give(host.machine, 1)
    give(caller, 2)
    assert asked(caller, ELSEWHERE.format(1), 65002) == (0, "ok\n")
    assert unwelcome(host) == 0
