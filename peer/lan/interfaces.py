"""The network interfaces of this machine that dragonet uses, and what becomes of them.

They are read again and again: a cable, a Wi-Fi or a VPN comes and goes while the daemon runs.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import structlog
import trio

from peer.lan import addresses
from peer.lan.addresses import Interface, OwnAddress
from shared.swarm.pulse import Pulse

log = structlog.get_logger()

INTERVAL = 2.0
"""Seconds between two looks, where the kernel does not tell of changes. One look takes a thread 0.2 ms for each
interface of the machine, and one with containers has hundreds."""
INTERVAL_TOLD = 10.0
"""The same, where it does."""
SETTLE = 0.5
"""Seconds that pass between two looks at least: a change comes in several steps."""

_MADE_BY_SOFTWARE = (
    *(
        "lo",
        "lo[0-9]*",
        "docker*",
        "br-*",
        "veth*",
        "virbr*",
        "vnet*",
        "cni*",
        "flannel*",
        "cali*",
        "cilium*",
    ),
    *(
        "lxc*",
        "lxd*",
        "podman*",
        "kube*",
        "nodelocaldns*",
        "ovs*",
        "dummy*",
        "ifb*",
        "tailscale*",
        "zt*",
        "nebula*",
    ),
    *("tun*", "tap*", "wg*", "ppp*", "sit*", "gre*", "ipip*", "ip6tnl*", "vxlan*", "vmnet*", "vboxnet*"),
    *("utun*", "awdl*", "llw*", "gif*", "stf*", "anpi*", "ap[0-9]*"),  # macOS
)
_SYSTEM = Path("/sys/class/net")
_IPV6 = Path("/proc/net/if_inet6")
_UP, _LOOPBACK, _POINT_TO_POINT, _MULTICAST = 0x1, 0x8, 0x10, 0x1000
_TENTATIVE, _DUPLICATE = 0x40, 0x08

_LINKS, _IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x1, 0x10, 0x100
_MANY = 1000

Reader = Callable[[Sequence[str]], list[Interface]]


class Interfaces:
    """What is there now: those whose names match ``patterns``, or, without any, those that lead to neighbours."""

    def __init__(self, patterns: tuple[str, ...] = (), read: Reader | None = None) -> None:
        self.changed = Pulse()
        """Beats when an interface or an address came or went."""
        self._patterns = patterns
        self._read = read or read_interfaces
        self._now: list[Interface] | None = None
        self._failed = False

    def __repr__(self) -> str:
        return f"<Interfaces {self._now}>"

    def current(self) -> list[Interface]:
        """All that are up and have an address. Looks for itself (1 ms) the first time, then gives what is known."""
        if self._now is None:
            self._now = self._look()
        return self._now

    async def run(self) -> None:
        """Look whenever the kernel tells of a change, and every few seconds, until cancelled."""
        news = _open_news()
        try:
            while True:
                found = await trio.to_thread.run_sync(self._look)
                if found != self._now:
                    if self._now is not None:
                        log.info("the network changed", interfaces=[_words(interface) for interface in found])
                    self._now = found
                    self.changed.beat()
                await trio.sleep(SETTLE)
                with trio.move_on_after(INTERVAL if news is None else INTERVAL_TOLD):
                    if news is None:
                        await trio.sleep_forever()
                    else:
                        await trio.lowlevel.wait_readable(news)
                if news is not None:
                    _read_all(news)
        finally:
            if news is not None:
                news.close()

    def _look(self) -> list[Interface]:
        try:
            found = self._read(self._patterns)
        except (OSError, ValueError, AssertionError) as error:  # ifaddr asserts what a system may not keep
            if not self._failed:
                log.warning("network interfaces cannot be read", error=str(error))
            self._failed = True
            return self._now or []
        self._failed = False
        return found

    def network_of(self, ip: str) -> str:
        """The subnet of this machine in which ``ip`` lies ("10.1.2.0/24"), "" for none and for link-local."""
        return addresses.network_of(self.current(), ip)

    @property
    def absence(self) -> str:
        """What to say where there are none."""
        if self._patterns:
            return (
                f"no network interface that lan.interfaces names ({', '.join(self._patterns)}) has an address"
            )
        return "no network interface has an address"

    def primary(self) -> str:
        """The address to tell others; "" for none. Link-local IPv6 with its zone."""
        return next(iter(addresses.own_addresses(self.current())), "")

    def admits(self, ip: str) -> bool:
        """Whether a caller is near: loopback, link-local, private, or in an IPv6 subnet of this machine."""
        return addresses.admits(self.current(), ip)


def _open_news() -> socket.socket | None:
    """A socket that can be read when links or addresses have changed (rtnetlink(7)); None where there is none."""
    if sys.platform != "linux":
        return None
    news = None
    try:
        news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        news.bind((0, _LINKS | _IPV4_ADDRESSES | _IPV6_ADDRESSES))
    except OSError as error:  # forbidden here
        log.debug("the kernel does not tell of changes of the network", error=str(error))
        if news is not None:
            news.close()
        return None
    return news


def _read_all(news: socket.socket) -> None:
    for _ in range(_MANY):
        try:
            news.recv(65536)
        except BlockingIOError:
            return
        except OSError:  # more than it holds: that there was a change is known
            continue


def is_chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether an interface is used, by its name alone."""
    if patterns:
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    return not any(fnmatchcase(name, pattern) for pattern in _MADE_BY_SOFTWARE)


def read_interfaces(patterns: Sequence[str] = ()) -> list[Interface]:
    """Those that are up, chosen, and have an address. Blocking, 1 ms. OSError."""
    import ifaddr  # looks for the C library with other programs when imported: not at the start of a command

    unready = _unready(_IPV6)
    found = []
    for adapter in ifaddr.get_adapters():
        if adapter.index is None or not is_chosen(adapter.name, patterns):
            continue
        if sys.platform == "linux" and not _is_usable(_SYSTEM / adapter.name, by_pattern=bool(patterns)):
            continue
        own = tuple(_addresses(adapter.ips, unready))
        if own:
            real = (_SYSTEM / adapter.name / "device").exists() if sys.platform == "linux" else True
            found.append(Interface(adapter.name, adapter.index, own, real))
    return sorted(found, key=lambda interface: interface.index)


def _addresses(ips: Iterable[object], unready: frozenset[str]) -> Iterable[OwnAddress]:
    for ip in ips:
        told, prefix = getattr(ip, "ip", ""), getattr(ip, "network_prefix", 0)
        text = told[0] if isinstance(told, tuple) else told
        own = ipaddress.ip_interface(f"{text}/{prefix}")
        if not own.ip.is_loopback and not own.ip.is_unspecified and str(own.ip) not in unready:
            yield own


def _is_usable(folder: Path, *, by_pattern: bool) -> bool:
    """Whether a Linux interface is up, has a carrier, and can have neighbours. What is not told is so."""
    flags = int(_text(folder / "flags") or hex(_UP | _MULTICAST), 16)
    if not flags & _UP or _text(folder / "carrier") == "0":
        return False
    if by_pattern:
        return True
    tunnel = (folder / "tun_flags").exists() or flags & _POINT_TO_POINT
    return not tunnel and not flags & _LOOPBACK and bool(flags & _MULTICAST)


def _unready(table: Path) -> frozenset[str]:
    """IPv6 addresses that cannot be used yet, since the kernel asks whether somebody has them, or at all."""
    found = set()
    for line in _text(table).splitlines():
        fields = line.split()
        if len(fields) == 6 and int(fields[4], 16) & (_TENTATIVE | _DUPLICATE):
            found.add(str(ipaddress.IPv6Address(bytes.fromhex(fields[0]))))
    return frozenset(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):  # not Linux, or a carrier of what is down
        return ""


def _words(interface: Interface) -> str:
    return f"{interface.name} " + " ".join(str(own) for own in interface.addresses)
