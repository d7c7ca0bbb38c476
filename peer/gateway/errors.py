"""What a container runtime is told when it cannot have something: the specification's codes, as JSON. Pure.

``{"errors": [{"code": "BLOB_UNKNOWN", "message": "…", "detail": {…}}]}`` (OCI distribution specification 1.1,
"Error Codes"). Failures of servers have no code there; they get the ones that the registries in use give:
UNAVAILABLE and UNKNOWN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from peer.gateway.target import Target
from shared.errors import (
    DeadlineExceeded,
    DragonetError,
    InvalidRequest,
    SourceError,
    StoreError,
    TaskNotFound,
    Unavailable,
)
from shared.http.messages import Response

API_VERSION = ("docker-distribution-api-version", "registry/2.0")
"""On every answer below /v2/."""

SOON = 5.0
"""Seconds after which a runtime may ask again where nothing else is known."""


class RegistryError(DragonetError):
    """A request is answered with one of the specification's errors.

    ``detail`` says what it is about; ``headers`` go with the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: Mapping[str, str] | None = None,
        headers: Iterable[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = dict(detail or {})
        self.headers = list(headers)
        self.retry_after = retry_after


def registry_response(error: RegistryError) -> Response:
    """The error as an answer, with Retry-After where it is known."""
    headers = [API_VERSION, *error.headers]
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(0, math.ceil(error.retry_after)))))
    told: dict[str, object] = {"code": error.code, "message": str(error)}
    if error.detail:
        told["detail"] = error.detail
    return Response.json({"errors": [told]}, error.status, headers)


def registry_error(error: DragonetError, target: Target) -> RegistryError:
    """What went wrong on the way to ``target``, in the specification's words.

    What the registry itself said is passed on: 404, 429 with its Retry-After; 401 and 403 as 403, since it was
    not this request that it refused. All else is a 5xx, at which runtimes turn to the registry.
    """
    if isinstance(error, RegistryError):
        return error
    if isinstance(error, SourceError) and error.origin_status is not None:
        return _refused_upstream(error, error.origin_status, target)
    words, detail, again = str(error), _detail(target), error.retry_after
    match error:
        case DeadlineExceeded() | Unavailable() | StoreError():
            again = SOON if again is None else again
            return RegistryError(503, "UNAVAILABLE", words, detail=detail, retry_after=again)
        case TaskNotFound():
            return RegistryError(404, _unknown(target), words, detail=detail)
        case SourceError(fault="request"):
            return RegistryError(403, "DENIED", words, detail=detail)
        case InvalidRequest():
            return RegistryError(400, "UNSUPPORTED", words, detail=detail)
        case _:
            return RegistryError(502, "UNKNOWN", words, detail=detail, retry_after=again)


def _refused_upstream(error: SourceError, status: int, target: Target) -> RegistryError:
    words, detail, again = str(error), _detail(target), error.retry_after
    match status:
        case 404 | 410:
            return RegistryError(404, _unknown(target), words, detail=detail)
        case 401 | 403:
            return RegistryError(403, "DENIED", words, detail=detail)
        case 429:
            return RegistryError(429, "TOOMANYREQUESTS", words, detail=detail, retry_after=again)
        case 508:
            words = f"{target.registry} is a dragonet gateway: name the registry that it is for"
            return RegistryError(508, "DENIED", words, detail=detail)
        case 503 | 504:
            return RegistryError(503, "UNAVAILABLE", words, detail=detail, retry_after=again)
        case _:
            return RegistryError(502, "UNKNOWN", words, detail=detail, retry_after=again)


def _unknown(target: Target) -> str:
    match target.kind:
        case "manifests":
            return "MANIFEST_UNKNOWN"
        case "blobs":
            return "BLOB_UNKNOWN"
        case _:
            return "NAME_UNKNOWN"


def _detail(target: Target) -> dict[str, str]:
    named = {"registry": target.registry, "repository": target.repository}
    return named | ({"reference": target.reference} if target.reference else {})
