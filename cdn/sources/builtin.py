"""The schemes that are built in, and how the client of each is made. Modules load with their scheme."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdn.sources.interface import AsyncResourceClient
from shared.errors import SourceError

if TYPE_CHECKING:  # the command line asks for names only, and is to start quickly
    from cdn.sources.context import SourceContext


@dataclass(frozen=True, slots=True)
class Builtin:
    """A module with ``open_source(context) -> AsyncResourceClient``, what it needs, and whose environment
    variables hold its credentials (by name of the credential). ``beside`` is the scheme whose options it uses
    in place of its own, and with which it may be read. ``open_options`` are those that hold no secret."""

    module: str
    requires: str = ""
    extra: str = ""
    environment: Mapping[str, tuple[str, ...]] | None = None
    beside: str = ""
    open_options: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        return not self.requires or importlib.util.find_spec(self.requires) is not None

    def open(self, context: SourceContext) -> AsyncResourceClient:
        """Make the client. Raises SourceError when something is not installed, ConfigError for options."""
        if not self.available:
            raise SourceError(
                f"{context.scheme}:// needs the package {self.requires}: install dragonet[{self.extra}]",
                fault="reader",
            )
        client = importlib.import_module(self.module).open_source(context)
        assert isinstance(client, AsyncResourceClient)
        return client


_AWS = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
}
_AZURE = {
    "account_name": ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    "account_key": ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
}
_OSS = {
    "access_key_id": ("OSS_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    "secret_access_key": ("OSS_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
    "session_token": ("OSS_SESSION_TOKEN", "ALIBABA_CLOUD_SECURITY_TOKEN"),
}


def _objectstore(environment: Mapping[str, tuple[str, ...]], *places: str) -> Builtin:
    shown = ("endpoint", "allow_http", "ca_file", *places)
    return Builtin("cdn.sources.objectstore", "obstore", "objectstore", environment, open_options=shown)


_WEBHDFS = Builtin(
    "cdn.sources.webhdfs",
    environment={"delegation_token": ("HDFS_DELEGATION_TOKEN",), "user": ("HADOOP_USER_NAME",)},
    open_options=("namenodes", "default_namenode", "http_port", "tls", "prefix"),
)


BUILTIN: Mapping[str, Builtin] = {
    "s3": _objectstore(_AWS, "region", "virtual_hosted", "instance_credentials"),
    "gs": _objectstore({"service_account_key": ("GOOGLE_SERVICE_ACCOUNT_KEY",)}, "instance_credentials"),
    "az": _objectstore(_AZURE, "account_name", "use_emulator", "instance_credentials"),
    "oss": _objectstore(_OSS, "region", "virtual_hosted"),
    "hdfs": _WEBHDFS,
    "webhdfs": _WEBHDFS,
    "swebhdfs": _WEBHDFS,
    "hf": Builtin(
        "cdn.sources.huggingface",
        environment={"token": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")},
        open_options=("endpoint",),
    ),
    "oci": Builtin("cdn.sources.oci", open_options=("docker_config", "insecure", "secure")),
    "oci-descriptor": Builtin("cdn.sources.oci.descriptors", beside="oci"),
}
"""Besides http, https and file, which need nothing."""

PLAIN = ("http", "https", "file")
"""They have no options."""


def open_options() -> frozenset[str]:
    """The settings below ``source.options`` that may be shown to people: those that cannot be credentials. What
    plugins are told is not known to be none."""
    return frozenset(
        f"source.options.{scheme}.{name}"
        for scheme, builtin in BUILTIN.items()
        for name in builtin.open_options
    )


def allowed_schemes(named: Iterable[str]) -> tuple[str, ...]:
    """What ``source.schemes`` allows: the schemes it names, and those that belong to them. () is all."""
    schemes = tuple(scheme.lower() for scheme in named)
    beside = (scheme for scheme, builtin in BUILTIN.items() if builtin.beside and builtin.beside in schemes)
    return (*schemes, *beside)


def needs(scheme: str, *, file_roots: bool) -> str:
    """What a built-in scheme needs on this host before it can be read; "" when nothing is missing, or when
    the scheme is not built in."""
    if scheme == "file":
        return "" if file_roots else "name the folders that may be read in source.file_roots"
    builtin = BUILTIN.get(scheme)
    if builtin is None or builtin.available:
        return ""
    return f"it needs the package {builtin.requires}: install dragonet[{builtin.extra}]"


def environment_credentials(scheme: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The credentials for a scheme that an environment holds, by name."""
    builtin = BUILTIN.get(scheme.lower())
    found: dict[str, str] = {}
    for name, variables in ((builtin.environment if builtin else None) or {}).items():
        value = next((environ[v] for v in variables if environ.get(v)), "")
        if value:
            found[name] = value
    return found
