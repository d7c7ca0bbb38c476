"""What a request to the registry gateway is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["manifests", "blobs", "tags", "referrers"]


@dataclass(frozen=True, slots=True)
class Target:
    """A resource of a registry (OCI distribution specification 1.1).

    ``registry`` is canonical ("docker.io", "host:port"). ``tag`` and ``digest`` ("sha256:HEX"): one of them is
    set, but for ``tags``. ``prefix`` is the part of the request's path between ``/v2/`` and the repository
    ("docker.io/" where the registry was named in the path, else ""); ``ns`` is the value of the parameter of
    that name, "" for none.
    """

    kind: Kind
    registry: str
    repository: str
    tag: str = ""
    digest: str = ""
    prefix: str = ""
    ns: str = ""

    @property
    def reference(self) -> str:
        """The tag or the digest."""
        return self.digest or self.tag
