"""Finding others under a DNS name: SRV records, or the addresses of a headless service of Kubernetes."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from peer.lan.addresses import host_port
from peer.lan.sightings import Sighting, Watcher

log = structlog.get_logger()

INTERVAL: Final = 10.0
"""Seconds between two questions."""
AGAIN: Final = 5.0
"""Seconds until the next one where one failed."""
TIMEOUT: Final = 5.0
"""Seconds for one answer, with all that belongs to it."""
MAX_ANSWERS: Final = 64
MAX_ADDRESSES: Final = 8
MISSING: Final = 2
"""Answers in a row without somebody, until it is gone: an answer may have been cut short."""

_NOBODY: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""What getaddrinfo says of a name that has no addresses, as a service of which nothing is ready."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host and port that an SRV record names."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0


AskServices = Callable[[str], Awaitable[list[Target]]]
"""The SRV records of a name. Raises OSError."""
AskAddresses = Callable[[str], Awaitable[list[str]]]
"""The IP addresses of a host. Raises OSError."""


class DnsSource:
    """Asks again and again, and tells who is listed. ``name``: _SERVICE._tcp.DOMAIN, or HOST:PORT."""

    def __init__(
        self, name: str, *, services: AskServices | None = None, addresses: AskAddresses | None = None
    ) -> None:
        self._name = name
        self._services = services or ask_services
        self._addresses = addresses or ask_addresses
        self._missing: dict[str, int] = {}
        self._told: dict[str, Sighting] = {}
        self._failed = False

    def __repr__(self) -> str:
        return f"<DnsSource {self._name} {len(self._told)} listed>"

    async def run(self, watcher: Watcher) -> None:
        """Tell the watcher of those who are listed, until cancelled."""
        while True:
            try:
                with trio.fail_after(TIMEOUT):
                    listed = await self._ask()
            except (OSError, trio.TooSlowError) as error:
                # Who was listed stays: that nobody can be asked says nothing about them.
                tell = log.debug if self._failed else log.warning
                tell("dns name cannot be looked up", name=self._name, error=str(error) or "no answer in time")
                self._failed = True
                pause = AGAIN
            else:
                if not listed and not self._failed:
                    log.warning("dns name lists nobody", name=self._name)
                self._failed = not listed
                self._tell(listed, watcher)
                pause = INTERVAL
            await trio.sleep(pause * random.uniform(0.9, 1.1))

    async def _ask(self) -> list[Sighting]:
        if not self._name.startswith("_"):
            host, _, port = self._name.rpartition(":")
            found = await self._addresses(host.strip("[]"))
            listed = [host_port(address, int(port)) for address in found]
            return [_sighting(address, (address,)) for address in listed[:MAX_ANSWERS]]
        targets = sorted(await self._services(self._name), key=lambda each: (each.priority, -each.weight))
        found_of: dict[Target, list[str]] = {}
        limit = trio.CapacityLimiter(8)

        async def look_up(target: Target) -> None:
            async with limit:
                try:
                    found_of[target] = await self._addresses(target.host)
                except OSError as error:
                    log.debug("dns target without address", target=target.host, error=str(error))

        async with trio.open_nursery() as nursery:
            for target in targets[:MAX_ANSWERS]:
                nursery.start_soon(look_up, target)
        return [
            _sighting(
                f"{target.host}:{target.port}",
                tuple(host_port(address, target.port) for address in found_of[target][:MAX_ADDRESSES]),
            )
            for target in targets[:MAX_ANSWERS]
            if found_of.get(target)
        ]

    def _tell(self, listed: Sequence[Sighting], watcher: Watcher) -> None:
        for sighting in listed:
            self._missing[sighting.key] = 0
            if self._told.get(sighting.key) != sighting:
                self._told[sighting.key] = sighting
                watcher.seen(sighting)
        here = {sighting.key for sighting in listed}
        for key in [key for key in self._told if key not in here]:
            self._missing[key] += 1
            if self._missing[key] >= MISSING:
                del self._told[key], self._missing[key]
                watcher.gone("dns", key)


def _sighting(key: str, addresses: tuple[str, ...]) -> Sighting:
    return Sighting(source="dns", key=key[:128], addresses=addresses)


async def ask_services(name: str, nameservers: Sequence[str] = (), port: int = 53) -> list[Target]:
    """The SRV records of a name, from the system's name servers or these. OSError."""
    import dns.asyncresolver  # a tenth of a second to import, for the few who use it
    import dns.exception
    import dns.rdtypes.IN.SRV
    import dns.resolver

    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            resolver.nameservers = list(nameservers)
            resolver.port = port
        answer = await resolver.resolve(name, "SRV", lifetime=TIMEOUT, search=True)
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
        return []
    except (dns.exception.DNSException, ValueError) as error:
        raise OSError(f"{type(error).__name__}: {error}"[:300]) from error
    found = []
    for record in list(answer)[:MAX_ANSWERS]:
        if isinstance(record, dns.rdtypes.IN.SRV.SRV) and record.port:
            host = record.target.to_text(omit_final_dot=True)
            if host != ".":
                found.append(Target(host, record.port, record.priority, record.weight))
    return found


async def ask_addresses(host: str) -> list[str]:
    """The IP addresses of a host, as the system finds them (also in its hosts file). OSError."""
    try:
        found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NOBODY:
            return []
        raise
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:MAX_ANSWERS]
