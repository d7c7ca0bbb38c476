"""gs:// and az:// against a small server of objects, written after the manuals of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from cdn.sources.interface import RangeNotSatisfiable, SourceRequest
from cdn.sources.testing import CHECKS, Check, Example
from shared.errors import SourceError
from shared.task.identity import normalize_url
from tests.unit.cdn.fakes import random_bytes
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.objectstore.blobs import CHANGED, Asked, BlobServer, blobs
from tests.unit.cdn.sources.objectstore.opening import carried, opened

CONTENT = random_bytes(700_000)
OTHER = random_bytes(650_000, seed=2)
BUCKET = "a-bucket"
KEY = "models/ä b/weights.bin"

every = pytest.mark.parametrize("scheme", ["gs", "az"])


def options_for(scheme: str, server: BlobServer) -> dict[str, str]:
    options = {"endpoint": server.endpoint}
    return options if scheme == "gs" else {**options, "account_name": "someone"}


@asynccontextmanager
async def example(scheme: str) -> AsyncIterator[Example]:
    async with blobs(azure=scheme == "az") as server:
        for key in (KEY, "models/ä b/config", "models/ä b/deeper/x", "models/ä b/z", "models/y", "other"):
            server.objects[BUCKET, key] = CONTENT if key == KEY else b"small"

        def change() -> None:
            server.objects[BUCKET, KEY] = OTHER

        folder = f"{scheme}://{BUCKET}/{quote('models/ä b/')}"
        async with opened(scheme, options_for(scheme, server)) as client:
            yield Example(
                client,
                url=folder + "weights.bin",
                content=CONTENT,
                missing=folder + "nothing",
                folder=folder,
                children={"weights.bin": False, "config": False, "z": False, "deeper": True},
                change=change,
            )


@every
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, scheme: str) -> None:
    async with example(scheme) as made:
        await check(made)


@every
async def test_what_an_answer_tells(scheme: str) -> None:
    async with blobs(azure=scheme == "az") as server, opened(scheme, options_for(scheme, server)) as client:
        server.objects[BUCKET, "key"] = CONTENT
        request = SourceRequest(f"{scheme}://{BUCKET}/key")
        response = await client.download(request)
        assert (response.status, response.content_length) == (200, len(CONTENT))
        assert (response.content_type, response.etag) == ("text/x-test", server.etag(CONTENT))
        assert await read(response) == CONTENT
        assert await client.get_last_modified(request) == CHANGED * 1000
        assert all("authorization" not in asked.headers for asked in server.asked), "nobody's credentials"


@every
async def test_names_are_exact(scheme: str) -> None:
    odd = ["a b", "ä/ö", "what?#%", "100%25", "a+b&c", "//x", "/lead", "a//b", "a/", "a//", "~!'()*[]:@,$"]
    async with blobs(azure=scheme == "az") as server, opened(scheme, options_for(scheme, server)) as client:
        for key in odd:
            server.objects[BUCKET, key] = f"this is {key}".encode()
        for key in odd:
            url, _ = normalize_url(f"{scheme}://{BUCKET}/{quote(key)}")
            assert (await read(await client.download(SourceRequest(url)))).decode() == f"this is {key}"
        for other in ("lead", "x", "b", "a"):
            with pytest.raises(SourceError) as caught:
                await client.download(SourceRequest(f"{scheme}://{BUCKET}/{other}"))
            assert caught.value.origin_status == 404


@every
async def test_versions_and_empty_objects(scheme: str) -> None:
    parameter = "generation" if scheme == "gs" else "versionid"
    async with blobs(azure=scheme == "az") as server, opened(scheme, options_for(scheme, server)) as client:
        server.objects[BUCKET, "key"] = b""
        server.versions[BUCKET, "key", "12"] = b"before"
        old = SourceRequest(f"{scheme}://{BUCKET}/key?{parameter}=12", range=(1, 2))
        assert await read(await client.download(old)) == b"ef"
        assert client.is_immutable(old)
        assert await client.get_content_length(old) == 6
        with pytest.raises(RangeNotSatisfiable) as caught:
            await client.download(SourceRequest(f"{scheme}://{BUCKET}/key", range=(0, 2)))
        assert caught.value.total == 0
        with pytest.raises(SourceError, match="and nothing else") as wrong:
            await client.download(SourceRequest(f"{scheme}://{BUCKET}/key?other=12"))
        assert wrong.value.fault == "request"


@every
async def test_refusals_say_what_to_do_and_show_no_secret(scheme: str) -> None:
    secret = {"gs": {"token": "S3CRET"}, "az": {"sas_token": "sv=2020&sig=S3CRET"}}[scheme]
    async with blobs(azure=scheme == "az") as server:
        server.allowed = lambda asked: False
        server.objects[BUCKET, "key"] = b"x"
        place = options_for(scheme, server)
        for options, headers, words, fault in (
            (place, {}, "without credentials", "reader"),
            ({**place, **secret}, {}, f"credentials in source.options.{scheme}", "reader"),
            (place, carried(**secret), "credentials of the request", "request"),
        ):
            async with opened(scheme, options) as client:
                request = SourceRequest(f"{scheme}://{BUCKET}/key", headers)
                for call in (client.download, client.get_content_length, client.list):
                    with pytest.raises(SourceError, match=words) as caught:
                        await call(request)
                    assert (caught.value.origin_status, caught.value.fault) == (403, fault)
                    shown = f"{caught.value} {client!r} {caught.value!r}"
                    assert "S3CRET" not in shown
                    assert "sig" not in shown
                    assert "\n" not in shown


@every
async def test_no_such_bucket(scheme: str) -> None:
    async with blobs(azure=scheme == "az") as server, opened(scheme, options_for(scheme, server)) as client:
        word = "bucket" if scheme == "gs" else "container"
        for call in (client.download, client.list):
            with pytest.raises(SourceError, match=f"has no {word} {BUCKET}") as caught:
                await call(SourceRequest(f"{scheme}://{BUCKET}/key"))
            assert caught.value.origin_status == 404


async def test_google_takes_a_token_and_gives_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "of the environment")
    async with blobs() as server, opened("gs", {"endpoint": server.endpoint, "token": "mine"}) as client:
        server.objects[BUCKET, "key"] = b"x"
        request = SourceRequest(f"gs://{BUCKET}/key")
        assert await read(await client.download(request)) == b"x"
        assert server.asked[-1].headers["authorization"] == "Bearer mine"
        assert server.asked[-1].headers["accept-encoding"] == "gzip"
        await read(await client.download(SourceRequest(request.url, carried(token="theirs"))))
        assert server.asked[-1].headers["authorization"] == "Bearer theirs"
        await read(await client.download(request))
        assert server.asked[-1].headers["authorization"] == "Bearer mine"


async def test_a_service_accounts_key_cannot_name_an_endpoint() -> None:
    key = (
        '{"client_email": "a@b", "private_key": "-----BEGIN", "gcs_base_url": "http://127.0.0.1:9",'
        ' "disable_oauth": true}'
    )
    async with blobs() as server, opened("gs", {"endpoint": server.endpoint}) as client:
        with pytest.raises(SourceError, match="credentials of the request for gs:// are not valid") as caught:
            await client.download(SourceRequest(f"gs://{BUCKET}/key", carried(service_account_key=key)))
        assert caught.value.fault == "request"
        with pytest.raises(SourceError, match="hold no service account's key"):
            await client.download(
                SourceRequest(f"gs://{BUCKET}/key", carried(service_account_key='{"S3CRET": 1}'))
            )
        with pytest.raises(SourceError, match="cannot carry the source option 'service_account'"):
            await client.download(SourceRequest(f"gs://{BUCKET}/key", carried(service_account="/etc/passwd")))
        assert not server.asked


async def test_azure_takes_a_key_or_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_TOKEN", "of the environment")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9")
    async with blobs(azure=True) as server:
        server.objects[BUCKET, "key"] = b"x"
        options = {"endpoint": server.endpoint, "account_name": "someone", "account_key": "c2VjcmV0"}
        async with opened("az", options) as client:

            async def asked(**credentials: str) -> Asked:
                await read(await client.download(SourceRequest(f"az://{BUCKET}/key", carried(**credentials))))
                return server.asked[-1]

            assert (await asked()).headers["authorization"].startswith("SharedKey someone:")
            other = await asked(account_name="other", account_key="b3RoZXI=")
            assert other.headers["authorization"].startswith("SharedKey other:")
            signed = await asked(sas_token="?sv=2020&sig=a%2Bb%3D")
            assert signed.query == {"sv": "2020", "sig": "a+b="}
            assert "authorization" not in signed.headers
            assert "authorization" not in (await asked(account_name="other")).headers
            assert (await asked()).headers["authorization"].startswith("SharedKey someone:")


async def test_azure_needs_an_account() -> None:
    async with opened("az", {}) as client:
        with pytest.raises(SourceError, match=r"source\.options\.az\.account_name") as caught:
            await client.download(SourceRequest(f"az://{BUCKET}/key"))
        assert caught.value.fault == "reader"
        evil = SourceRequest(f"az://{BUCKET}/key", carried(account_name="evil.example/", account_key="eA=="))
        with pytest.raises(SourceError, match="hold an account_name that is none"):
            await client.download(evil)
