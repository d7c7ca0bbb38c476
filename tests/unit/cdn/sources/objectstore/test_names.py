"""URLs of object stores, and the options of their schemes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources.interface import SourceRequest
from cdn.sources.objectstore.names import (
    AZURE_CONTAINERS,
    GOOGLE_BUCKETS,
    OSS_BUCKETS,
    S3_BUCKETS,
    BucketRule,
    parse_name,
)
from shared.errors import ConfigError, SourceError
from shared.task.identity import normalize_url
from tests.unit.cdn.sources.objectstore.opening import carried, open_client

RULES = {"s3": S3_BUCKETS, "oss": OSS_BUCKETS, "gs": GOOGLE_BUCKETS, "az": AZURE_CONTAINERS}


@pytest.mark.parametrize(
    ("scheme", "good"),
    [
        ("s3", ["abc", "my-bucket", "my.bucket.1", "1-2", "a" * 63]),
        ("oss", ["abc", "my-bucket", "a" * 63]),
        ("gs", ["abc", "my_bucket", "my.bucket.example", f"{'a' * 63}.{'b' * 63}"]),
        ("az", ["abc", "my-container", "$root", "$web", "a" * 63]),
    ],
)
def test_bucket_names(scheme: str, good: list[str]) -> None:
    for name in good:
        RULES[scheme].check(scheme, name)
    bad = [
        "",
        "a",
        "ab",
        "-ab",
        "ab-",
        "a..b",
        "a.-b",
        "Abc",
        "a b",
        "a/b",
        "a@b",
        "a:80",
        "a%b",
        "a?b",
        "a#b",
    ]
    bad += ["169.254.169.254", "127.0.0.1", "[::1]", "::1", "äöü", "abc\n", "a" * 64, "$x", ".abc", "abc."]
    for name in bad:
        with pytest.raises(SourceError, match="is not the name of a") as caught:
            RULES[scheme].check(scheme, name)
        assert caught.value.fault == "request"


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_long_bucket_names_are_refused_at_once(rule: BucketRule) -> None:
    for name in ("a" * 100_000 + "!", "a." * 50_000 + "!", "a-" * 50_000 + "!"):
        with pytest.raises(SourceError):
            rule.check("s3", name)


KEYS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in [*range(32), 127]]),
    min_size=1,
    max_size=40,
).filter(lambda key: not {".", ".."} & set(key.split("/")))


@given(KEYS)
def test_a_key_comes_back_from_its_url(key: str) -> None:
    url = parse_name("s3://bucket/x", S3_BUCKETS, "versionId").url(key)
    assert url.isascii()
    assert parse_name(url, S3_BUCKETS, "versionId").key == key
    assert parse_name(normalize_url(url)[0], S3_BUCKETS, "versionId").key == key


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://bucket/a#b", "write it as %23"),
        ("s3://bucket/%ff", "is not UTF-8"),
        ("s3://bucket/a%00b", "control character"),
        ("s3://bucket/a%0ab", "control character"),
        ("s3://bucket/../b", "a part '.' or '..'"),
        ("s3://bucket/a/%2e%2e/b", "a part '.' or '..'"),
        ("s3://bucket/a/.", "a part '.' or '..'"),
        ("s3://bucket/a?b", "%3F"),
        ("s3://bucket/a?versionId=", "and nothing else"),
        ("s3://bucket/a?versionId=1&versionId=2", "and nothing else"),
        ("s3://bucket/a?versionId=%0a", "control character"),
        ("s3://[bucket/a", "is not a URL"),
        ("s3:///a", "is not the name of a bucket"),
        ("s3://user:secret@bucket/a", "is not the name of a bucket"),
    ],
)
def test_urls_that_name_nothing(url: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_name(url, S3_BUCKETS, "versionId")
    assert words in str(caught.value)
    assert caught.value.fault == "request"


def test_versions() -> None:
    name = parse_name("s3://bucket/a?versionid=a%2Bb", S3_BUCKETS, "versionId")
    assert (name.key, name.version, name.immutable) == ("a", "a+b", True)


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        (
            "s3",
            {"bucket": "x"},
            "has no option 'bucket': there are access_key_id, allow_http, ca_file, endpoint",
        ),
        ("s3", {"access_key_id": "x"}, "belong together"),
        ("s3", {"virtual_hosted": "maybe"}, "virtual_hosted is neither true nor false"),
        ("s3", {"region": "a.evil.example/"}, "is not a region"),
        ("s3", {"endpoint": "host:80"}, "is not an endpoint"),
        ("s3", {"endpoint": "ftp://host"}, "is not an endpoint"),
        ("s3", {"endpoint": "http://u:S3CRET@host"}, "is not an endpoint"),
        ("s3", {"endpoint": "http://host?x"}, "is not an endpoint"),
        ("s3", {"endpoint": "http://host:99999"}, "is not an endpoint"),
        ("s3", {"endpoint": "http://host", "allow_http": "false"}, "begins with http://"),
        ("s3", {"ca_file": "/nowhere"}, "ca_file /nowhere cannot be read"),
        ("oss", {}, "region is not set"),
        ("oss", {"instance_credentials": "true"}, "has no option 'instance_credentials'"),
        ("gs", {"token": "x", "service_account": "y"}, "are too many"),
        ("gs", {"service_account": "/nowhere"}, "cannot be read"),
        ("gs", {"service_account_key": "S3CRET"}, "hold no service account's key"),
        ("az", {"account_key": "x", "sas_token": "y"}, "are too many"),
        ("az", {"client_id": "x", "client_secret": "y"}, "are not complete"),
        ("az", {"client_id": "x", "client_secret": "y", "tenant_id": "a/b"}, "hold a tenant_id"),
        ("az", {"account_name": "evil.example/"}, "is not the name of a storage account"),
        ("az", {"use_emulator": "perhaps"}, "neither true nor false"),
    ],
)
def test_wrong_options(scheme: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_client(scheme, options)
    assert words in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "options", "host"),
    [
        ("s3", {}, "s3.us-east-1.amazonaws.com"),
        ("s3", {"region": "eu-west-1"}, "s3.eu-west-1.amazonaws.com"),
        ("s3", {"endpoint": "http://minio:9000/"}, "minio:9000"),
        ("oss", {"region": "cn-hangzhou"}, "s3.oss-cn-hangzhou.aliyuncs.com"),
        ("oss", {"region": "oss-cn-hangzhou"}, "s3.oss-cn-hangzhou.aliyuncs.com"),
        ("gs", {}, "storage.googleapis.com"),
        ("az", {"account_name": "someone"}, "someone.blob.core.windows.net"),
        ("az", {"use_emulator": "true"}, "127.0.0.1:10000"),
    ],
)
def test_where_stores_are(scheme: str, options: dict[str, str], host: str) -> None:
    assert f"{scheme} at {host}," in repr(open_client(scheme, options))


@pytest.mark.parametrize(
    ("scheme", "options", "url", "base"),
    [
        ("s3", {}, "s3://bucket/a", "https://bucket.s3.us-east-1.amazonaws.com"),
        ("s3", {}, "s3://a.bucket/a", "https://s3.us-east-1.amazonaws.com/a.bucket"),
        ("s3", {"endpoint": "http://minio:9000"}, "s3://bucket/a", "http://minio:9000/bucket"),
        (
            "s3",
            {"endpoint": "https://host", "virtual_hosted": "true"},
            "s3://bucket/a",
            "https://bucket.host",
        ),
        ("s3", {"endpoint": "http://host/s3"}, "s3://bucket/a//b", "http://host/s3/bucket/a/"),
        ("oss", {"region": "cn-test"}, "oss://bucket/a", "https://bucket.s3.oss-cn-test.aliyuncs.com"),
        ("gs", {}, "gs://bucket/a//b", "https://storage.googleapis.com/bucket"),
        ("az", {"endpoint": "http://host"}, "az://bucket/a//b", "http://host/bucket/a/"),
    ],
)
def test_where_objects_are(scheme: str, options: dict[str, str], url: str, base: str) -> None:
    client = open_client(scheme, options)
    from cdn.sources.objectstore.client import ObjectStoreSource

    assert isinstance(client, ObjectStoreSource)
    service = client.service
    name = parse_name(url, service.buckets, service.version_parameter)
    assert service.place(name).base == base


def test_the_region_of_the_environment() -> None:
    assert "s3.eu-north-1." in repr(open_client("s3", {}, environ={"AWS_REGION": "eu-north-1"}))


async def test_requests_name_credentials_only(tmp_path: Path) -> None:
    client = open_client("s3", {})
    for headers, words in (
        (carried(endpoint="http://127.0.0.1"), "cannot carry the source option 'endpoint'"),
        (carried(region="us-east-1"), "cannot carry the source option 'region'"),
        ({"Authorization": "Basic S3CRET"}, "x-dragonet-source-secret-access-key"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            await client.download(SourceRequest("s3://bucket/key", headers))
        assert caught.value.fault == "request"
        assert "S3CRET" not in str(caught.value)


async def test_buckets_have_no_content_of_their_own() -> None:
    client = open_client("s3", {})
    for url in ("s3://bucket", "s3://bucket/"):
        with pytest.raises(SourceError, match="names no object") as caught:
            await client.download(SourceRequest(url))
        assert caught.value.fault == "request"
