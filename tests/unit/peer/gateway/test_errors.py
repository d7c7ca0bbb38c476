"""What is told when something cannot be had."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from peer.gateway.errors import RegistryError, registry_error, registry_response
from peer.gateway.target import Kind, Target
from shared.errors import (
    DeadlineExceeded,
    DigestMismatch,
    DragonetError,
    InvalidRequest,
    SourceError,
    StoreDamaged,
    StoreFull,
    TaskNotFound,
    Unavailable,
)

TARGET = Target("blobs", "quay.io", "team/app", digest="sha256:1")


@pytest.mark.parametrize(
    ("error", "status", "code", "again"),
    [
        (SourceError("x", origin_status=404), 404, "BLOB_UNKNOWN", None),
        (SourceError("x", origin_status=410), 404, "BLOB_UNKNOWN", None),
        (SourceError("x", origin_status=401), 403, "DENIED", None),
        (SourceError("x", origin_status=403), 403, "DENIED", None),
        (SourceError("x", origin_status=429, retry_after=7.2), 429, "TOOMANYREQUESTS", "8"),
        (SourceError("x", origin_status=429), 429, "TOOMANYREQUESTS", None),
        (SourceError("x", origin_status=500), 502, "UNKNOWN", None),
        (SourceError("x", origin_status=503, retry_after=3), 503, "UNAVAILABLE", "3"),
        (SourceError("x", origin_status=504), 503, "UNAVAILABLE", None),
        (SourceError("x"), 502, "UNKNOWN", None),
        (SourceError("x", fault="request"), 403, "DENIED", None),
        (TaskNotFound("x"), 404, "BLOB_UNKNOWN", None),
        (DeadlineExceeded("x"), 503, "UNAVAILABLE", "5"),
        (Unavailable("x"), 503, "UNAVAILABLE", "5"),
        (StoreFull("x"), 503, "UNAVAILABLE", "5"),
        (StoreDamaged("x"), 503, "UNAVAILABLE", "5"),
        (DigestMismatch("x"), 502, "UNKNOWN", None),
        (InvalidRequest("x"), 400, "UNSUPPORTED", None),
        (DragonetError("x"), 502, "UNKNOWN", None),
    ],
)
def test_errors_as_answers(error: DragonetError, status: int, code: str, again: str | None) -> None:
    answer = registry_response(registry_error(error, TARGET))
    assert answer.status == status
    assert dict(answer.headers).get("retry-after") == again
    assert dict(answer.headers)["docker-distribution-api-version"] == "registry/2.0"
    assert answer.content_type == "application/json"
    told = msgspec.json.decode(cast(bytes, answer.body))
    detail = {"registry": "quay.io", "repository": "team/app", "reference": "sha256:1"}
    assert told == {"errors": [{"code": code, "message": "x", "detail": detail}]}


def test_a_gateway_behind_a_gateway() -> None:
    error = registry_error(SourceError("x", origin_status=508), TARGET)
    assert (error.status, error.code) == (508, "DENIED")
    assert "quay.io is a dragonet gateway" in str(error)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("manifests", "MANIFEST_UNKNOWN"), ("tags", "NAME_UNKNOWN"), ("referrers", "NAME_UNKNOWN")],
)
def test_what_is_not_known(kind: Kind, code: str) -> None:
    target = Target(kind, "quay.io", "team/app", "v1" if kind == "manifests" else "")
    assert registry_error(SourceError("x", origin_status=404), target).code == code


def test_what_is_in_the_right_form_stays() -> None:
    error = RegistryError(418, "DENIED", "words")
    assert registry_error(error, TARGET) is error
    assert msgspec.json.decode(cast(bytes, registry_response(error).body)) == {
        "errors": [{"code": "DENIED", "message": "words"}]
    }
