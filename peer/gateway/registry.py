"""The registry gateway: container runtimes pull through it (OCI distribution specification 1.1, pull side).

===========================================  =====================================================
``GET /v2/``                                 200: this is a registry
``GET /v2/{name}/manifests/{tag or digest}``  a manifest or an index, byte for byte
``GET /v2/{name}/blobs/{digest}``            a layer or a configuration, whole or a range of it
``GET /v2/{name}/tags/list``                 what the registry answers
``GET /v2/{name}/referrers/{digest}``        what the registry answers
===========================================  =====================================================

HEAD is answered as GET is, without the body. Everything else is 405: images are pushed to their registry.
Each request is looked at in this order: who asks (``callers``), what it names (``names``), whether that registry
is allowed, whether the repository may be read (``access``); nothing is asked of anybody before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio

from peer.gateway.access import Granted, Passed, Verdict
from peer.gateway.callers import Callers
from peer.gateway.challenges import CREDENTIALS_HELP
from peer.gateway.config import RegistryConfig
from peer.gateway.content import namespace_headers
from peer.gateway.errors import API_VERSION, SOON, RegistryError, registry_error, registry_response
from peer.gateway.exchange import GONE, Exchange
from peer.gateway.metrics import RegistryMetrics
from peer.gateway.names import AllowList, parse_registry, parse_target
from peer.gateway.target import Target
from shared.errors import SourceError
from shared.http.errors import ClientGone, told_error
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.http.sending import HALF_CLOSED_PATIENCE, report
from shared.nursery import open_nursery

LARGEST_BODY = 64 * 1024
"""Bytes of a request's body that are read to be dropped: a request to read has none."""
_GRACE = 1.0
"""Seconds after the deadline in which whoever is waited for can say themselves why there is nothing yet."""


class Checks(Protocol):
    """Whether a request may have what it names (``access``)."""

    async def check(self, target: Target, authorization: str) -> Verdict:
        """What it may have, or what it is answered instead."""

    def forget(self, target: Target, authorization: str) -> None:
        """A registry no longer takes these credentials."""


class Passes(Protocol):
    """What is passed on to the registry and back (``passthrough``)."""

    async def answer(self, target: Target, request: Request) -> Response:
        """The registry's answer."""


class Serves(Protocol):
    """Content for who may have it (``serving``)."""

    async def answer(self, exchange: Exchange, target: Target, granted: Granted) -> Response:
        """The content. Raises DragonetError."""


class RegistryGateway:
    """The routes below /v2/."""

    def __init__(
        self,
        config: RegistryConfig,
        metrics: RegistryMetrics,
        access: Checks,
        passthrough: Passes,
        serving: Serves,
        *,
        names: Iterable[str] = (),
    ) -> None:
        """``names`` are further ones that this machine has."""
        self._config = config
        self._metrics = metrics
        self._access = access
        self._passthrough = passthrough
        self._serving = serving
        self._allowed = AllowList(config.allow)
        self._callers = Callers([*config.names, *names])
        self._default = parse_registry(config.default) if config.default else ""

    def add_routes(self, router: Router) -> None:
        """Mount it."""
        router.add("*", "/v2", self.answer)
        router.add("*", "/v2/{path...}", self.answer)

    async def answer(self, request: Request) -> Response:
        """Answer a request. Raises ClientGone when nobody waits for the answer any more."""
        exchange = Exchange(request, self._metrics, self._config.first_byte)
        try:
            response = await self._answer(exchange)
        except ClientGone:
            exchange.ended(GONE)
            raise
        except Exception as error:  # noqa: BLE001 – whatever happens is told in the specification's form
            exchange.cache = "none"
            told = _told(request, exchange.target, error)
            exchange.why = str(told)
            response = registry_response(told)
        return exchange.ends_with(response)

    async def _answer(self, exchange: Exchange) -> Response:
        request = exchange.request
        self._callers.check(request)
        if request.method not in ("GET", "HEAD"):
            raise RegistryError(
                405,
                "UNSUPPORTED",
                f"{request.method} is not possible here: images are pushed to their registry, not to the gateway",
                headers=[("allow", "GET, HEAD")],
            )
        target = parse_target(request.raw_path, request.query.get_all("ns"), self._default)
        if target is None:
            return Response.json({}, headers=[API_VERSION, CREDENTIALS_HELP])
        exchange.target = target
        exchange.entry = self._allowed.entry_of(target.registry)
        await request.body(LARGEST_BODY)
        return await _unless_gone(exchange, lambda: self._resource(exchange, target))

    async def _resource(self, exchange: Exchange, target: Target) -> Response:
        request = exchange.request
        if target.kind in ("tags", "referrers"):
            return await self._passthrough.answer(target, request)
        authorization = request.headers.get("authorization", "")
        verdict = await self._access.check(target, authorization)
        if isinstance(verdict, Passed):
            return verdict.response
        try:
            return await self._serving.answer(exchange, target, verdict)
        except SourceError as error:
            if error.origin_status in (401, 403) and verdict.scope:
                self._access.forget(target, authorization)
            raise


async def _unless_gone(exchange: Exchange, work: Callable[[], Awaitable[Response]]) -> Response:
    """What ``work`` gives, before the exchange's deadline and while the client waits.

    Raises ClientGone, RegistryError, or what ``work`` raises.
    """
    response: Response | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        await exchange.request.hangup()
        await trio.sleep(HALF_CLOSED_PATIENCE)  # it may only have ended its own side
        gone = True
        nursery.cancel_scope.cancel()

    with trio.move_on_at(exchange.deadline + _GRACE):
        async with open_nursery() as nursery:
            nursery.start_soon(watch)
            response = await work()
            nursery.cancel_scope.cancel()
    if response is not None:
        return response
    if gone:
        raise ClientGone("the client hung up before its answer could begin")
    raise RegistryError(
        503, "UNAVAILABLE", "the content did not come in time (registry.first_byte)", retry_after=SOON
    )


def _told(request: Request, target: Target | None, error: Exception) -> RegistryError:
    """The error to answer with."""
    told = told_error(error)
    if isinstance(told, RegistryError):
        return _with_namespace(told, target)
    if told is None:
        report(request, "a request ended by a bug", error)
        words = "something went wrong inside dragonet: its log says what"
        return RegistryError(500, "UNKNOWN", words)
    if target is None:
        return RegistryError(told.status, "UNSUPPORTED", str(told))
    return _with_namespace(registry_error(told, target), target)


def _with_namespace(error: RegistryError, target: Target | None) -> RegistryError:
    if target is not None and "oci-namespace" not in dict(error.headers):
        error.headers += namespace_headers(target)
    return error
