from __future__ import annotations

import pytest

from cdn.images.specs import blob_spec, descriptor_spec, manifest_spec, repository_scope
from shared.errors import InvalidRequest

DIGEST = "sha256:" + "ab" * 32


def test_a_layer_of_two_registries_is_one_task() -> None:
    one, other = blob_spec("one.example", "a/b", DIGEST), blob_spec("other.example:5000", "c", DIGEST)
    assert one.task_id == other.task_id
    assert one.url == f"oci://one.example/a/b@{DIGEST}?kind=blob"


def test_tags_of_two_registries_are_two_tasks() -> None:
    one, other = descriptor_spec("one.example", "a", "1"), descriptor_spec("other.example", "a", "1")
    assert one.task_id != other.task_id
    assert (one.url, one.digest) == ("oci-descriptor://one.example/a:1", "")


def test_docker_hub_has_one_name() -> None:
    assert descriptor_spec("registry-1.docker.io", "library/x", "1") == descriptor_spec(
        "docker.io", "library/x", "1"
    )


def test_a_manifest_and_a_blob_of_one_digest_are_the_same_bytes() -> None:
    assert manifest_spec("a.example", "b", DIGEST).task_id == blob_spec("a.example", "b", DIGEST).task_id


def test_scopes_differ_by_secret_and_repository() -> None:
    scopes = {
        repository_scope(secret, registry, repository)
        for secret in (b"1", b"2")
        for registry in ("a.example", "b.example")
        for repository in ("x", "y")
    }
    assert len(scopes) == 8
    assert {len(scope) for scope in scopes} == {32}


def test_a_digest_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="digest"):
        blob_spec("a.example", "b", "md5:abc")
