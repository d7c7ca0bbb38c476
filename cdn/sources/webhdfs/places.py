"""Where the name nodes are: from the host in a URL to addresses that speak WebHDFS. Pure.

A URL ``hdfs://host:8020/path`` names the port of Hadoop's own protocol, or no machine at all but a name
service of several name nodes. The configuration tells which HTTP addresses stand for it. Credentials of this
host are given to addresses that the configuration names, and to no other that a URL may name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

from shared.errors import ConfigError, SourceError

OPTIONS = ("namenodes", "default_namenode", "http_port", "tls", "prefix")

HTTP_PORT = 9870
HTTPS_PORT = 9871
"""A name node's own since Hadoop 3 (``dfs.namenode.http-address``, ``dfs.namenode.https-address``)."""

DEFAULT_PREFIX = "/webhdfs/v1"


@dataclass(frozen=True, slots=True)
class Service:
    """One HDFS and its name nodes ("host:port" each), of which at most one answers reads at a time.

    ``trusted``: the configuration names them, so the host's own credentials may be sent there.
    """

    authorities: tuple[str, ...]
    scheme: str
    prefix: str
    trusted: bool

    def url(self, authority: str, path: str, parameters: Mapping[str, str]) -> str:
        """The URL of a call; ``path`` is a path in HDFS, not quoted."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"{self.scheme}://{authority}{self.prefix}{quote(path, safe='/')}?{query}"


@dataclass(frozen=True, slots=True)
class Places:
    """What the options of one scheme say about name nodes.

    ``namenodes`` is "name=host:port,host:port" for each HDFS, apart by spaces (a lone "host:port" is a name
    for itself); ``default_namenode`` is what URLs without a host mean, a name or "host:port"; ``http_port``
    is that of name nodes for which no port is said; ``tls`` "true" speaks HTTPS; ``prefix`` is the path
    below which WebHDFS lies, for gateways.
    """

    scheme: str
    names: Mapping[str, tuple[str, ...]]
    default: str
    http_port: int
    tls: bool
    prefix: str

    @classmethod
    def from_options(cls, scheme: str, options: Mapping[str, str]) -> Self:
        """Raises ConfigError naming the option that is wrong."""
        where = f"source.options.{scheme}"
        tls = _truth(options.get("tls", "true" if scheme == "swebhdfs" else "false"), f"{where}.tls")
        if scheme == "swebhdfs" and not tls:
            raise ConfigError(f"{where}.tls is false: swebhdfs:// is by TLS, write webhdfs:// for it without")
        port = options.get("http_port", str(HTTPS_PORT if tls else HTTP_PORT))
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"{where}.http_port is {port!r}: write a port number, such as {HTTP_PORT}")
        prefix = "/" + options.get("prefix", DEFAULT_PREFIX).strip("/")
        names: dict[str, tuple[str, ...]] = {}
        for entry in options.get("namenodes", "").split():
            name, equals, listed = entry.partition("=")
            found = [
                _authority(text, int(port), f"{where}.namenodes") for text in (listed or name).split(",")
            ]
            if not equals:
                name = found[0].rpartition(":")[0].strip("[]")
            elif not listed:
                raise ConfigError(f"{where}.namenodes holds {entry!r}: write name=host:port,host:port")
            names[name.lower()] = names.get(name.lower(), ()) + tuple(found)
        default = options.get("default_namenode", "").lower()
        if default and default not in names:
            names[default] = (_authority(default, int(port), f"{where}.default_namenode"),)
        return cls(scheme, names, default, int(port), tls, prefix)

    def service(self, url: str) -> Service:
        """The HDFS that a URL is about. Raises SourceError (fault "request", or "reader" when another host
        may know it)."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise SourceError(f"{self.scheme}:// with a wrong host: {error}", fault="request") from None
        if not host:
            if not self.default:
                raise SourceError(
                    f"{self.scheme}:///path names no name node: write {self.scheme}://host/path, or set "
                    f"source.options.{self.scheme}.default_namenode",
                    fault="reader",
                )
            return self._service(self.names[self.default], trusted=True)
        if self.scheme == "hdfs":
            port = None  # not that of HTTP
        known = self.names.get(host)
        if known is not None and port is None:
            return self._service(known, trusted=True)
        authority = _join(host, port or self.http_port)
        trusted = any(authority in authorities for authorities in self.names.values())
        return self._service((authority,), trusted=trusted)

    def _service(self, authorities: tuple[str, ...], *, trusted: bool) -> Service:
        return Service(authorities, "https" if self.tls else "http", self.prefix, trusted)


def _truth(text: str, where: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{where} is {text!r}: write true or false")
    return text.lower() == "true"


def _authority(text: str, port: int, where: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, found = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, found = "", None
    if not host or parts.netloc != text or parts.username is not None:
        raise ConfigError(f"{where} holds {text!r}: write host:port, or name=host:port,host:port")
    return _join(host, found or port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
