"""Which origins may be read: schemes, and addresses that no URL and no DNS answer may lead to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from shared.errors import ConfigError, SourceError
from shared.task.identity import redact_url

DENIED_NETWORKS = (
    "0.0.0.0/8",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.0.0/16",
    "192.0.0.192",
    "224.0.0.0/4",
    "255.255.255.255",
    "::",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::/10",
    "ff00::/8",
)
"""Unspecified, link-local, multicast and broadcast addresses, and the metadata services of the large clouds.

Loopback and private networks are not denied: origins inside the cluster are what dragonet is for.
"""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class SourcePolicy:
    """Answers whether a URL, and the address behind it, may be read."""

    def __init__(self, schemes: Iterable[str], denied: Iterable[str] = DENIED_NETWORKS) -> None:
        """``schemes`` that may be read, none for all. Raises ConfigError when a network is not one."""
        self.schemes = frozenset(scheme.lower() for scheme in schemes)
        self._denied = []
        for text in denied:
            try:
                self._denied.append(ipaddress.ip_network(text, strict=False))
            except ValueError as error:
                raise ConfigError(
                    f"source.denied_addresses: {text!r} is not an address or network: {error}"
                ) from None

    def check_url(self, url: str) -> None:
        """Raises SourceError (fault "request") when the scheme, or the address it names, is not allowed."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError as error:
            raise SourceError(f"{redact_url(url)!r} is not a URL: {error}", fault="request") from None
        if not self.allows(parts.scheme):
            raise SourceError(
                f"URLs with {parts.scheme or 'no scheme'} may not be read: "
                f"allowed are {', '.join(sorted(self.schemes))} (source.schemes)",
                fault="request",
            )
        address = _parse(host)
        if address is not None:
            self._check(address)

    def allows(self, scheme: str) -> bool:
        """Whether URLs of the scheme may be read."""
        return bool(scheme) and (not self.schemes or scheme.lower() in self.schemes)

    def check_address(self, address: str) -> None:
        """Raises SourceError (fault "request") when connections to this IP address are not allowed."""
        parsed = _parse(address)
        if parsed is None:
            raise SourceError(f"{address!r} is not an IP address", fault="request")
        self._check(parsed)

    def _check(self, address: _Address) -> None:
        for form in _forms(address):
            for network in self._denied:
                if form.version == network.version and form in network:
                    raise SourceError(
                        f"origins at {address} may not be read: "
                        f"{network} is denied (source.denied_addresses)",
                        fault="request",
                    )


def _parse(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _forms(address: _Address) -> list[_Address]:
    """The address, and the IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64)."""
    forms: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            forms.append(inner)
    return forms
