"""Which client reads which scheme."""

from __future__ import annotations

from cdn.sources.interface import ResourceClient
from shared.errors import ConfigError, SourceError


class SourceRegistry:
    """Resource clients by scheme; schemes are compared in lower case."""

    def __init__(self) -> None:
        self._clients: dict[str, ResourceClient] = {}

    def register(self, scheme: str, client: ResourceClient) -> None:
        """Have ``client`` read URLs of ``scheme``. Raises ConfigError when another client does already."""
        known = self._clients.setdefault(scheme.lower(), client)
        if known is not client:
            raise ConfigError(
                f"two sources want to read {scheme}:// ({type(known).__name__} and {type(client).__name__}): "
                "remove one of them"
            )

    def get(self, scheme: str) -> ResourceClient:
        """The client for a scheme. Raises SourceError (fault "reader": another host may have one)."""
        client = self._clients.get(scheme.lower())
        if client is None:
            known = ", ".join(self.schemes()) or "none"
            raise SourceError(f"this host cannot read {scheme}:// (it reads: {known})", fault="reader")
        return client

    def schemes(self) -> list[str]:
        """All known schemes, sorted."""
        return sorted(self._clients)

    def __contains__(self, scheme: object) -> bool:
        return isinstance(scheme, str) and scheme.lower() in self._clients

    def __repr__(self) -> str:
        return f"<SourceRegistry {' '.join(self.schemes())}>"
