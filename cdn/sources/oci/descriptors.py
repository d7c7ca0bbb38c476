"""What references stand for, as content: ``oci-descriptor://REGISTRY/REPOSITORY:TAG``, or ``@DIGEST``.

The content is a descriptor in JSON, found with a HEAD. Unless the request brings credentials it is read
without any, also where the host has some: so whoever has it from a cluster knows that everybody may have what
it describes. That may end, so nothing here is immutable, not even what a digest names.
"""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.http import differs
from cdn.sources.interface import ExpireInfo, SourceRequest, SourceResponse
from cdn.sources.oci import open_door
from cdn.sources.oci.client import RegistryClient
from cdn.sources.oci.descriptor import DESCRIPTOR_TYPE, Descriptor
from cdn.sources.oci.logins import request_login
from cdn.sources.oci.names import parse_reference
from cdn.sources.oci.source import is_gone
from cdn.sources.probing import ProbingClient
from shared.errors import SourceError

PROOF_LIFETIME = 300.0
"""Seconds for which a token is used at most: longer ones would let in for long who may not come in any more."""


def open_source(context: SourceContext) -> DescriptorSource:
    """The client, with the options of ``oci://``. Raises ConfigError when one is wrong."""
    door = open_door(context, PROOF_LIFETIME)
    return DescriptorSource(RegistryClient(door, context.config.header_timeout))


class DescriptorSource(ProbingClient):
    """Reads ``oci-descriptor://`` URLs through ``client``."""

    def __init__(self, client: RegistryClient) -> None:
        self.client = client

    async def download(self, request: SourceRequest) -> SourceResponse:
        """The whole descriptor, whatever range is asked for; its ETag is the digest that it holds."""
        descriptor = await self._read(request)
        return SourceResponse(
            descriptor.encode(),
            etag=f'"{descriptor.digest}"',
            content_type=DESCRIPTOR_TYPE,
            url=request.url,
        )

    async def _read(self, request: SourceRequest) -> Descriptor:
        reference = parse_reference(request.url)
        proven = await self.client.head(reference, reference.kind or "manifest", request_login(request))
        return proven.descriptor

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """By the digest; what is not there, or may not be read any more, has expired. Raises SourceError where
        that cannot be found out."""
        try:
            descriptor = await self._read(request)
        except SourceError as error:
            if is_gone(error):
                return True
            raise
        return differs(info, ExpireInfo(etag=f'"{descriptor.digest}"'))

    def __repr__(self) -> str:
        return f"<DescriptorSource through {self.client!r}>"
