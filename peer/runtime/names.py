"""Which runtime, which registries, which gateway: what may be asked for. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from cdn.sources.oci.names import DOCKER_HUB, canonical_registry
from peer.gateway.errors import RegistryError
from peer.gateway.names import AllowList, parse_registry
from shared.errors import InvalidRequest

RUNTIMES = ("containerd", "podman", "crio", "docker")
SPOKEN = {"containerd": "containerd", "podman": "podman", "crio": "CRI-O", "docker": "Docker"}
"""What a runtime is called in sentences."""
EVERY = "*"
"""Stands for all registries that the gateway allows."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the runtimes find the gateway. ``address`` is "host:port"."""

    scheme: str
    address: str

    @property
    def url(self) -> str:
        """``http://127.0.0.1:65001``."""
        return f"{self.scheme}://{self.address}"

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.scheme == "http"

    @property
    def host(self) -> str:
        """The host alone, an IPv6 address without its brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def local(self) -> bool:
        """Whether it is this machine, where a connection that nobody takes is refused at once."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a runtime shall do. ``registries`` are canonical names, or :data:`EVERY` among them; ``allow`` and
    ``default`` are the gateway's settings of these names; ``former`` are the URLs of gateways that dragonet
    had it use before."""

    gateway: Gateway
    registries: tuple[str, ...]
    allow: tuple[str, ...]
    default: str = DOCKER_HUB
    former: tuple[str, ...] = ()

    def allowed(self, registry: str) -> bool:
        """Whether the gateway lets a registry be pulled from."""
        try:
            AllowList(self.allow).entry_of(registry)
        except RegistryError:
            return False
        return True

    def allowed_names(self) -> list[str]:
        """The allowed registries that can be told by name: those without a wildcard."""
        return sorted({canonical_registry(entry.strip()) for entry in self.allow if EVERY not in entry})


def parse_runtime(name: str) -> str:
    """A runtime by its name. Raises InvalidRequest."""
    found = {"cri-o": "crio"}.get(name.lower(), name.lower())
    if found not in RUNTIMES:
        raise InvalidRequest(f"{name!r} is none of the runtimes that dragonet knows: {', '.join(RUNTIMES)}")
    return found


def parse_registries(names: Iterable[str], runtime: str) -> tuple[str, ...]:
    """Registries as a user names them for a runtime, canonical, each once; none: every one that it can mirror.

    Raises InvalidRequest.
    """
    found = dict.fromkeys(_parse_one(name) for name in names)
    return tuple(found) or ((DOCKER_HUB,) if runtime == "docker" else (EVERY,))


def _parse_one(name: str) -> str:
    if name == EVERY:
        raise InvalidRequest("--registry '*' is not needed: leave --registry out to have all registries")
    if "://" in name or "/" in name:
        raise InvalidRequest(f"--registry {name!r} has more than a name in it: write host or host:port")
    if name != name.lower():
        raise InvalidRequest(f"--registry {name!r}: registries are named in lower case: {name.lower()}")
    try:
        return parse_registry(name)
    except RegistryError as error:
        raise InvalidRequest(f"--registry: {error}") from None


def parse_gateway(url: str) -> Gateway:
    """The gateway's URL. Raises InvalidRequest."""
    wrong = f"--gateway {url!r} is not one: write http://HOST:PORT, as in http://127.0.0.1:65001"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(wrong) from None
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    usual = url.isascii() and url.isprintable() and not set(url) & set(" \"'\\<>{}|^`")
    if parts.scheme not in ("http", "https") or not parts.hostname or any(rest) or not usual:
        # it may hold a password: only what is no secret is repeated
        raise InvalidRequest(wrong if not parts.username else wrong.replace(repr(url), "with a user in it"))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Gateway(parts.scheme, f"{host}:{port or (80 if parts.scheme == 'http' else 443)}")
