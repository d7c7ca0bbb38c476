"""Registries that lie, are slow, or lead elsewhere: what is asked of them ends with an error in words."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.context import SourceContext
from cdn.sources.oci import open_door
from cdn.sources.oci.client import MAX_ANSWER, RegistryClient
from cdn.sources.oci.descriptor import MAX_MANIFEST
from cdn.sources.oci.logins import Login, login_of
from cdn.sources.oci.names import Reference
from shared.errors import SourceError
from shared.http.client import HttpClient
from tests.unit.cdn.fakes import MemorySink, job
from tests.unit.cdn.sources.registry_server import MANIFEST, digest_of

BODY = b'{"schemaVersion":2,"layers":[]}'
DIGEST = digest_of(BODY)
LAYER = digest_of(b"layer")
OTHER = digest_of(b"other")
ALICE = Login("alice", "secret")
Reply = Callable[[str, str, dict[str, str]], bytes | Iterator[bytes]]
"""What to send for (method, target, headers)."""


@asynccontextmanager
async def registry(reply: Reply) -> AsyncIterator[str]:
    """Whatever ``reply`` gives goes over the wire as it is; then the connection is closed."""

    async def handle(stream: trio.SocketStream) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some(65536)
                if not data:
                    return
                head += data
            first, *lines = head.decode().strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            sent = reply(method, target, headers)
            for chunk in (sent,) if isinstance(sent, bytes) else sent:
                await stream.send_all(chunk)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(**settings: object) -> AsyncIterator[RegistryClient]:
    config = SourceConfig(**settings)  # type: ignore[arg-type]
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        yield await reader.registry_client()


def answer(*fields: str, status: int = 200, body: bytes = b"") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status} whatever", *fields, "Connection: close"))
    return head.encode("latin-1") + b"\r\n\r\n" + body


def told(**changes: str) -> tuple[str, ...]:
    fields = {
        "Content-Type": MANIFEST,
        "Docker-Content-Digest": DIGEST,
        "Content-Length": str(len(BODY)),
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return tuple(f"{name}: {value}" for name, value in fields.items() if value)


GOOD = answer(*told(), body=BODY)


@pytest.mark.parametrize(
    "head",
    [
        told(Docker_Content_Digest="nonsense"),
        told(Docker_Content_Digest="sha256:" + "0" * 63),
        told(Docker_Content_Digest="md5:" + "0" * 32),
        told(Docker_Content_Digest="\xff" * 71),
        told(Docker_Content_Digest=""),
        told(Content_Length=""),
        told(Content_Length="0"),
        told(Content_Length=str(MAX_MANIFEST + 1)),
        told(Content_Length="9" * 18),
        told(Content_Type="text/html; charset=utf-8"),
        told(Content_Type=""),
        (*told(Content_Length=""), "Transfer-Encoding: chunked"),
        (*told(Content_Length="17"), "Content-Encoding: gzip"),
    ],
)
async def test_what_a_head_tells_wrongly_is_learned_from_the_manifest(head: tuple[str, ...]) -> None:
    asked: list[str] = []

    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        asked.append(method)
        return answer(*head) if method == "HEAD" else GOOD

    async with registry(reply) as address, client() as asking:
        found = (await asking.head(Reference(address, "a", "v1", ""), "manifest", None)).descriptor
        assert (found.digest, found.size, found.media_type) == (DIGEST, len(BODY), MANIFEST)
        assert asked == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "end", ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 999999999"]
)
async def test_a_manifest_without_end_is_not_read(end: str) -> None:
    sent = 0

    def reply(method: str, target: str, headers: dict[str, str]) -> Iterator[bytes]:
        nonlocal sent
        yield f"HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\n{end}\r\n\r\n".encode()
        while sent < 8 * MAX_MANIFEST:
            sent += 65536
            yield b"10000\r\n" + bytes(65536) + b"\r\n" if "chunked" in end else bytes(65536)

    async with registry(reply) as address, SourceReader.open(SourceConfig(), CollectorRegistry()) as reader:
        sink = MemorySink()
        with pytest.raises(SourceError, match="which no manifest has"):
            await reader.read(job(f"oci://{address}/a@{DIGEST}?kind=manifest"), sink)
        assert not sink.count
    assert sent < 4 * MAX_MANIFEST


async def test_a_manifest_whose_length_is_not_told() -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        head = answer(*told(Content_Length=""), "Transfer-Encoding: chunked")
        return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

    async with registry(reply) as address, SourceReader.open(SourceConfig(), CollectorRegistry()) as reader:
        sink = MemorySink()
        await reader.read(job(f"oci://{address}/a@{DIGEST}?kind=manifest"), sink)
        assert sink.content == BODY
        assert sink.meta.length == len(BODY), "it was known before the end"
        assert sink.meta.digest == DIGEST


@pytest.mark.parametrize("told_at_all", [True, False])
async def test_a_blob_whose_length_only_its_head_tells(told_at_all: bool) -> None:
    layer = bytes(range(256)) * 8192
    digest = digest_of(layer)

    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        if method == "HEAD":
            return answer(f"Content-Length: {len(layer)}") if told_at_all else answer("Content-Length: 0")
        return answer("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(layer), layer))

    async with registry(reply) as address, SourceReader.open(SourceConfig(), CollectorRegistry()) as reader:
        sink = MemorySink()
        await reader.read(job(f"oci://{address}/a@{digest}?kind=blob"), sink)
        assert sink.content == layer
        assert sink.meta.length == (len(layer) if told_at_all else None), "as it was known before the end"


async def test_a_blob_without_end_is_read_as_far_as_its_head_says() -> None:
    sent = 0

    def reply(method: str, target: str, headers: dict[str, str]) -> Iterator[bytes]:
        nonlocal sent
        if method == "HEAD":
            yield answer("Content-Length: 100000")
            return
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while sent < 64 * 1024 * 1024:
            sent += 65536
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    async with registry(reply) as address, SourceReader.open(SourceConfig(), CollectorRegistry()) as reader:
        sink = MemorySink()
        await reader.read(job(f"oci://{address}/a@{LAYER}?kind=blob"), sink)
        assert len(sink.content) == 100_000, "that it is not what it should be is found out by its digest"
    assert sent < 32 * 1024 * 1024


@pytest.mark.parametrize("length", ["-5", "1e3", "12, 13", "9" * 400, "٣"])
async def test_lengths_that_are_none(length: str) -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        head = answer(*told(Content_Length="")).replace(
            b"Connection", f"Content-Length: {length}\r\nConnection".encode()
        )
        return head + BODY

    async with registry(reply) as address, client() as asking:
        for kind, reference in (
            ("manifest", Reference(address, "a", "v1", "")),
            ("blob", Reference(address, "a", "", DIGEST)),
        ):
            with pytest.raises(SourceError) as caught:
                await asking.head(reference, kind, None)  # type: ignore[arg-type]
            assert caught.value.origin_status is None, "that is trouble, and no refusal"


def endless() -> Iterator[bytes]:
    yield answer("Content-Type: " + MANIFEST)
    while True:
        yield b" " * 65536


@pytest.mark.parametrize(
    ("get", "words"),
    [
        (lambda: answer(*told(), body=BODY[:-1]), "closed the connection"),
        (lambda: answer(*told(Content_Length="0")), "is no JSON"),
        (lambda: answer("Content-Type: text/html", body=b"<html>log in, please"), "is no JSON"),
        (lambda: answer("Content-Type: application/json", body=b"[1, 2]"), "is no JSON"),
        (lambda: answer("Content-Type: application/json", body=b'{"error": "log in"}'), "is no manifest"),
        (lambda: answer(*told(Docker_Content_Digest=OTHER), body=BODY), "is not sha256:"),
        (endless, f"more than the {MAX_MANIFEST} bytes"),
        (lambda: b"nonsense\r\n\r\n", "gave no answer"),
        (lambda: b"", "gave no answer"),
        (lambda: answer(*(f"X-{n}: {'a' * 1000}" for n in range(200))), "gave no answer"),
    ],
)
async def test_manifests_that_are_none(get: Callable[[], bytes], words: str) -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        return answer(status=405) if method == "HEAD" else get()

    async with registry(reply) as address, client() as asking:
        with pytest.raises(SourceError, match=words) as caught:
            await asking.head(Reference(address, "a", "v1", ""), "manifest", None)
        assert caught.value.origin_status is None, "that is trouble, and no refusal"


async def test_a_digest_is_not_answered_by_another() -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        return answer(*told()) if method == "HEAD" else GOOD

    async with registry(reply) as address, client() as asking:
        assert (await asking.head(Reference(address, "a", "", DIGEST), "manifest", None)).descriptor.size
        with pytest.raises(SourceError, match=f"is not {OTHER}"):
            await asking.head(Reference(address, "a", "", OTHER), "manifest", None)
        sha512 = f"sha512:{hashlib.sha512(BODY).hexdigest()}"
        found = (await asking.head(Reference(address, "a", "", sha512), "manifest", None)).descriptor
        assert (found.digest, found.size) == (sha512, len(BODY)), "other algorithms are computed"


async def test_pages_are_no_blobs() -> None:
    """A page for people, with status 200, would prove that whoever asks may have the blob."""

    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        if target == "/login":
            return answer(
                "Content-Type: text/html", "Content-Length: 7", body=b"<html/>"[: 7 * (method == "GET")]
            )
        return answer("Location: /login", "Content-Length: 0", status=302)

    async with registry(reply) as address, client() as asking:
        for login in (None, ALICE, login_of("Bearer x")):
            with pytest.raises(SourceError, match="does not tell how long") as caught:
                await asking.head(Reference(address, "a", "", LAYER), "blob", login)
            assert caught.value.origin_status is None
            with pytest.raises(SourceError, match="is no JSON"):
                await asking.head(Reference(address, "a", "v1", ""), "manifest", login)


async def test_refusals_of_any_length() -> None:
    def refuses(method: str, target: str, headers: dict[str, str]) -> Iterator[bytes]:
        yield answer("Retry-After: 3", status=429)
        while True:
            yield b"no " * 10000

    async with registry(refuses) as address, client() as asking:
        said = await asking.get(address, "a", "tags/list", "", {}, None)
        assert (said.status, said.body, said.headers.get("retry-after")) == (429, b"", "3")
        assert (await asking.unauthenticated(Reference(address, "a", "v1", ""), "manifest")).status == 429


# --- leading elsewhere --------------------------------------------------------------------------------


async def test_redirections_in_a_circle() -> None:
    asked: list[str] = []

    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        asked.append(method)
        return answer(f"Location: {target}x", "Content-Length: 0", status=307)

    async with registry(reply) as address, client(redirects=4) as asking:
        for kind in ("manifest", "blob"):
            asked.clear()
            with pytest.raises(SourceError, match="redirects more than 4 times"):
                await asking.head(Reference(address, "a", "", LAYER), kind, None)  # type: ignore[arg-type]
            assert asked == ["HEAD"] * 5
        with pytest.raises(SourceError, match="redirects more than 4 times"):
            await asking.get(address, "a", "tags/list", "", {}, None)


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest", "file:///etc/passwd", "gopher://x/", "http://[x", "//100.100.100.200/"],
)
async def test_places_that_are_never_asked(location: str) -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        return answer(f"Location: {location}", "Content-Length: 0", status=307)

    async with registry(reply) as address, client() as asking:
        for login in (None, ALICE):
            with pytest.raises(SourceError, match=r"is denied|not followed|to nowhere"):
                await asking.head(Reference(address, "a", "v1", ""), "manifest", login)
            with pytest.raises(SourceError, match=r"is denied|not followed|to nowhere"):
                await asking.get(address, "a", "tags/list", "", {}, login)


async def test_connections_are_used_again() -> None:
    """A HEAD is what is asked most."""
    opened, asked = 0, 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal opened, asked
        opened += 1
        async with stream:
            while await stream.receive_some(65536):
                asked += 1
                await stream.send_all(GOOD[: -len(BODY)].replace(b"Connection: close\r\n", b""))

    async with trio.open_nursery() as nursery, client() as asking:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        reference = Reference(f"127.0.0.1:{listener.socket.getsockname()[1]}", "a", "v1", "")
        for _ in range(5):
            await asking.head(reference, "manifest", None)
        assert (opened, asked) == (1, 5)
        nursery.cancel_scope.cancel()


async def test_denied_registries_are_not_asked() -> None:
    async with client(denied_addresses=("127.0.0.0/8",)) as asking:
        for name in ("127.0.0.1:5000", "localhost:5000", "[::ffff:127.0.0.1]:5000"):
            for call in (
                asking.head(Reference(name, "a", "v1", ""), "manifest", None),
                asking.unauthenticated(Reference(name, "a", "v1", ""), "manifest"),
                asking.get(name, "a", "tags/list", "", {}, ALICE),
            ):
                with pytest.raises(SourceError, match=r"is denied|cannot be reached"):
                    await call


async def test_credentials_go_to_the_registry_only() -> None:
    elsewhere: list[dict[str, str]] = []

    def other(method: str, target: str, headers: dict[str, str]) -> bytes:
        elsewhere.append(headers)
        return answer('WWW-Authenticate: Basic realm="give me all"', "Content-Length: 0", status=401)

    async with registry(other) as storage:

        def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
            if "authorization" not in headers:
                return answer("WWW-Authenticate: Basic", "Content-Length: 0", status=401)
            return answer(f"Location: http://{storage}/x", "Content-Length: 0", status=307)

        async with registry(reply) as address, client() as asking:
            for login in (ALICE, login_of("Bearer secret")):
                for kind in ("manifest", "blob"):
                    with pytest.raises(SourceError) as caught:
                        await asking.head(Reference(address, "a", "", LAYER), kind, login)  # type: ignore[arg-type]
                    assert caught.value.origin_status == 401
                assert (await asking.get(address, "a", "tags/list", "", {}, login)).status == 401
            assert elsewhere
            assert not any("authorization" in headers for headers in elsewhere)
            assert not any("secret" in str(headers) for headers in elsewhere)


# --- being let in -------------------------------------------------------------------------------------


async def test_a_registry_that_never_lets_in() -> None:
    asked: list[str] = []

    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        asked.append(target)
        if target.startswith("/token"):
            return answer("Content-Length: 13", body=b'{"token":"t"}')
        realm = f'Bearer realm="http://{headers["host"]}/token"'
        return answer(f"WWW-Authenticate: {realm}", "Content-Length: 0", status=401)

    async with registry(reply) as address, client() as asking:
        for login, count in ((None, 3), (ALICE, 3), (login_of("Bearer x"), 1)):
            asked.clear()
            with pytest.raises(SourceError) as caught:
                await asking.head(Reference(address, "a", "v1", ""), "manifest", login)
            assert caught.value.origin_status == 401
            assert len(asked) == count


@pytest.mark.parametrize(
    "challenge",
    [
        "Bearer " + "a=b, " * 10000,
        "Bearer, " * 10000,
        'Bearer realm="http://169.254.169.254/latest/meta-data"',
        'Bearer realm="http://metadata.example/token"',
        'Bearer realm="http://127.0.0.1:1/token?' + "a" * 20000 + '"',
        'Bearer realm="http://127.0.0.1:1/token",scope="' + "a " * 20000 + '"',
        'Bearer realm="/token"',
        "Bearer",
        "Basic " * 3000 + "=",
        '"' * 30000,
    ],
)
async def test_challenges_that_lead_nowhere(challenge: str) -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> bytes:
        assert "authorization" not in headers
        return answer(f"WWW-Authenticate: {challenge}", "Content-Length: 0", status=401)

    async with registry(reply) as address, client() as asking:
        with pytest.raises(SourceError):
            await asking.head(Reference(address, "a", "v1", ""), "manifest", None)


# --- slow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["head", "get", "unauthenticated"])
async def test_every_call_has_a_deadline(where: str, autojump_clock: MockClock) -> None:
    async with HttpClient() as http:
        context = SourceContext("oci", http, SourcePolicy(["oci"]), SourceConfig())
        door = open_door(context)
        begun = 0

        async def exchange(*_: object, **__: object) -> None:
            nonlocal begun
            begun += 1
            await trio.sleep_forever()

        door.exchange = exchange  # type: ignore[method-assign, assignment]
        asking = RegistryClient(door, patience=7.0)
        reference = Reference("host", "a", "v1", "")

        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "head": lambda: asking.head(reference, "manifest", None),
            "get": lambda: asking.get("host", "a", "tags/list", "", {}, ALICE),
            "unauthenticated": lambda: asking.unauthenticated(reference, "manifest"),
        }

        async def ask() -> None:
            with pytest.raises(SourceError, match="did not answer within 7 s") as caught:
                await calls[where]()
            assert caught.value.origin_status is None

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert trio.current_time() == pytest.approx(7.0)
        assert begun == 1


def drip() -> Iterator[bytes]:
    yield answer("Content-Type: application/json")
    for _ in range(MAX_ANSWER // 65536 + 2):
        yield b" " * 65536


async def test_answers_are_bounded() -> None:
    def reply(method: str, target: str, headers: dict[str, str]) -> Iterator[bytes]:
        return drip()

    async with registry(reply) as address, client() as asking:
        with pytest.raises(SourceError, match="more than the"):
            await asking.get(address, "a", "tags/list", "", {}, None)
