"""Opening listening sockets."""

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from shared.errors import ConfigError
from shared.http.listeners import bound_address, listen_tcp, listen_unix, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8002", ":8002", "host", "host:", "host:x", "host:65536", "::1:80", "h:-1", "h:²"]
)
def test_wrong_addresses_are_told_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write|brackets"):
        parse_address(text)


async def test_an_address_in_use_is_named() -> None:
    [listener] = await listen_tcp("127.0.0.1", 0)
    address = bound_address(listener)
    with pytest.raises(ConfigError, match=f"{address}: the address is already in use"):
        await listen_tcp(address)
    await listener.aclose()


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigError, match="does not have the address"):
        await listen_tcp("192.0.2.1:0")


async def test_all_addresses_of_a_host_get_the_same_port() -> None:
    listeners = await listen_tcp("localhost:0")
    assert len({bound_address(listener).rpartition(":")[2] for listener in listeners}) == 1
    for listener in listeners:
        await listener.aclose()


async def test_ipv6() -> None:
    try:
        [listener] = await listen_tcp("[::1]:0")
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert bound_address(listener).startswith("[::1]:")
    await listener.aclose()


async def test_a_unix_socket_has_its_mode_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = await listen_unix(path, mode=0o660)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with pytest.raises(ConfigError, match="another process answers"):
        await listen_unix(path)
    async with await trio.open_unix_socket(path):
        pass
    await listener.aclose()


async def test_a_unix_socket_does_not_replace_anything_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        await listen_unix(tmp_path / "f")
    with pytest.raises(ConfigError, match="does not exist"):
        await listen_unix(tmp_path / "no" / "s")
    with pytest.raises(ConfigError, match="too long"):
        await listen_unix(tmp_path / ("a" * 120))
