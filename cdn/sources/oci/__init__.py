"""Blobs and manifests of container registries: ``oci://REGISTRY[:PORT]/REPOSITORY@sha256:HEX``.

A digest names a blob, or a manifest where there is no such blob; ``:TAG`` in its place names the manifest that
the tag stands for now. Facts are from the OCI distribution specification 1.1 and Docker's token
authentication specification.
"""

from __future__ import annotations

from cdn.sources.context import SourceContext
from cdn.sources.oci.access import RegistryAccess
from cdn.sources.oci.logins import AUTH_OPTION, Logins
from cdn.sources.oci.names import PlainRegistries
from cdn.sources.oci.source import OciSource


def open_source(context: SourceContext) -> OciSource:
    """The client. Raises ConfigError when an option is wrong.

    Options: ``auth.REGISTRY``, "user:password" for one registry; ``docker_config``, a config.json as ``docker
    login`` writes it, or its folder (else ``DOCKER_CONFIG``; credential helpers are not run); ``insecure``,
    registries that are spoken to without TLS, as those of this machine are unless they are ``secure``.
    """
    auths = (name for name in context.options if name.startswith(AUTH_OPTION))
    context.check_options(("auth.REGISTRY", "docker_config", "insecure", "secure", *auths))
    logins = Logins.from_options(context.options, context.environ)
    plain = PlainRegistries(context.options.get("insecure", ""), context.options.get("secure", ""))
    access = RegistryAccess(context, logins, plain)
    return OciSource(context, access, plain)
