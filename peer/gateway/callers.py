"""Who may ask the gateway: programs that mean it, and no web page. Pure.

A page in a browser of this machine can have a name of its own resolved to 127.0.0.1 (DNS rebinding), and is
then let read what is answered under that name. So the gateway answers only under names that nobody else can
have: IP addresses, localhost, this machine's own name and the names in ``registry.names``. Container runtimes
send one of these, since it is how they are configured to reach the gateway; and no runtime sends what browsers
tell of the page that asks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from peer.gateway.errors import RegistryError
from shared.http.messages import Request

OWN_VIA = "dragonet"
"""What dragonet calls itself in the Via field (RFC 9110 §7.6.3) of its requests to registries."""


class Callers:
    """Tells the requests that are for this gateway."""

    def __init__(self, names: Iterable[str]) -> None:
        """``names`` (host or host:port) are those by which the gateway is called besides localhost."""
        self._names = frozenset(_host_of(name) for name in names) - {""}

    def check(self, request: Request) -> None:
        """Raises RegistryError when a request is not to be answered."""
        for host in _hosts(request):
            if not self._is_own(host):
                raise RegistryError(
                    421,
                    "DENIED",
                    f"this gateway is not called {host[:300]!r}: use its IP address or localhost, or add the name "
                    "to registry.names in dragonet's configuration",
                )
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise RegistryError(403, "DENIED", "pages of other sites may not ask this gateway")
        if any(_received_by(member) == OWN_VIA for member in request.headers.get_list("via")):
            raise RegistryError(
                508,
                "DENIED",
                "the request has come through a dragonet gateway already: a gateway cannot be the registry of "
                "another one; see registry.allow in dragonet's configuration",
            )

    def _is_own(self, host: str) -> bool:
        if host == "localhost" or host.endswith(".localhost") or host in self._names:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def _hosts(request: Request) -> list[str]:
    """The hosts that a request names: in the Host field, and in an absolute target (RFC 9112 §3.2.2)."""
    named = request.headers.get_all("host")
    if not request.target.startswith("/"):
        named.append(request.target.partition("://")[2].partition("/")[0].partition("?")[0])
    return [_host_of(name) for name in named]


def _host_of(name: str) -> str:
    """The host of an authority, in lower case and without brackets; "" where there is none."""
    try:
        return (urlsplit(f"//{name}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _received_by(member: str) -> str:
    """Who a member of a Via field names."""
    words = member.split()
    return words[1].lower() if len(words) > 1 else ""
