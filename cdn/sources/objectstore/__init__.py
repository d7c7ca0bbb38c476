"""Object stores as sources: s3://bucket/key, gs://bucket/object, az://container/blob, oss://bucket/key.

They are read with obstore, which loads when one of the schemes is first asked for.
"""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.interface import AsyncResourceClient


def open_source(context: SourceContext) -> AsyncResourceClient:
    """The client for s3, oss, gs or az. Raises ConfigError when an option is wrong."""
    from cdn.sources.objectstore.client import ObjectStoreSource

    return ObjectStoreSource.of(context)
