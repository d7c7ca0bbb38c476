"""Clients of object stores, as the reader makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.sources.builtin import BUILTIN
from cdn.sources.context import SourceContext, credential_header
from cdn.sources.interface import AsyncResourceClient
from shared.http.client import HttpClient
from tests.programs import require_module


def open_client(
    scheme: str,
    options: Mapping[str, str],
    *,
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> AsyncResourceClient:
    """A client; its HttpClient is never used."""
    require_module("obstore")
    config = SourceConfig(**settings)  # type: ignore[arg-type]
    context = SourceContext(scheme, HttpClient(), SourcePolicy([]), config, options, environ or {})
    return BUILTIN[scheme].open(context)


@asynccontextmanager
async def opened(
    scheme: str,
    options: Mapping[str, str],
    *,
    environ: Mapping[str, str] | None = None,
    **settings: object,
) -> AsyncIterator[AsyncResourceClient]:
    client = open_client(scheme, options, environ=environ, **settings)
    try:
        yield client
    finally:
        await client.close()


def carried(**credentials: str) -> dict[str, str]:
    """Request headers that carry credentials."""
    return {credential_header(name): value for name, value in credentials.items()}
