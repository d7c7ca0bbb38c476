"""The scheduler's API for preheats, as the command line calls it."""

from __future__ import annotations

from typing import Any

import msgspec

from peer.refusals import refused
from scheduler.preheat_orders import PreheatAsked
from shared.errors import DragonetError, TaskNotFound, Unavailable
from shared.http.client import HttpClient

CALL_TIMEOUT = 15.0


class PreheatClient:
    """Calls the scheduler at ``url``; ``token`` is what it wants to be shown, "" for nothing."""

    def __init__(self, url: str, token: str, client: HttpClient) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._client = client

    async def begin(self, asked: PreheatAsked) -> dict[str, Any]:
        """Order a preheat; gives it as ``GET /v1/preheats`` lists it."""
        return await self._call("POST", "/v1/preheats", msgspec.json.encode(asked))

    async def show(self, number: int) -> dict[str, Any]:
        """One preheat, with its contents and what failed. Raises TaskNotFound, Unavailable."""
        return await self._call("GET", f"/v1/preheats/{number}")

    async def listing(self) -> list[dict[str, Any]]:
        """All preheats that the scheduler knows, the latest first."""
        listed: list[dict[str, Any]] = (await self._call("GET", "/v1/preheats"))["preheats"]
        return listed

    async def cancel(self, number: int) -> dict[str, Any]:
        """End a preheat. Raises TaskNotFound."""
        return await self._call("DELETE", f"/v1/preheats/{number}")

    async def _call(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            answer = await self._client.request(
                method, self.url + path, headers=headers, content=body, timeout=CALL_TIMEOUT
            )
        except DragonetError as error:
            raise Unavailable(
                f"the scheduler at {self.url} is not reached: {error} (--scheduler names another one)"
            ) from None
        if answer.status == 404 and b'"error"' not in answer.body:
            raise TaskNotFound(f"what answers at {self.url} knows nothing of preheats: is it a scheduler?")
        if not 200 <= answer.status < 300:
            raise refused(answer.status, answer.body)
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise Unavailable(f"what answers at {self.url} is not a dragonet scheduler") from None
