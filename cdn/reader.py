"""Where the origin is read: ``cdn``'s side of ``shared.swarm.origin``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.metrics import OriginMetrics
from cdn.policy import SourcePolicy
from cdn.reading.session import SourceSession
from cdn.sources.file import FileSource
from cdn.sources.http import HttpSource
from cdn.sources.registry import SourceRegistry
from shared.errors import SourceError
from shared.http.client import HttpClient
from shared.swarm.origin import OriginJob, OriginSink


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
        cls, config: SourceConfig, collector: CollectorRegistry, *, user_agent: str = "dragonet"
    ) -> AsyncIterator[Self]:
        """A reader with the schemes that are built in: http, https, and file where it has roots.

        Raises ConfigError when a setting is wrong. Leaving the block closes all connections.
        """
        policy = SourcePolicy(config.schemes, config.denied_addresses)
        registry = SourceRegistry()
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
            yield cls(registry, policy, config, OriginMetrics(collector))

    def supports(self, scheme: str) -> bool:
        """Whether this host can and may read URLs of the scheme."""
        return scheme.lower() in self._policy.schemes and scheme in self.registry

    async def read(self, job: OriginJob, sink: OriginSink) -> None:
        """Read what the job asks for into the sink; see ``Origin.read``.

        Raises SourceError (status, words, whose fault) or StoreError.
        """
        begun = time.monotonic()
        try:
            self._policy.check_url(job.spec.url)
            client = self.registry.get(urlsplit(job.spec.url).scheme)
            await SourceSession(client, job, sink, self._config, self._metrics).run()
        except SourceError as error:
            self._metrics.failed(error)
            raise
        finally:
            self._metrics.seconds.observe(time.monotonic() - begun)

    def __repr__(self) -> str:
        return f"<SourceReader of {self.registry!r}>"
