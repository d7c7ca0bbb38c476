"""Blobs and manifests of container registries: ``oci://REGISTRY[:PORT]/REPOSITORY@sha256:HEX``.

A digest names a blob, or a manifest where there is no such blob; ``?kind=blob`` and ``?kind=manifest`` tell which
(and, without credentials in the request, have it read without any). ``:TAG`` in its place names the manifest that
the tag stands for now. Facts are from the OCI distribution specification 1.1 and Docker's token
authentication specification.
"""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.oci.access import LONGEST_LIFETIME, RegistryAccess
from cdn.sources.oci.door import RegistryDoor
from cdn.sources.oci.logins import AUTH_OPTION, Logins
from cdn.sources.oci.names import PlainRegistries
from cdn.sources.oci.source import OciSource


def open_source(context: SourceContext) -> OciSource:
    """The client. Raises ConfigError when an option is wrong."""
    return OciSource(context, open_door(context))


def open_door(context: SourceContext, longest: float = LONGEST_LIFETIME) -> RegistryDoor:
    """What asks registries, showing tokens for ``longest`` seconds at most. Raises ConfigError for options.

    Options: ``auth.REGISTRY``, "user:password" for one registry; ``docker_config``, a config.json as ``docker
    login`` writes it, or its folder (else ``DOCKER_CONFIG``; credential helpers are not run); ``insecure``,
    registries that are spoken to without TLS, as those of this machine are unless they are ``secure``.
    """
    auths = (name for name in context.options if name.startswith(AUTH_OPTION))
    context.check_options(("auth.REGISTRY", "docker_config", "insecure", "secure", *auths))
    logins = Logins.from_options(context.options, context.environ)
    plain = PlainRegistries(context.options.get("insecure", ""), context.options.get("secure", ""))
    return RegistryDoor(context, RegistryAccess(context, logins, plain, longest), plain)
