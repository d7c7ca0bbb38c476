"""Asking who answers at an address, and answering that question: ``GET /v1/hello``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import msgspec
import trio

from peer.lan.addresses import is_address, parse
from shared.errors import DragonetError
from shared.http.client import HttpClient, HttpError, HttpProtocolError
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.protocol import MAX_KNOWS, Hello
from shared.swarm.links_owner import CONFIGURED
from shared.task.identity import redact_url

PATH = "/v1/hello"
MAX_HELLO = 4096
"""Bytes of an answer that are read at most."""
ANSWER = 1.0
"""Seconds for a connection and the whole answer."""

MAX_TEXT = 200
"""Characters of what is only shown (name, location, release); the rest is cut."""
MAX_COUNT = 1 << 62

Refusal = Literal["unreachable", "malformed"]

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_decode = msgspec.json.Decoder(Hello).decode


class HelloRefused(DragonetError):
    """Nobody answered, or nobody of ours: ``reason`` says which of the two."""

    status = 502

    def __init__(self, message: str, reason: Refusal) -> None:
        super().__init__(message)
        self.reason: Refusal = reason


def is_place(text: str) -> bool:
    """Whether this is HOST:PORT with an IP address, which nobody has to be asked about."""
    return is_address(text) and parse(text.rpartition(":")[0].strip("[]")) is not None


def is_id(text: str) -> bool:
    """Whether this can be the id of a host, or of a process of it."""
    return text != CONFIGURED and _ID.fullmatch(text) is not None


def shown(text: str) -> str:
    """Text from outside, short and without control characters."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def parse_hello(body: bytes) -> Hello:
    """The answer, fit to be kept and shown. Raises ValueError with what is wrong."""
    try:
        hello = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no hello: {shown(str(error))}") from None
    if not is_id(hello.id) or not is_id(hello.instance):
        raise ValueError("an id that is none")
    return msgspec.structs.replace(
        hello,
        cluster=shown(hello.cluster),
        release=shown(hello.release),
        name=shown(hello.name),
        location=shown(hello.location),
        tasks=min(max(0, hello.tasks), MAX_COUNT),
        held=min(max(0, hello.held), MAX_COUNT),
        knows=tuple(address for address in hello.knows[:MAX_KNOWS] if is_place(address)),
    )


async def ask_hello(client: HttpClient, address: str, timeout: float = ANSWER) -> tuple[Hello, float]:
    """Who answers at ``address`` (HOST:PORT), and after how many seconds. Raises HelloRefused."""
    if not is_address(address):
        raise HelloRefused(f"{shown(address)!r} is not HOST:PORT", "malformed")
    return await ask_url(client, f"http://{address}", timeout)


async def ask_url(client: HttpClient, url: str, timeout: float = ANSWER) -> tuple[Hello, float]:
    """As :func:`ask_hello`, for the URL of a server.

    By a connection of its own: who answers on one that is open, and takes no other, is there for nobody else.
    """
    began = trio.current_time()
    try:
        answer = await client.request(
            "GET",
            url.rstrip("/") + PATH,
            headers={"Accept": "application/json", "Connection": "close"},
            timeout=timeout,
            limit=MAX_HELLO,
        )
    except DragonetError as error:
        silent = isinstance(error, HttpError) and not isinstance(error, HttpProtocolError)
        raise HelloRefused(shown(str(error)), "unreachable" if silent else "malformed") from None
    took = trio.current_time() - began
    if answer.status != 200:
        raise HelloRefused(f"{redact_url(url)} answered with status {answer.status}", "malformed")
    try:
        return parse_hello(answer.body), took
    except ValueError as error:
        raise HelloRefused(f"{redact_url(url)} answered with {error}", "malformed") from None


def add_hello(router: Router, hello: Callable[[str], Hello]) -> None:
    """Mount the route; ``hello`` tells who this is now, to whoever asks from that "IP:PORT"."""

    async def answer(request: Request) -> Response:
        return Response.json(hello(request.peer), headers=[("cache-control", "no-store")])

    router.add("GET", PATH, answer)
