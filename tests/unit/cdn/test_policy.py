from __future__ import annotations

import pytest

from cdn.policy import SourcePolicy
from shared.errors import ConfigError, SourceError


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "100.100.100.200",
        "fd00:ec2::254",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_denied(address: str) -> None:
    policy = SourcePolicy(["http"])
    with pytest.raises(SourceError, match="denied") as caught:
        policy.check_address(address)
    assert caught.value.fault == "request"
    if "%" not in address:
        shown = f"[{address}]" if ":" in address else address
        with pytest.raises(SourceError, match="denied"):
            policy.check_url(f"http://{shown}:80/x")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1"])
def test_allowed(address: str) -> None:
    SourcePolicy(["http"]).check_address(address)


def test_schemes_and_names() -> None:
    policy = SourcePolicy(["HTTP"], ["10.0.0.0/8"])
    policy.check_url("http://169.254.169.254/")
    policy.check_url("HTTP://name/")
    for url in ("ftp://name/", "name", "http://[x/", "http://10.1.2.3/"):
        with pytest.raises(SourceError):
            policy.check_url(url)
    with pytest.raises(SourceError, match="not an IP"):
        policy.check_address("name")


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"denied_addresses.*nonsense"):
        SourcePolicy(["http"], ["nonsense"])
