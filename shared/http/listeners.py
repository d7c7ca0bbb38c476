"""Opening the sockets that a server listens on, with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import trio

from shared.errors import ConfigError

BACKLOG = 1024
EVERYWHERE = "*"
"""The host of an address that is all interfaces."""
UNIX_PATH_BYTES = 107
"""The longest path of a unix socket (sun_path without its final zero, unix(7))."""


def parse_address(text: str) -> tuple[str, int]:
    """Split "HOST:PORT" ("[::1]:0" for IPv6) into host and port. Raises ConfigError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(
            f"the address {text!r} is not valid: put an IPv6 address in brackets, as in [::1]:8002"
        )
    if not colon or not host:
        raise ConfigError(
            f"the address {text!r} is not valid: write HOST:PORT, as in 127.0.0.1:8002, "
            "or *:8002 for all interfaces"
        )
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"the port of {text!r} is not valid: write a number from 0 to 65535")
    return host, int(port)


async def listen_tcp(address: str, port: int | None = None) -> list[trio.SocketListener]:
    """Listen on "HOST:PORT", or on host ``address`` and ``port``; one listener for each address of the host.

    The host ``*`` is all interfaces, by IPv4 and by IPv6, or by that of the two which the machine has. Port 0 lets
    the system choose (the same for all of them); see :func:`bound_address`. Raises ConfigError when the address
    cannot be had.
    """
    host, port = parse_address(address) if port is None else (address, port)
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    found = await _places(host, port, shown)
    sockets: list[trio.socket.SocketType] = []
    try:
        for place, (family, bound) in enumerate(found):
            try:
                sock = trio.socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT and (sockets or place < len(found) - 1):
                    continue
                raise
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(sockets) > 1:
                bound = (bound[0], sockets[0].getsockname()[1], *bound[2:])
            try:
                await sock.bind(bound)
            except OSError as error:
                if host == EVERYWHERE and error.errno == errno.EADDRNOTAVAIL and len(sockets) > 1:
                    sockets.pop().close()  # IPv6 is switched off on this machine
                    continue
                raise
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"cannot listen on {shown}: {_reason(error)}") from None
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return [trio.SocketListener(sock) for sock in sockets]


async def _places(host: str, port: int, shown: str) -> list[tuple[int, tuple[Any, ...]]]:
    """Families and addresses to bind. Raises ConfigError."""
    if host == EVERYWHERE:
        return [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port, 0, 0))]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"cannot listen on {shown}: the host is not known ({error.strerror})") from None
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


async def listen_unix(path: str | Path, mode: int = 0o600) -> trio.SocketListener:
    """Listen on a unix socket at ``path`` with the permissions ``mode``.

    A stale socket (nobody answers) is replaced. Raises ConfigError when another process answers on it, when
    something else is at the path, or when it cannot be made.
    """
    name = os.fspath(path)
    if len(os.fsencode(name)) > UNIX_PATH_BYTES:
        raise ConfigError(
            f"the socket path {name} is too long for the system: at most {UNIX_PATH_BYTES} bytes are allowed"
        )
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(name)
        os.fchmod(sock.fileno(), mode)  # Linux gives the path the mode of its socket: no moment in between
        await sock.bind(name)
        os.chmod(name, mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on the socket {name}: {_reason(error)}") from None
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


def bound_address(listener: trio.SocketListener) -> str:
    """Where a listener really listens: "ip:port", "[ip]:port", or the path of a unix socket."""
    return format_address(listener.socket.family, listener.socket.getsockname())


def format_address(family: int, name: object) -> str:
    """A socket's name as people write it."""
    if family == socket.AF_UNIX or not isinstance(name, tuple):
        return name if isinstance(name, str) else os.fsdecode(name) if isinstance(name, bytes) else ""
    return f"[{name[0]}]:{name[1]}" if family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _clear_stale(name: str) -> None:
    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError(
            f"cannot listen on the socket {name}: something else is at this path, choose another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
    raise ConfigError(
        f"cannot listen on the socket {name}: another process answers on it, stop it or give another --socket"
    )


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the address is already in use, stop the other program or choose another port"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have the address"
        case errno.EACCES | errno.EPERM:
            return "permission denied, choose a port above 1023 or a folder that may be written"
        case errno.ENOENT:
            return "its folder does not exist, create it first"
        case _:
            return error.strerror or str(error)
