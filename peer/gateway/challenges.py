"""Handing on what a registry asks its clients to show. Pure."""

from __future__ import annotations

from cdn.sources.oci.challenges import parse_challenges
from peer.gateway.errors import RegistryError, registry_response
from peer.gateway.target import Target
from shared.http.client import ClientResponse
from shared.http.messages import Response

FIELD = "www-authenticate"

CREDENTIALS_HELP = (FIELD, 'Basic realm="dragonet", charset="UTF-8"')
"""Goes with the 200 that answers ``/v2/``: showing credentials may change answers (RFC 9110 §11.6.1). Podman,
skopeo and CRI-O show what they have only where they were told so at that place (an empty user and password where
they have none); Docker looks at it in a 401 only, and containerd never asks for ``/v2/``."""


def asked_for_credentials(answer: ClientResponse, target: Target) -> Response:
    """The registry's 401 as the client of this gateway is to see it."""
    headers = [(FIELD, value) for value in challenges_for(answer.headers.get_all(FIELD), target)]
    words = f"{target.registry} wants credentials for {target.repository}"
    return registry_response(RegistryError(401, "UNAUTHORIZED", words, headers=headers))


def challenges_for(values: list[str], target: Target) -> list[str]:
    """A registry's challenges, as those who ask by way of this gateway can meet them.

    Who names the registry in the path (podman, skopeo and CRI-O do) would ask the registry's token service for
    a repository of that longer name, which there is not. Such clients are asked for user and password instead;
    the gateway then goes to the token service itself, which must be as safe a way as the registry's own (see
    ``cdn.sources.oci.tokens``).
    """
    if target.prefix and any(challenge.scheme == "bearer" for challenge in parse_challenges(values)):
        return [f'Basic realm="{target.registry}", charset="UTF-8"']
    return values
