"""How httpx reaches the network here: an httpcore pool whose connections are dialled by our own rules.

httpx's own transport cannot be given a network backend, and the backend is where addresses are checked
before anything is sent to them. So this is its counterpart, and nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import cast

import httpcore
import httpx


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through an httpcore pool; the pool's exceptions come out as they are."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange; the body is read by whoever gets the response."""
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(cast(AsyncIterable[bytes], answer.stream), answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections, idle or not."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, parts: AsyncIterable[bytes], answer: httpcore.Response) -> None:
        self._parts = parts
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts.__aiter__()

    async def aclose(self) -> None:
        await self._answer.aclose()
