"""Settings of the registry gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from peer.gateway.registries import is_pattern, is_registry
from shared.config import Seconds, WrongSetting
from shared.task.identity import redact_url


class RegistryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The registry gateway: container runtimes pull through it."""

    allow: Annotated[
        tuple[str, ...],
        Meta(
            description="Registries that may be pulled from, as host or host:port; * stands for any part of a "
            "name, as in *.example.com. All others are refused."
        ),
    ] = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io")
    default: Annotated[
        str,
        Meta(
            description="The registry meant by requests that name none, as Docker's are; empty: refuse them."
        ),
    ] = "docker.io"
    names: Annotated[
        tuple[str, ...],
        Meta(
            description="Names by which programs reach the gateway, besides localhost, this machine's own name "
            "and IP addresses. Requests under other names are refused: a web page could be behind them."
        ),
    ] = ()
    share_login: Annotated[
        tuple[str, ...],
        Meta(
            description="Registries for which every program that reaches the gateway may have what this "
            "machine's own credentials (source.options.oci) can read. Empty: nobody."
        ),
    ] = ()
    first_byte: Annotated[
        Seconds,
        Meta(
            description="How long a request may wait for its first byte; then it is answered with 503, so that "
            "the runtime turns to the registry."
        ),
    ] = 30.0
    public_for: Annotated[
        Seconds,
        Meta(description="How long a repository counts as public after it was read without credentials."),
    ] = 300.0
    proof_for: Annotated[
        Seconds,
        Meta(
            description="How long, at most, a client's credentials count as good for a repository after its "
            "registry accepted them; a token's own end comes first."
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        _check("allow", self.allow, is_pattern, "; * stands for any part of a name")
        _check("default", filter(None, [self.default]), is_registry)
        _check("share_login", self.share_login, is_registry)


def _check(key: str, names: Iterable[str], is_good: Callable[[str], bool], more: str = "") -> None:
    for name in names:
        if not is_good(name):
            raise WrongSetting(
                key,
                f"cannot be {redact_url(name)!r}: write registries as host or host:port, as in docker.io, without "
                f"a scheme and a path{more}",
            )
