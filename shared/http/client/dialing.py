"""Opening TCP connections: names resolved, each address held against a check, the quickest one taken."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio

from shared.errors import DragonetError
from shared.offline import no_way

ConnectCheck = Callable[[str], None]
"""Called with each resolved IP address before a connection to it; raises a DragonetError to forbid it."""

KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 4}
"""Seconds of silence before the kernel asks whether the other side is there, seconds between two such questions, and
questions without an answer after which the connection is lost: a machine may be without network for 13 s."""

HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds before the next address is tried beside the one before (RFC 8305 §5)."""


async def dial(host: str, port: int, check: ConnectCheck | None = None) -> trio.socket.SocketType:
    """A connected socket to the first address of ``host`` that answers, without delay for small writes.

    Addresses that ``check`` refuses are never connected to, so a DNS answer cannot lead there. Raises
    OSError or UnicodeError when there is no connection, and what ``check`` raises when it refuses all.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    allowed: list[tuple[int, Any]] = []
    refusal: DragonetError | None = None
    for family, _, _, _, address in found:
        if check is not None:
            try:
                check(str(address[0]))
            except DragonetError as error:
                refusal = error
                continue
        allowed.append((int(family), address))
    if not allowed and refusal is not None:
        raise refusal
    return await connect_first(allowed)


async def connect_first(addresses: list[tuple[int, Any]]) -> trio.socket.SocketType:
    """A connection to whichever address answers first, each given a short head start (RFC 8305)."""
    winner: trio.socket.SocketType | None = None
    errors: list[OSError] = []

    async def attempt(family: int, address: Any, failed: trio.Event) -> None:
        nonlocal winner
        try:
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # no such family here, or too many files are open
            errors.append(error)
            failed.set()
            return
        try:
            await sock.connect(address)
        except OSError as error:
            sock.close()
            errors.append(error)
            failed.set()
        except BaseException:
            sock.close()
            raise
        else:
            if winner is None:
                winner = sock
                nursery.cancel_scope.cancel()
            else:
                sock.close()

    try:
        async with trio.open_nursery() as nursery:
            for family, address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, family, address, failed)
                with trio.move_on_after(HAPPY_EYEBALLS_DELAY):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            winner.close()
        raise
    if winner is None:
        raise _telling(errors)
    winner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(winner)
    return winner


def _keep_alive(sock: trio.socket.SocketType) -> None:
    """Have the kernel find out when the other side is gone, or this machine has another address now: an answer that
    is being read would only be silent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _telling(errors: list[OSError]) -> OSError:
    """Of the errors of several addresses, the one that says most: that there is no way to one of them (of another
    family, say) says nothing of the name while others could be asked."""
    if not errors:
        return OSError("the name has no address")
    return next((error for error in errors if not no_way(error)), errors[0])
