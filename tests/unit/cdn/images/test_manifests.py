"""Manifests as registries have them, and whatever else may come from one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.images.manifests import EMPTY, MAX_ENTRIES, Manifest, ManifestError, parse_manifest, platform_of
from cdn.images.platforms import Platform

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def described(number: int, size: int = 10, kind: str = "x", **fields: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(number), "size": size, **fields}


def parse(value: Any, kind: str = "") -> Manifest:
    return parse_manifest(json.dumps(value).encode(), kind)


@pytest.mark.parametrize("kind", [OCI, DOCKER, f"{OCI}; charset=utf-8", ""])
def test_a_manifest(kind: str) -> None:
    value = {"schemaVersion": 2, "config": described(1, 5), "layers": [described(2, 20), described(3, 30)]}
    manifest = parse(value, kind)
    assert [(blob.kind, blob.digest, blob.size) for blob in manifest.blobs] == [
        ("config", digest(1), 5),
        ("layer", digest(2), 20),
        ("layer", digest(3), 30),
    ]
    assert manifest.config == manifest.blobs[0]
    assert not manifest.is_index


@pytest.mark.parametrize("kind", [INDEX, LIST, ""])
def test_an_index(kind: str) -> None:
    platform = {"os": "Linux", "architecture": "arm64", "variant": "v8", "os.version": "10"}
    attestation = {"os": "unknown", "architecture": "unknown"}
    value = {
        "manifests": [
            described(1, platform=platform),
            described(2, platform=attestation),
            described(3, kind=INDEX),
        ]
    }
    manifest = parse(value, kind)
    assert manifest.is_index
    assert [entry.platform for entry in manifest.entries] == [Platform("linux", "arm64", "v8"), None, None]
    assert manifest.entries[2].media_type == INDEX


def test_an_empty_index_is_one() -> None:
    assert parse({"manifests": None}, INDEX) == Manifest(is_index=True)


def test_what_lies_elsewhere_is_counted_and_what_everybody_has_is_left_out() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    layers = [described(1, kind=foreign), described(2, kind=nondistributable), described(3, kind=EMPTY)]
    manifest = parse({"config": described(4, kind=EMPTY), "layers": [*layers, described(5)]}, OCI)
    assert manifest.foreign == 2
    assert [blob.digest for blob in manifest.blobs] == [digest(5)]
    assert manifest.config is None


def test_schema_1_has_its_layers_once() -> None:
    layers = [{"blobSum": digest(n)} for n in (3, 1, 2, 1)]
    manifest = parse({"schemaVersion": 1, "fsLayers": layers, "history": [{}]}, SCHEMA1)
    assert [(blob.digest, blob.size) for blob in manifest.blobs] == [
        (digest(1), None),
        (digest(2), None),
        (digest(3), None),
    ]


def test_an_artifact_of_the_drafts() -> None:
    manifest = parse({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [described(1)]})
    assert [blob.digest for blob in manifest.blobs] == [digest(1)]


@pytest.mark.parametrize("value", [{}, {"schemaVersion": 2, "anything": [1]}, {"layers": None}])
def test_whatever_else_has_no_blobs(value: Any) -> None:
    assert parse(value) == Manifest()


def test_null_stands_for_nothing() -> None:
    layer = {"mediaType": None, "digest": digest(1), "size": 1, "platform": None}
    assert len(parse({"mediaType": None, "config": None, "layers": [layer], "manifests": None}).blobs) == 1


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        1,
        {"layers": {}},
        {"layers": [{}]},
        {"layers": [described(1, -1)]},
        {"layers": [described(1, "1")]},
        {"layers": [{**described(1), "digest": "md5:abc"}]},
        {"layers": [{**described(1), "digest": "sha256:../../etc"}]},
        {"config": {**described(1), "digest": ""}},
        {"manifests": [{"digest": digest(1)}]},
        {"layers": [described(1)] * (MAX_ENTRIES + 1)},
        {"fsLayers": [{"blobSum": 1}]},
    ],
)
def test_what_is_no_manifest(value: Any) -> None:
    with pytest.raises(ManifestError, match="manifest"):
        parse(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(data, OCI)
    assert platform_of(data) is None


names = st.sampled_from(["manifests", "layers", "config", "blobs", "fsLayers", "mediaType", "digest", "size"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(digest(1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


@given(anything, st.sampled_from([OCI, INDEX, SCHEMA1, "", "text/html"]))
def test_garbage_raises_nothing_but_the_named_error(value: Any, kind: str) -> None:
    try:
        manifest = parse(value, kind)
    except ManifestError:
        return
    assert all(blob.digest == digest(1) for blob in manifest.blobs)


@given(st.binary(max_size=200))
def test_bytes_raise_nothing_but_the_named_error(data: bytes) -> None:
    try:
        parse_manifest(data, OCI)
    except ManifestError:
        return


def test_the_platform_of_a_configuration() -> None:
    config = {"os": "linux", "architecture": "arm", "variant": "v7", "config": {}}
    assert platform_of(json.dumps(config).encode()) == Platform("linux", "arm", "v7")
    assert platform_of(b"{}") is None
    assert platform_of(b'{"os": 1}') is None
