"""Cases for the fuzz test: requests that are wrong in every way, drawn from a seeded generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import msgspec

PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/hosts",
    "/v1/hosts/h",
    "/v1/hosts/h/reports",
    "/v1/hosts/h/assignments-not",
    "/v1/tasks",
    "/v1/tasks/" + "a" * 64,
    "/v1/tasks/x/pieces/0",
    "/v1/tasks/" + "b" * 64 + "/pieces/0",
    "/v1/tasks/" + "c" * 64 + "/pieces/-1",
    "/v1/tasks/" + "d" * 64 + "/pieces/99999999999999999999",
    "/v1/tasks/../../etc/passwd",
    "/%00",
    "/%zz/%",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//",
    "/v1//tasks//",
    "/v1/downloads",
    "/v2/",
    "/v2/a/../b/manifests/v1",
    "/v2/other.example/a/manifests/v1?ns=%00&ns=x",
    "/v2/a/blobs/sha256:" + "e" * 64 + "?ns=other.example",
    "*",
    "http://other/v1/tasks",
)
METHODS = (
    "GET",
    "PUT",
    "POST",
    "DELETE",
    "HEAD",
    "PATCH",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "get",
    "G\x00T",
    "X" * 300,
)
PREFACES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.7\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"EHLO there\r\nMAIL FROM:<a@b>\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\x00" * 64,
    b"\r\n" * 500,
    b"GET",
    b"GET /\r\n\r\n",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\n\r\n",
)
FIELDS = (
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 0x10",
    "Content-Length: 5, 5",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: \x0bchunked",
    "Expect: 100-continue",
    "Expect: the impossible",
    "Range: bytes=a-b",
    "Range: bytes=5-1",
    "Range: bytes=-",
    "Range: " + "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 4000, 2)),
    "Range: bytes=0-99999999999999999999",
    'If-None-Match: "',
    "If-Modified-Since: yesterday",
    "Accept: */*;q=x",
    "Connection: close, keep-alive, upgrade",
    "Upgrade: websocket",
    "Host: ",
    "Host: a b",
    " folded: x",
    "No colon",
    ": no name",
    "Bad\x00Name: x",
    "X: \x00\x01",
    "X: " + "y" * 70_000,
    "Dragonet-Version: " + "z" * 5000,
    "Content-Type: application/vnd.msgpack",
    "Accept: application/json",
    "Authorization: Basic ????",
    "Cookie: " + "c=d; " * 900,
)
TAGS = (
    "lease",
    "reports",
    "registered",
    "holding",
    "held",
    "source_opened",
    "source_pieces",
    "source_progress",
    "source_finished",
    "source_failed",
    "parent_failed",
    "parents_wanted",
    "finished",
    "left",
    "removed",
    "nonsense",
)
NAMES = (
    "host",
    "instance",
    "role",
    "address",
    "version",
    "items",
    "task",
    "spec",
    "meta",
    "held",
    "digests",
    "pieces",
    "grant",
    "failure",
    "received",
    "parent",
    "reason",
    "complete",
    "upload_slots",
    "uploads",
    "length",
    "url",
)


def cases(seed: int) -> Iterator[bytes]:
    """Endless garbage, the same for the same seed."""
    rng = random.Random(seed)
    makers: tuple[Callable[[random.Random], bytes], ...] = (
        noise,
        lines,
        mutated,
        mutated,
        odd_head,
        odd_head,
        odd_message,
        odd_message,
        odd_chunks,
        many_fields,
        pipelined,
        lambda r: r.choice(PREFACES) + r.randbytes(r.randrange(40)),
    )
    while True:
        yield rng.choice(makers)(rng)


def noise(rng: random.Random) -> bytes:
    """Random bytes."""
    return rng.randbytes(rng.randrange(1, 3000))


def lines(rng: random.Random) -> bytes:
    """Random text in lines."""
    text = "".join(chr(rng.randrange(1, 0x250)) for _ in range(rng.randrange(1, 400)))
    return text.encode().replace(b" ", rng.choice((b" ", b"\r\n", b"\t", b": "))) + b"\r\n\r\n"


def good(rng: random.Random, body: bytes = b"", *fields: str) -> bytes:
    """A well-formed request."""
    head = [
        f"{rng.choice(METHODS[:5])} {rng.choice(PATHS)} HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, *fields]).encode("latin-1") + b"\r\n\r\n" + body


def mutated(rng: random.Random) -> bytes:
    """A well-formed request with a few bytes changed, dropped, doubled or cut off."""
    data = bytearray(good(rng, rng.randbytes(rng.randrange(60)), rng.choice(FIELDS)[:200]))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at : at + rng.randrange(1, 8)]
        elif what == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        else:
            del data[at + 1 :]
        if not data:
            return b"\r\n"
    return bytes(data)


def odd_head(rng: random.Random) -> bytes:
    """Odd methods, targets and fields."""
    target = rng.choice(PATHS) + rng.choice(
        ("", "?", "?a=%ff&b", "#x", "?" + "q" * rng.choice((10, 9000)), " ", "é")
    )
    head = [f"{rng.choice(METHODS)} {target} HTTP/1.{rng.choice('0112')}", "Host: x"]
    head += rng.sample(FIELDS, rng.randrange(1, 4))
    return "\r\n".join(head).encode("utf-8") + b"\r\n\r\n" + rng.randbytes(rng.randrange(100))


def odd_message(rng: random.Random) -> bytes:
    """MessagePack and JSON that looks like a message of the protocol, to the calls that take messages."""
    value = _value(rng, 3)
    shape = rng.randrange(4)
    if shape == 0:
        body = rng.randbytes(rng.randrange(300))
    elif shape == 1:
        body = json.dumps(value, default=lambda b: b.hex()).encode()
    else:
        body = msgspec.msgpack.encode(value)
        if shape == 3:
            body = body[: rng.randrange(len(body) + 1)]
    call = rng.choice(("PUT /v1/hosts/h", "POST /v1/hosts/h/reports", "POST /v1/tasks", "POST /v1/downloads"))
    kind = rng.choice(("application/vnd.msgpack", "application/json"))
    head = f"{call} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _value(rng: random.Random, depth: int) -> object:
    simple: tuple[object, ...] = (
        None,
        True,
        0,
        1,
        -1,
        2**63,
        1.5,
        -1e300,
        "",
        "x" * 64,
        "a" * 64,
        b"",
        b"\xff" * 32,
        b"\0" * 2000,
        [],
        {},
        "http://127.0.0.1:1/x",
        "peer",
        "127.0.0.1:1",
        "\ud7ff\0",
        1 << 22,
    )
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(simple)
    if rng.random() < 0.3:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    names = rng.sample(NAMES, rng.randrange(1, 9))
    return {"type": rng.choice(TAGS), **{name: _value(rng, depth - 1) for name in names}}


def odd_chunks(rng: random.Random) -> bytes:
    """Chunked bodies that are wrong."""
    line = f"{rng.choice(METHODS[:4])} {rng.choice(PATHS)} HTTP/1.1"
    head = f"{line}\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = rng.choice(
        (
            b"zz\r\nx\r\n",
            b"-5\r\nhello\r\n",
            b"ffffffffffffffffff\r\n",
            b"5;" + b"e" * 20000 + b"\r\nhello\r\n",
            b"5\r\nhelloworld\r\n",
            b"5\nhello\n",
            b"0\r\n",
            b"0\r\nTrailer: " + b"t" * 3000 + b"\r\n\r\n",
            b"5\r\nhel",
            b"3\r\nabc\r\n0\r\n\r\n",
        )
    )
    return head.encode() + chunk * rng.randrange(1, 4)


def many_fields(rng: random.Random) -> bytes:
    """Far too many or far too long fields and request lines."""
    which = rng.randrange(3)
    if which == 0:
        return b"GET /" + b"a" * rng.choice((8000, 70_000, 200_000)) + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    if which == 1:
        fields = b"".join(b"X-%d: y\r\n" % n for n in range(rng.choice((150, 3000))))
        return b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"
    return b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"v" * rng.choice((60_000, 300_000)) + b"\r\n\r\n"


def pipelined(rng: random.Random) -> bytes:
    """Many requests at once, the last one broken."""
    return b"".join(good(rng) for _ in range(rng.randrange(2, 12))) + noise(rng)[:50]
