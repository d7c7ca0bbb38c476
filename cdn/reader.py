"""Where the origin is read: ``cdn``'s side of ``shared.swarm.origin``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Self, cast

import structlog
import trio
from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.metrics import OriginMetrics
from cdn.policy import SourcePolicy
from cdn.reading.session import SourceSession
from cdn.sources.builtin import BUILTIN, Builtin, allowed_schemes, needs
from cdn.sources.context import SourceContext
from cdn.sources.file import FileSource
from cdn.sources.http import HttpSource
from cdn.sources.interface import AsyncResourceClient, ExpireInfo, SourceRequest
from cdn.sources.registry import Finder, SourceRegistry
from cdn.tree.source import TreeSource
from shared.errors import ConfigError, DragonetError, SourceError
from shared.http.client import HttpClient
from shared.nursery import open_nursery
from shared.protocol import TaskMeta
from shared.swarm.origin import OriginJob, OriginSink
from shared.task.identity import TaskSpec, redact_url

if TYPE_CHECKING:  # modules load with their scheme
    from cdn.sources.oci.client import RegistryClient
    from cdn.sources.oci.descriptors import DescriptorSource

log = structlog.get_logger()

CLOSING = 10.0
"""Seconds that clients have to let go of everything when a reader is closed."""


class SourceReader:
    """Reads sources of every registered scheme into sinks; implements ``shared.swarm.origin.Origin``.

    Stateless between reads, any number of which may run at once.
    """

    def __init__(
        self, registry: SourceRegistry, policy: SourcePolicy, config: SourceConfig, metrics: OriginMetrics
    ) -> None:
        self.registry = registry
        self._policy = policy
        self._config = config
        self._metrics = metrics

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: SourceConfig,
        collector: CollectorRegistry,
        *,
        user_agent: str = "dragonet",
        environ: Mapping[str, str] | None = None,
        finder: Finder | None = None,
    ) -> AsyncIterator[Self]:
        """A reader with the schemes that are built in (file only where it has roots), and with the plugins
        that ``finder`` finds.

        ``environ`` is where the host's own credentials may stand; None where the environment belongs to a
        caller. Raises ConfigError when a setting is wrong. Leaving the block closes all connections.
        """
        policy = SourcePolicy(allowed_schemes(config.schemes), config.denied_addresses)
        registry = SourceRegistry(finder)
        async with HttpClient(
            proxy=config.proxy or None,
            ca_file=config.ca_file or None,
            connect_check=policy.check_address,
            connect_timeout=config.connect_timeout,
            read_timeout=config.idle_timeout,
            user_agent=user_agent,
        ) as client:
            source = HttpSource(client, policy, config)
            registry.register("http", source)
            registry.register("https", source)
            if config.file_roots:
                registry.register("file", FileSource(config.file_roots))
            else:
                registry.lack("file", needs("file", file_roots=False))
            for scheme, builtin in BUILTIN.items():
                named = builtin.beside or scheme
                if named != scheme and scheme in config.options:
                    raise ConfigError(
                        f"source.options.{scheme} has no options: those of {named} count for it"
                    )
                options = config.options.get(named, {})
                context = SourceContext(named, client, policy, config, options, environ or {})
                if builtin.available:
                    registry.offer(scheme, partial(_open_builtin, builtin, context))
                else:
                    registry.lack(scheme, needs(scheme, file_roots=False))
            try:
                yield cls(registry, policy, config, OriginMetrics(collector))
            finally:
                with trio.move_on_after(CLOSING, shield=True):
                    await registry.close()

    def supports(self, scheme: str) -> bool:
        """Whether this host can and may read URLs of the scheme."""
        return self._policy.allows(scheme) and scheme in self.registry

    def schemes(self) -> tuple[str, ...]:
        """The schemes that this host can and may read."""
        return tuple(scheme for scheme in self.registry.schemes() if self._policy.allows(scheme))

    async def read(self, job: OriginJob, sink: OriginSink) -> None:
        """Read what the job asks for into the sink; see ``Origin.read``.

        Raises SourceError (status, words, whose fault) or StoreError.
        """
        begun = time.monotonic()
        try:
            self._policy.check_url(job.spec.url)
            client = await self.registry.get(job.spec.scheme)
            async with open_nursery() as nursery:
                if job.spec.tree:
                    # a listing brings no byte of the content, but the read is alive
                    client = TreeSource(
                        client, job.spec.tree, self._config, nursery, partial(sink.received, 1)
                    )
                await SourceSession(client, job, sink, self._config, self._metrics).run()
                nursery.cancel_scope.cancel()
        except SourceError as error:
            self._metrics.failed(error)
            raise
        finally:
            self._metrics.seconds.observe(time.monotonic() - begun)

    async def is_expired(
        self, spec: TaskSpec, private_headers: Mapping[str, str], meta: TaskMeta
    ) -> bool | None:
        """Whether the source has other content now; see ``Origin.is_expired``. None within
        ``source.header_timeout`` seconds when that cannot be found out."""
        try:
            with trio.fail_after(self._config.header_timeout):
                expired = await self._asked(spec, private_headers, meta)
        except (DragonetError, trio.TooSlowError) as error:
            log.info("a source cannot be checked", url=redact_url(spec.url), cause=str(error) or "no answer")
            self._metrics.checks.labels("error").inc()
            return None
        self._metrics.checks.labels("expired" if expired else "valid").inc()
        return expired

    async def _asked(self, spec: TaskSpec, private_headers: Mapping[str, str], meta: TaskMeta) -> bool:
        self._policy.check_url(spec.url)
        client = await self.registry.get(spec.scheme)
        if spec.tree:
            client = TreeSource(client, spec.tree, self._config)
        request = SourceRequest(spec.url, {**spec.headers, **private_headers})
        if client.is_immutable(request):
            return False
        return await client.is_expired(request, ExpireInfo(meta.last_modified, meta.etag))

    async def registry_client(self) -> RegistryClient:
        """What asks container registries on behalf of others, with the options of ``oci://``.

        Raises SourceError when this host may not, or cannot.
        """
        scheme = "oci-descriptor"
        self._policy.check_url(f"{scheme}://registry")
        return cast("DescriptorSource", await self.registry.get(scheme)).client

    def __repr__(self) -> str:
        return f"<SourceReader of {self.registry!r}>"


async def _open_builtin(builtin: Builtin, context: SourceContext) -> AsyncResourceClient:
    try:
        return await trio.to_thread.run_sync(builtin.open, context, abandon_on_cancel=True)
    except ConfigError as error:
        raise SourceError(str(error), fault="reader") from None
