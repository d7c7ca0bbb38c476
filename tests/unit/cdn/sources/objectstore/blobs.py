"""A small server of objects, written after the manuals of Google ("XML API") and Azure ("Blob service REST
API"): reading with ranges and conditions, versions, listing in pages. It remembers what it was asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import trio

CHANGED = 1_445_412_480
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
PAGE = 2


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    target: str


@dataclass
class BlobServer:
    """Holds objects by (bucket, key). ``allowed`` says which requests may be answered."""

    azure: bool = False
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    versions: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    allowed: Callable[[Asked], bool] = lambda asked: True
    endpoint: str = ""

    def etag(self, content: bytes) -> str:
        return f'"0x{hashlib.md5(content).hexdigest()[:16].upper()}"'

    async def handle(self, stream: trio.SocketStream) -> None:
        buffer = b""
        with suppress(trio.BrokenResourceError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                method, target, _ = first.split(" ")
                parts = urlsplit(target)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                asked = Asked(method, unquote(parts.path), query, headers, target)
                self.asked.append(asked)
                status, fields, body = self.answer(asked)
                fields = {"Content-Length": str(len(body)), **fields}
                lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
                await stream.send_all("\r\n".join([*lines, "", ""]).encode())
                if method != "HEAD":
                    await stream.send_all(body)

    def answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        bucket, _, key = asked.path.removeprefix("/").partition("/")
        if not self.allowed(asked):
            return self.error(403, "AuthenticationFailed" if self.azure else "AccessDenied")
        if not any(known == bucket for known, _ in self.objects):
            return self.error(404, "ContainerNotFound" if self.azure else "NoSuchBucket")
        if not key and "delimiter" in asked.query:
            return self.listing(bucket, asked.query)
        version = asked.query.get("versionid" if self.azure else "generation", "")
        content = self.versions.get((bucket, key, version)) if version else self.objects.get((bucket, key))
        if content is None:
            return self.error(404, "BlobNotFound" if self.azure else "NoSuchKey")
        etag = self.etag(content)
        fields = {"ETag": etag, "Last-Modified": DATE, "Content-Type": "text/x-test"}
        if asked.headers.get("if-match", etag) != etag:
            return self.error(412, "ConditionNotMet")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if match is None:
            return 200, fields, content
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first > last:
            return self.error(416, "InvalidRange")
        fields["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, fields, content[first : last + 1]

    def error(self, status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        return status, {}, f"<Error><Code>{code}</Code><Message>sig=secret</Message></Error>".encode()

    def listing(self, bucket: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        prefix, delimiter = query.get("prefix", ""), query["delimiter"]
        items: dict[str, bytes | None] = {}
        for (known, key), content in sorted(self.objects.items()):
            if known == bucket and key.startswith(prefix):
                name, cut, _ = key.removeprefix(prefix).partition(delimiter)
                items[prefix + name + cut] = None if cut else content
        begin = int(query.get("marker" if self.azure else "continuation-token", "0"))
        page = list(items.items())[begin : begin + PAGE]
        more = str(begin + PAGE) if begin + PAGE < len(items) else ""
        return 200, {}, (self._azure_page if self.azure else self._google_page)(page, more).encode()

    def _google_page(self, page: list[tuple[str, bytes | None]], more: str) -> str:
        text = f"<?xml version='1.0'?><ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        text += f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
        for name, content in page:
            if content is None:
                text += f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            else:
                text += (
                    f"<Contents><Key>{escape(name)}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>"
                    f"<ETag>{self.etag(content)}</ETag><Size>{len(content)}</Size></Contents>"
                )
        return text + "</ListBucketResult>"

    def _azure_page(self, page: list[tuple[str, bytes | None]], more: str) -> str:
        text = "<?xml version='1.0'?><EnumerationResults><Blobs>"
        for name, content in page:
            if content is None:
                text += f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>"
            else:
                text += (
                    f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
                    f"<Etag>{self.etag(content)[1:-1]}</Etag><Content-Length>{len(content)}</Content-Length>"
                    "<Content-Type>text/x-test</Content-Type></Properties></Blob>"
                )
        return text + f"</Blobs><NextMarker>{more}</NextMarker></EnumerationResults>"


@asynccontextmanager
async def blobs(*, azure: bool = False) -> AsyncIterator[BlobServer]:
    server = BlobServer(azure)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        server.endpoint = f"http://{host}:{port}"
        nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        yield server
        nursery.cancel_scope.cancel()
