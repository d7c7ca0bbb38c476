"""What a configuration makes of a host's part on the LAN."""

from __future__ import annotations

import itertools

import pytest

from peer.lan.config import LanConfig
from peer.lan.plan import Plan, loopback, plan_host, plan_scheduler

LOCAL = "http://127.0.0.1:8002"
CONFIGURED = "http://scheduler:8002"


def host(listen: str = "", scheduler: str = "", *, discovery: str = "auto", mdns: bool = True) -> Plan:
    lan = LanConfig(discovery=discovery, mdns=mdns)  # type: ignore[arg-type]
    return plan_host(lan, listen=listen, port=65002, scheduler=scheduler, local=LOCAL)


def test_nothing_configured_is_the_lan_and_callers_near_by_alone() -> None:
    assert host() == Plan(discovers=True, multicast=True, listen="*:65002", near_only=True, scheduler="")


def test_a_configured_scheduler_is_the_one_and_nothing_is_open() -> None:
    plan = host(scheduler=CONFIGURED)
    assert plan == Plan(
        discovers=False, multicast=False, listen="127.0.0.1:65002", near_only=False, scheduler=CONFIGURED
    )


@pytest.mark.parametrize("listen", ["127.0.0.1:65002", "localhost:0", "[::1]:65002", "127.0.0.9:1"])
def test_a_host_on_loopback_alone_is_for_itself(listen: str) -> None:
    plan = host(listen)
    assert not plan.discovers
    assert plan.listen == listen
    assert plan.scheduler == LOCAL


@pytest.mark.parametrize("listen", ["0.0.0.0:65002", "*:65002", "[::]:65002", "10.1.2.3:0", "host.lan:1"])
def test_who_says_where_to_listen_lets_everybody_in(listen: str) -> None:
    plan = host(listen)
    assert plan.discovers
    assert plan.multicast
    assert plan.listen == listen
    assert not plan.near_only


def test_on_goes_with_a_configured_scheduler() -> None:
    plan = host(scheduler=CONFIGURED, discovery="on")
    assert plan == Plan(
        discovers=True, multicast=True, listen="*:65002", near_only=True, scheduler=CONFIGURED
    )


def test_on_with_loopback_is_without_multicast() -> None:
    plan = host("127.0.0.1:65002", discovery="on")
    assert plan.discovers
    assert not plan.multicast
    assert plan.scheduler == ""


def test_off_is_as_it_was() -> None:
    assert host(discovery="off") == Plan(
        discovers=False, multicast=False, listen="127.0.0.1:65002", near_only=False, scheduler=LOCAL
    )


def test_mdns_can_be_switched_off_alone() -> None:
    plan = host(mdns=False)
    assert plan.discovers
    assert not plan.multicast


def test_every_host_has_a_way_to_a_scheduler() -> None:
    for listen, scheduler, discovery, mdns in itertools.product(
        ("", "127.0.0.1:1", "*:1"), ("", CONFIGURED), ("auto", "on", "off"), (True, False)
    ):
        plan = host(listen, scheduler, discovery=discovery, mdns=mdns)
        assert plan.discovers or plan.scheduler
        assert plan.discovers or not plan.multicast
        assert plan.near_only == (plan.discovers and not listen)


def test_a_scheduler_is_found_unless_it_is_on_loopback() -> None:
    assert not plan_scheduler(LanConfig(), listen="127.0.0.1:8002").discovers
    assert plan_scheduler(LanConfig(), listen="0.0.0.0:8002").multicast
    assert not plan_scheduler(LanConfig(discovery="off"), listen="0.0.0.0:8002").discovers
    on = plan_scheduler(LanConfig(discovery="on"), listen="127.0.0.1:8002")
    assert on.discovers
    assert not on.multicast


def test_names_are_not_taken_for_loopback() -> None:
    assert not loopback("localhost.example.org:1")
    assert not loopback(":1")
