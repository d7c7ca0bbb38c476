from __future__ import annotations

import pytest

from cdn.images.platforms import Platform, missing, parse_platform
from shared.errors import InvalidRequest


@pytest.mark.parametrize(
    ("offered", "wanted", "meant"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "Linux/x86_64", True),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/aarch64/v8", True),
        ("linux/arm/v6", "linux/arm", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/amd64", "linux/amd64/v3", False),
    ],
)
def test_what_is_meant(offered: str, wanted: str, meant: bool) -> None:
    assert parse_platform(offered).offers(parse_platform(wanted)) is meant


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "linux/../x"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidRequest, match="linux/amd64"):
        parse_platform(text)


def test_which_are_missing() -> None:
    offered = [Platform("linux", "amd64"), Platform("linux", "arm64", "v8")]
    wanted = [parse_platform(text) for text in ("linux/arm64", "linux/s390x", "windows/amd64")]
    assert [str(one) for one in missing(wanted, offered)] == ["linux/s390x", "windows/amd64"]
