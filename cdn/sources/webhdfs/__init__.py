"""Sources in HDFS, read through WebHDFS: ``hdfs://``, ``webhdfs://`` and ``swebhdfs://`` (the same by TLS).

A name node tells what a file is and sends the reader to a data node that holds the bytes. Facts are from
"WebHDFS REST API" of the Apache Hadoop 3 documentation, and were seen to hold with Hadoop 3.4.
"""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.webhdfs.credentials import HostCredentials
from cdn.sources.webhdfs.places import OPTIONS as PLACES
from cdn.sources.webhdfs.places import Places
from cdn.sources.webhdfs.source import WebHdfsSource


def open_source(context: SourceContext) -> WebHdfsSource:
    """The client for one of the three schemes. Raises ConfigError when an option is wrong.

    Options: ``user``, ``delegation_token`` and ``authorization`` (a header) say who reads; ``namenodes``,
    ``default_namenode``, ``http_port``, ``tls`` and ``prefix`` where name nodes are (see ``Places``).
    """
    context.check_options([*PLACES, *HostCredentials.OPTIONS])
    places = Places.from_options(context.scheme, context.options)
    credentials = HostCredentials.of(context.scheme, context.options, context.environ)
    return WebHdfsSource(context, places, credentials)
