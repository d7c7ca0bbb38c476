"""Opening listening sockets."""

import errno
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
        ("*:8002", ("*", 8002)),
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


async def test_everywhere_is_ipv4_and_ipv6_on_one_port() -> None:
    listeners = await listen_tcp("*:0")
    assert {listener.socket.family for listener in listeners} <= {socket.AF_INET, socket.AF_INET6}
    ports = {listener.socket.getsockname()[1] for listener in listeners}
    assert len(ports) == 1
    async with await trio.open_tcp_stream("127.0.0.1", ports.pop()):
        pass
    for listener in listeners:
        await listener.aclose()


@pytest.mark.parametrize("missing", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_everywhere_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """The kernel has no IPv6 at all, or it is switched off by sysctl."""
    make = trio.socket.socket
    with make() as any_socket:
        kind_of_all = type(any_socket)
    bind = kind_of_all.bind

    def made(family: int, kind: int) -> trio.socket.SocketType:
        if family == socket.AF_INET6 and missing == errno.EAFNOSUPPORT:
            raise OSError(missing, os.strerror(missing))
        return make(family, kind)

    async def bound(self, address) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(missing, os.strerror(missing))
        await bind(self, address)

    monkeypatch.setattr(trio.socket, "socket", made)
    monkeypatch.setattr(kind_of_all, "bind", bound)
    [listener] = await listen_tcp("*:0")
    assert bound_address(listener).startswith("0.0.0.0:")
    await listener.aclose()


async def test_everywhere_in_use_is_named() -> None:
    listeners = await listen_tcp("*:0")
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"\*:{port}: the address is already in use"):
        await listen_tcp(f"*:{port}")
    for listener in listeners:
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
