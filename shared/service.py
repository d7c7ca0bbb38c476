"""The shell in which every role runs: listeners, health, metrics, signals, and an orderly end.

A role's main function makes a :class:`Service`, adds its routes to ``service.router``, listens, and runs
until the process is told to stop; :func:`run_process` tells it. Several services (``dragonet up``) share
one process and one ``stopping`` event::

    async def main(stopping: trio.Event, *, task_status) -> None:
        async with Service("seeder", limits=config.server, grace=config.server.grace) as service:
            address = await service.listen(config.seeder.listen)
            ...                                     # routes, background tasks in a nursery of its own
            await service.run(stopping, task_status=task_status)
            ...                                     # transfers are over: give the lease up, close the store

    await run_process(main)
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import structlog
import trio
from prometheus_client import CollectorRegistry

from shared.errors import ConfigError
from shared.http.limits import ServerLimits
from shared.http.listeners import EVERYWHERE, bound_address, listen_tcp, listen_unix
from shared.http.messages import Request, Response
from shared.http.metrics import HttpMetrics
from shared.http.router import Router
from shared.http.server import Admit, HttpServer
from shared.metrics import exposition, new_registry

log = structlog.get_logger()


class Readiness:
    """Why a role is not ready yet, by name of what it waits for; ready when nothing is left."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._changed = trio.Event()

    def wait_for(self, name: str, reason: str) -> None:
        """Not ready, because of ``name``; ``reason`` is a sentence for a person. May be said again."""
        self._reasons[name] = reason

    def done(self, name: str) -> None:
        """``name`` is no longer a reason; unknown names are fine."""
        self._reasons.pop(name, None)
        if not self._reasons:
            self._changed.set()
            self._changed = trio.Event()

    @property
    def ready(self) -> bool:
        """Whether no reason is left."""
        return not self._reasons

    @property
    def reasons(self) -> dict[str, str]:
        """What is waited for (a copy)."""
        return dict(self._reasons)

    async def wait(self) -> None:
        """Return when ready."""
        while self._reasons:
            await self._changed.wait()

    def __repr__(self) -> str:
        return f"<Readiness {'ready' if self.ready else ', '.join(self._reasons)}>"


def add_service_routes(router: Router, readiness: Readiness, registry: CollectorRegistry) -> None:
    """``/healthz`` (the process answers), ``/readyz`` (200, or 503 with the reasons), ``/metrics``."""

    async def healthz(_request: Request) -> Response:
        return Response.text("ok\n")

    async def readyz(_request: Request) -> Response:
        if readiness.ready:
            return Response.json({"ready": True})
        return Response.json({"ready": False, "reasons": readiness.reasons}, status=503)

    async def metrics(request: Request) -> Response:
        body, content_type = exposition(registry, request.headers.get("accept") or "")
        return Response(body=body, content_type=content_type)

    router.add("GET", "/healthz", healthz)
    router.add("GET", "/readyz", readyz)
    router.add("GET", "/metrics", metrics)


class Service:
    """One role's listeners, health and metrics; a context manager that closes what was bound.

    ``router`` is the main listener's; it has ``/healthz``, ``/readyz`` and ``/metrics`` already.
    ``grace`` is how long, in seconds, running responses may go on when the end has come.
    """

    def __init__(
        self,
        name: str,
        *,
        limits: ServerLimits,
        grace: float = 10.0,
        registry: CollectorRegistry | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self.name = name
        self.registry = registry if registry is not None else new_registry(name)
        self.readiness = readiness if readiness is not None else Readiness()
        self.router = self.new_router()
        self.on_stopping: list[Callable[[], Awaitable[None]]] = []
        """Called, all at once, when the end begins; they have ``grace`` seconds."""
        self._http_metrics = HttpMetrics(self.registry)
        self._limits = limits
        self._grace = grace
        self._servers: list[tuple[HttpServer, list[trio.SocketListener]]] = []
        self._socket_paths: list[Path] = []

    def new_router(self) -> Router:
        """A router with the health and metrics routes, for a further listener."""
        router = Router()
        add_service_routes(router, self.readiness, self.registry)
        return router

    async def listen(
        self,
        address: str,
        router: Router | None = None,
        *,
        name: str = "",
        setting: str = "",
        admit: Admit | None = None,
    ) -> str:
        """Bind ``HOST:PORT``; requests are answered from :meth:`run` on.

        ``name`` stands for the listener in metrics (default: the role), ``setting`` is where the address comes
        from. Callers whom ``admit`` does not let in are hung up on. Returns the address that was bound (port 0
        takes a free one; the host ``*`` stays). Raises ConfigError.
        """
        try:
            listeners = await listen_tcp(address)
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}" if setting else str(error)) from None
        bound = bound_address(listeners[0])
        if address.startswith(f"{EVERYWHERE}:"):
            bound = EVERYWHERE + bound[bound.rindex(":") :]
        self._add(name or self.name, bound, router or self.router, listeners, admit)
        return bound

    async def listen_unix(self, path: Path, router: Router, *, mode: int = 0o600) -> None:
        """Bind a unix socket; its folder is made, for this user alone, where it is missing.

        Raises ConfigError, also when another daemon answers there.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot make the folder of the socket {path}: {error.strerror}; give another --socket"
            ) from None
        self._add(f"{self.name}-local", str(path), router, [await listen_unix(path, mode=mode)])
        self._socket_paths.append(path)

    def _add(
        self,
        name: str,
        address: str,
        router: Router,
        listeners: list[trio.SocketListener],
        admit: Admit | None = None,
    ) -> None:
        names = {server.name for server, _ in self._servers}
        server = HttpServer(
            router,
            limits=self._limits,
            name=f"{name}-{len(names) + 1}" if name in names else name,
            admit=admit,
        )
        log.info("listening", role=self.name, server=server.name, address=address)
        self._servers.append((server, listeners))
        self._http_metrics.watch(server)

    async def run(
        self, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until ``stopping`` is set; then drain for at most ``grace`` seconds and return.

        Cancellation ends everything at once.
        """
        async with trio.open_nursery() as nursery:
            for server, listeners in self._servers:
                await nursery.start(server.serve, listeners)
            task_status.started()
            await stopping.wait()
            self.readiness.wait_for("stopping", f"this {self.name} is shutting down")
            log.info("stopping", role=self.name, grace=self._grace)
            await self._end()
            nursery.cancel_scope.cancel()
        log.info("stopped", role=self.name)

    async def _end(self) -> None:
        # a second more than what the servers are given, so that their own way to end comes first
        with trio.move_on_after(self._grace + 1) as scope:
            async with trio.open_nursery() as nursery:
                for callback in self.on_stopping:
                    nursery.start_soon(callback)
                for server, _ in self._servers:
                    nursery.start_soon(server.drain, self._grace)
        if scope.cancelled_caught:
            log.warning("the grace period is over: what was still running is cut", role=self.name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, listeners in self._servers:
            for listener in listeners:
                listener.socket.close()
        for path in self._socket_paths:
            path.unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"<Service {self.name}, {len(self._servers)} listeners, {self.readiness!r}>"


class Main(Protocol):
    """A role's main function: calls ``task_status.started()`` when it serves, returns some time after
    ``stopping`` was set, having ended in good order."""

    def __call__(
        self, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> Awaitable[None]: ...


async def run_process(main: Main) -> None:
    """Run a role until it ends by itself, or by SIGTERM or SIGINT.

    The first signal sets ``stopping``; the second cancels ``main`` at once. What ``main`` raises comes out
    in an exception group. Tells systemd READY and STOPPING where ``NOTIFY_SOCKET`` is set.
    """
    stopping = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                async for number in signals:
                    if stopping.is_set():
                        log.warning("second signal: ending at once", signal=signal.Signals(number).name)
                        nursery.cancel_scope.cancel()
                        return
                    log.info("signal received", signal=signal.Signals(number).name)
                    notify("STOPPING=1")
                    stopping.set()

            async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                await main(stopping, task_status=task_status)
                nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            await nursery.start(run)
            notify("READY=1")


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing happens where none listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
    except OSError as error:
        log.warning("the service manager cannot be told", state=state, error=error.strerror)
