"""s3:// and oss:// against moto's server, whose signatures are real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import quote

import pytest
import trio

from cdn.sources.interface import RangeNotSatisfiable, SourceRequest
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from shared.task.identity import normalize_url
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.objectstore.moto import Moto, moto_server
from tests.unit.cdn.sources.objectstore.opening import carried, opened

CONTENT = random_bytes(700_000)
OTHER = random_bytes(650_000, seed=2)
KEY = "models/ä/weights b.bin"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as server:
        yield server


@pytest.fixture
def bucket(moto: Moto, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    return moto.bucket(f"b{abs(hash(request.node.name)):020d}")


def options_for(scheme: str, moto: Moto) -> dict[str, str]:
    return moto.options if scheme == "s3" else {**moto.options, "virtual_hosted": "false"}


@asynccontextmanager
async def example(scheme: str, moto: Moto, bucket: str) -> AsyncIterator[Example]:
    for key in (KEY, "models/ä/config", "models/ä/deeper/x", "models/y", "other"):
        moto.put(bucket, key, CONTENT if key == KEY else b"small")

    def change() -> None:
        moto.put(bucket, KEY, OTHER)

    folder = f"{scheme}://{bucket}/{quote('models/ä/')}"
    async with opened(scheme, options_for(scheme, moto)) as client:
        yield Example(
            client,
            url=folder + "weights%20b.bin",
            content=CONTENT,
            missing=folder + "nothing",
            folder=folder,
            children={"weights b.bin": False, "config": False, "deeper": True},
            change=change,
        )


@pytest.mark.parametrize("scheme", ["s3", "oss"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, scheme: str, moto: Moto, bucket: str) -> None:
    async with example(scheme, moto, bucket) as made:
        await check(made)


async def test_what_an_answer_tells(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "key", CONTENT)
    async with opened("s3", moto.options) as client:
        request = SourceRequest(f"s3://{bucket}/key")
        response = await client.download(request)
        assert (response.status, response.content_length) == (200, len(CONTENT))
        assert response.content_type == "text/x-test"
        assert response.etag.startswith('"')
        assert response.last_modified.endswith("GMT")
        assert (response.digest, response.url) == ("", request.url)
        assert await read(response) == CONTENT
        assert await client.get_content_length(request) == len(CONTENT)
        assert await client.get_last_modified(request) > 1_700_000_000_000


async def test_an_empty_object(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "empty", b"")
    async with opened("s3", moto.options) as client:
        assert await read(await client.download(SourceRequest(f"s3://{bucket}/empty"))) == b""
        with pytest.raises(RangeNotSatisfiable) as caught:
            await client.download(SourceRequest(f"s3://{bucket}/empty", range=(0, 10)))
    assert caught.value.total == 0
    assert caught.value.etag


ODD = ["a b", "ä/ö", "what?#%", "100%25", "a+b&c=d;e", "//x", "/lead", "a//b", "a/", "a//", "~!'()*[]:@,$"]


async def test_names_are_exact(moto: Moto, bucket: str) -> None:
    for key in ODD:
        moto.put(bucket, key, f"this is {key}".encode())
    async with opened("s3", moto.options) as client:
        for key in ODD:
            url, _ = normalize_url(f"s3://{bucket}/{quote(key)}")
            content = await read(await client.download(SourceRequest(url)))
            assert content.decode() == f"this is {key}"
            assert await client.get_content_length(SourceRequest(url)) == len(content)
        for url, key in ((f"s3://{bucket}/a%20b", "a b"), (f"s3://{bucket}/ä%2Fö", "ä/ö")):
            content = await read(await client.download(SourceRequest(normalize_url(url)[0])))
            assert content.decode() == f"this is {key}"
        for other in ("lead", "x", "b", "a"):
            with pytest.raises(SourceError) as caught:
                await client.download(SourceRequest(f"s3://{bucket}/{other}"))
            assert caught.value.origin_status == 404


async def test_a_version_stays_what_it_is(moto: Moto, bucket: str) -> None:
    moto.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = moto.put(bucket, "key", b"first")
    moto.put(bucket, "key", b"second")
    async with opened("s3", moto.options) as client:
        url = f"s3://{bucket}/key"
        old = SourceRequest(f"{url}?versionId={first}", range=(1, 3))
        assert await read(await client.download(old)) == b"irs"
        assert await client.get_content_length(old) == 5
        assert client.is_immutable(old)
        assert await read(await client.download(SourceRequest(url))) == b"second"
        assert not client.is_immutable(SourceRequest(url))
        assert not client.is_immutable(SourceRequest(url + "?versionId=null"))
        assert not client.is_immutable(SourceRequest("s3://NO/key"))


async def test_listing(moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # of one answer
    names = [f"many/{n:04d} ä" for n in range(5)]
    for name in names:
        moto.put(bucket, name, b"x")
    for name in ("many/", "many/folder/x", "many/folder/y/z", "empty/", "top", "toppling/x"):
        moto.put(bucket, name, b"marker")
    assert moto.s3.list_objects_v2(Bucket=bucket, Prefix="many/")["IsTruncated"]
    async with opened("s3", moto.options) as client:
        entries = await client.list(SourceRequest(f"s3://{bucket}/many/"))
        assert len(entries) == len(names) + 1
        assert entries[0].url == f"s3://{bucket}/many/0000%20%C3%A4"
        assert (entries[0].size, entries[0].is_folder, entries[0].version[:1]) == (1, False, '"')
        assert (entries[-1].url, entries[-1].is_folder) == (f"s3://{bucket}/many/folder/", True)
        assert await client.list(SourceRequest(f"s3://{bucket}/many")) == entries
        assert await client.list(SourceRequest(f"s3://{bucket}/empty/")) == []
        root = [entry.url for entry in await client.list(SourceRequest(f"s3://{bucket}"))]
        assert root == [f"s3://{bucket}/{name}" for name in ("empty/", "many/", "top", "toppling/")]
        for nothing in ("none/", "top/"):
            with pytest.raises(SourceError) as caught:
                await client.list(SourceRequest(f"s3://{bucket}/{nothing}"))
            assert caught.value.origin_status == 404
        for wrong in ("//", "a//b/", "many/?versionId=x"):
            with pytest.raises(SourceError, match="cannot be listed") as caught:
                await client.list(SourceRequest(f"s3://{bucket}/{wrong}"))
            assert caught.value.fault == "request"
        moto.put(bucket, "many//odd", b"x")
        with pytest.raises(SourceError, match="empty parts"):
            await client.list(SourceRequest(f"s3://{bucket}/many/"))


async def test_refusals_say_what_to_do_and_show_no_secret(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "key", b"x")
    request = SourceRequest(f"s3://{bucket}/key")
    place = {"endpoint": moto.endpoint, "region": "eu-west-1"}
    wrong = {"access_key_id": moto.access_key_id, "secret_access_key": "S3CRET" * 6}
    for options, words, fault in (
        ({**place, **wrong}, "credentials in source.options.s3", "reader"),
        (place, "without credentials", "reader"),
    ):
        async with opened("s3", options) as client:
            for call in (client.download, client.get_content_length):
                with pytest.raises(SourceError, match=words) as caught:
                    await call(request)
                assert (caught.value.origin_status, caught.value.fault) == (403, fault)
                shown = f"{caught.value} {client!r} {caught.value!r}"
                assert "S3CRET" not in shown
                assert moto.access_key_id not in shown
                assert "\n" not in shown
    async with opened("s3", moto.options) as client:
        headers = carried(access_key_id="other", secret_access_key="S3CRET")
        with pytest.raises(SourceError, match="credentials of the request") as caught:
            await client.download(SourceRequest(request.url, headers))
        assert (caught.value.origin_status, caught.value.fault) == (403, "request")


async def test_no_such_bucket(moto: Moto) -> None:
    async with opened("s3", moto.options) as client:
        for call in (client.download, client.list):
            with pytest.raises(SourceError, match="has no bucket nobody-made-it") as caught:
                await call(SourceRequest("s3://nobody-made-it/key"))
            assert caught.value.origin_status == 404


async def test_credentials_of_a_request_are_its_own(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "key", b"x")
    place = {"endpoint": moto.endpoint, "region": "eu-west-1"}
    request = SourceRequest(f"s3://{bucket}/key")
    good = carried(access_key_id=moto.access_key_id, secret_access_key=moto.secret_access_key)
    async with opened("s3", place) as client:
        mine = SourceRequest(request.url, good)
        assert await read(await client.download(mine)) == b"x"
        with pytest.raises(SourceError) as caught:
            await client.download(request)
        assert caught.value.origin_status == 403, "what one request brought is not there for the next"
    async with opened("s3", moto.options) as client:
        half = carried(access_key_id=moto.access_key_id)
        with pytest.raises(SourceError, match="belong together") as caught:
            await client.download(SourceRequest(request.url, half))
        assert caught.value.fault == "request", "nothing is completed from the configuration"


async def test_credentials_with_a_token(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "key", b"x")
    names = {
        "access_key_id": "AccessKeyId",
        "secret_access_key": "SecretAccessKey",
        "session_token": "SessionToken",
    }
    credentials = {name: moto.session[field] for name, field in names.items()}
    async with opened("s3", {"endpoint": moto.endpoint, "region": "eu-west-1"}) as client:
        request = SourceRequest(f"s3://{bucket}/key", carried(**credentials))
        assert await read(await client.download(request)) == b"x"
        credentials["session_token"] = "another"
        with pytest.raises(SourceError):
            await client.download(SourceRequest(request.url, carried(**credentials)))


async def test_credentials_of_the_environment(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "key", b"x")
    place = {"endpoint": moto.endpoint, "region": "eu-west-1"}
    environ = {"AWS_ACCESS_KEY_ID": moto.access_key_id, "AWS_SECRET_ACCESS_KEY": moto.secret_access_key}
    async with opened("s3", place, environ=environ) as client:
        assert await read(await client.download(SourceRequest(f"s3://{bucket}/key"))) == b"x"


async def test_the_environment_of_the_process_changes_nothing(
    moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.put(bucket, "key", b"x")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "other",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "elsewhere",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    async with opened("s3", moto.options) as client:
        assert await read(await client.download(SourceRequest(f"s3://{bucket}/key"))) == b"x"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_access_key)
    async with opened("s3", {"endpoint": moto.endpoint}) as client:
        with pytest.raises(SourceError, match="without credentials"):
            await client.download(SourceRequest(f"s3://{bucket}/key"))


async def test_oss_has_the_bucket_in_the_host_name(moto: Moto, bucket: str) -> None:
    moto.put(bucket, "a/ä b", b"x")
    options = {**moto.options, "endpoint": "http://s3.oss-test.aliyuncs.com"}
    async with opened("oss", options, proxy=moto.endpoint) as client:
        request = SourceRequest(f"oss://{bucket}/a/%C3%A4%20b")
        assert await read(await client.download(request)) == b"x"
        assert [entry.url for entry in await client.list(SourceRequest(f"oss://{bucket}/a"))] == [request.url]


async def test_credentials_of_the_cloud_are_asked_for_only_when_told_to(
    moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.put(bucket, "key", b"x")
    request, asked = SourceRequest(f"s3://{bucket}/key"), []
    place = {"endpoint": moto.endpoint, "region": "eu-west-1"}
    answers = {
        "PUT /latest/api/token": "a token",
        "GET /latest/meta-data/iam/security-credentials/": "role",
        "GET /latest/meta-data/iam/security-credentials/role": json.dumps(
            {
                "AccessKeyId": moto.session["AccessKeyId"],
                "SecretAccessKey": moto.session["SecretAccessKey"],
                "Token": moto.session["SessionToken"],
                "Expiration": "2100-01-01T00:00:00Z",
            }
        ),
    }

    async def metadata(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some():
            asked.append(data.decode().partition(" HTTP")[0])
            body = answers[asked[-1]]
            await stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, metadata, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{port}")
        async with opened("s3", place) as client:
            with pytest.raises(SourceError, match="without credentials"):
                await client.download(request)
        assert asked == []
        async with opened("s3", {**place, "instance_credentials": "true"}) as client:
            assert await read(await client.download(request)) == b"x"
        assert asked == list(answers)
        nursery.cancel_scope.cancel()
