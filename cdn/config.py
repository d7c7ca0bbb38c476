"""Settings of source reading. Sizes are bytes, durations seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from cdn.policy import DENIED_NETWORKS
from shared.config import Seconds, Size
from shared.config.places import default_data_dir
from shared.units import parse_duration

SYSTEM_PLUGINS = Path("/usr/local/dragonet/plugins")


def default_plugin_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``/usr/local/dragonet/plugins`` for root, ``plugins`` in the user's data folder otherwise."""
    if os.geteuid() == 0:
        return SYSTEM_PLUGINS
    return default_data_dir(environ) / "plugins"


class SourceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How origins are read, and which."""

    schemes: Annotated[
        tuple[str, ...],
        Meta(
            description="URL schemes that may be read; empty: every one that is built in or that a plugin "
            "reads. file also needs file_roots."
        ),
    ] = ()
    file_roots: Annotated[
        tuple[Path, ...], Meta(description="Folders below which file:// URLs may be read; none by default.")
    ] = ()
    plugin_dir: Annotated[
        Path,
        Meta(
            description="Folder in which source plugins are looked for: d7y-resource-plugin-SCHEME.py, or a "
            "folder of that name without .py."
        ),
    ] = msgspec.field(default_factory=default_plugin_dir)
    plugin_timeout: Annotated[
        Seconds, Meta(gt=0, description="Patience for a call of a plugin, and for its next bytes.")
    ] = 60.0
    plugin_memory: Annotated[
        Size,
        Meta(description="Memory that plugins may take before their reads are stopped; 0 for no limit."),
    ] = 1024 * 1024 * 1024
    options: Annotated[
        dict[str, dict[str, str]],
        Meta(
            description="Options of the sources, by scheme, as in [source.options.s3]; credentials are "
            "among them, so what may be one is never shown, and nothing of what plugins are told.",
            extra={"unit": "secret"},
        ),
    ] = {}
    revalidate: Annotated[
        dict[str, str],
        Meta(
            description="Age at which content in the cluster is checked against its source, by scheme: a "
            'duration, or "never"; "*" is for all others. Sources that name a digest are never checked.'
        ),
    ] = msgspec.field(default_factory=lambda: {"*": "60s"})
    denied_addresses: Annotated[
        tuple[str, ...],
        Meta(description="Networks that are never read from, as addresses or CIDR, whatever a name says."),
    ] = DENIED_NETWORKS
    proxy: Annotated[
        str, Meta(description="http:// proxy through which origins are read; it then resolves their names.")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="PEM file of certificates to trust besides those of the system.")
    ] = ""
    connections: Annotated[int, Meta(ge=1, le=64, description="Ranges of one content read at a time.")] = 4
    parallel_from: Annotated[
        Size, Meta(description="Shortest content that is read over several connections at a time.")
    ] = 16 * 1024 * 1024
    span: Annotated[
        Size, Meta(ge=1, description="Bytes asked of an origin in one range, rounded up to whole 16MiB.")
    ] = 32 * 1024 * 1024
    buffer_memory: Annotated[
        Size, Meta(description="Memory of one read for pieces between origin and store; at least two pieces.")
    ] = 64 * 1024 * 1024
    connect_timeout: Annotated[Seconds, Meta(description="Patience for a connection to an origin.")] = 10.0
    header_timeout: Annotated[Seconds, Meta(description="Patience for the head of an origin's answer.")] = (
        60.0
    )
    idle_timeout: Annotated[
        Seconds, Meta(description="Patience for the next byte of an origin's answer.")
    ] = 30.0
    retries: Annotated[
        int, Meta(ge=0, description="Times a cut answer is resumed without a byte gained in between.")
    ] = 5
    retry_delay: Annotated[
        Seconds,
        Meta(description="Wait before the first resumption; it doubles with each one that gains nothing."),
    ] = 0.2
    restarts: Annotated[
        int, Meta(ge=0, description="Times a read begins again because the content changed meanwhile.")
    ] = 3
    redirects: Annotated[int, Meta(ge=0, description="Redirections followed for one request.")] = 10
    decode_ratio: Annotated[
        int,
        Meta(
            ge=1,
            description="Most bytes that one byte of gzip or deflate may become, beyond the first 64MiB.",
        ),
    ] = 200

    def __post_init__(self) -> None:
        for scheme in (*self.options, *self.revalidate):
            if scheme != scheme.lower():
                raise ValueError(f"{scheme!r} is not written in lower case: write {scheme.lower()!r}")
        for scheme in self.revalidate:
            self.revalidate_after(scheme)

    def revalidate_after(self, scheme: str) -> float | None:
        """Seconds after which content of the scheme is checked against its source; None: never.

        Raises ValueError when the setting is not a duration.
        """
        text = self.revalidate.get(scheme.lower(), self.revalidate.get("*", "60s"))
        if text == "never":
            return None
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValueError(f"revalidate of {scheme}: {error} (or never)") from None

    def __repr__(self) -> str:
        return f"<SourceConfig with options of {', '.join(self.options) or 'no source'}>"
