"""Name nodes and data nodes in this process, written from the WebHDFS specification, that can be made to fail.

For what a healthy HDFS does not do, or not when a test wants it: name nodes on standby, cuts, lies, old
versions. That the specification is read rightly is tested against Hadoop's own in tests/integration.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qsl, quote, unquote, urlencode

import trio

KIB = 1024


@dataclass
class File:
    content: bytes
    modified: int = 1_700_000_000_123
    number: int = 0
    readers: frozenset[str] | None = None


@dataclass
class Call:
    """One request. ``node`` is "nn0", "dn1" and so on."""

    node: str
    op: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, exception: str, message: str) -> Answer:
    """As *Error Responses* has it."""
    said = {"exception": exception, "javaClassName": f"java.{exception}", "message": message}
    return Answer(
        status, json.dumps({"RemoteException": said}).encode(), {"Content-Type": "application/json"}
    )


class SpecHdfs:
    """``standby`` and ``dead`` are the nodes ("nn0", "dn1") that do not serve. ``tokens`` (token: user) makes
    it secure. ``hook`` sees each call before it is answered, and may answer it. ``cuts``: the n-th body of a
    file (from 0) ends after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.folders: set[str] = {"/"}
        self.tokens: dict[str, str] = {}
        self.standby: set[str] = set()
        self.dead: set[str] = set()
        self.excluding = True
        self.batches = True
        self.page = 3
        self.prefix = "/webhdfs/v1"
        self.direct = False  # as HttpFS: the name node's address gives the bytes itself
        self.chunked = False
        self.ignored: set[str] = set()  # parameters of OPEN that data nodes do not heed
        self.data_headers: dict[str, str] = {}
        self.cuts: dict[int, int] = {}
        self.holding = False  # a cut body is not ended: nothing comes any more
        self.silent: set[str] = set()  # nodes that take a call and do not answer it
        self.halting = False  # name nodes begin an answer and leave it at that, a byte at a time
        self.hook: Callable[[Call], Answer | None] | None = None
        self.calls: list[Call] = []
        self.bodies = 0
        self.addresses: dict[str, str] = {}
        self.scheme = "http"  # of the data nodes
        self._next = 16_386

    def put(self, path: str, content: bytes, readers: frozenset[str] | None = None) -> None:
        """Write or overwrite: a new file either way."""
        self._next += 1
        self.files[path] = File(content, number=self._next, readers=readers)
        while path != "/":
            path = path.rpartition("/")[0] or "/"
            self.folders.add(path)

    def ops(self, node: str = "") -> list[str]:
        """What was asked, in order; of one node, or of those whose names begin so."""
        return [call.op for call in self.calls if call.node.startswith(node)]

    # --- name nodes -----------------------------------------------------------------------------------

    def _name_node(self, call: Call) -> Answer:
        if call.node in self.standby:
            return refusal(403, "StandbyException", "Operation category READ is not supported in standby")
        user = self._user(call)
        if user is None:
            return refusal(403, "InvalidToken", f"token {call.parameters.get('delegation')} is not in cache")
        if user == "":
            return Answer(401, b"<html>", {"WWW-Authenticate": "Negotiate"})
        if call.op in ("LISTSTATUS", "LISTSTATUS_BATCH"):
            return self._list(call)
        if call.path in self.folders and call.op == "GETFILESTATUS":
            return Answer(200, json.dumps({"FileStatus": self._status(call.path, "")}).encode())
        found = self.files.get(call.path)
        if found is None:
            return refusal(404, "FileNotFoundException", f"File does not exist: {call.path}")
        if call.op == "GETFILESTATUS":
            return Answer(200, json.dumps({"FileStatus": self._status(call.path, "")}).encode())
        assert call.op == "OPEN"
        if found.readers is not None and user not in found.readers:
            return refusal(403, "AccessControlException", f"Permission denied: user={user}, access=READ")
        return self._data(call) if self.direct else self._redirect(call)

    def _user(self, call: Call) -> str | None:
        """None: a wrong token; "": nobody."""
        if not self.tokens:
            return call.parameters.get("user.name", "dr.who")
        token = call.parameters.get("delegation")
        return "" if token is None else self.tokens.get(token)

    def _status(self, path: str, suffix: str) -> dict[str, object]:
        file = self.files.get(path)
        return {
            "accessTime": 0,
            "blockSize": 134217728,
            "childrenNum": 0,
            "fileId": 16385 if file is None else file.number,
            "group": "supergroup",
            "length": 0 if file is None else len(file.content),
            "modificationTime": 0 if file is None else file.modified,
            "owner": "webuser",
            "pathSuffix": suffix,
            "permission": "644",
            "replication": 1,
            "type": "DIRECTORY" if file is None else "FILE",
        }

    def _list(self, call: Call) -> Answer:
        if call.op == "LISTSTATUS_BATCH" and not self.batches:
            return refusal(400, "IllegalArgumentException", 'Invalid value for webhdfs parameter "op"')
        if call.path in self.files:
            entries = [self._status(call.path, "")]
        elif call.path in self.folders:
            below = call.path.rstrip("/") + "/"
            names = {
                path[len(below) :].partition("/")[0]
                for path in (*self.files, *self.folders)
                if path.startswith(below) and path != below
            }
            entries = [self._status(below + name, name) for name in sorted(names - {""})]
        else:
            return refusal(404, "FileNotFoundException", f"File {call.path} does not exist.")
        if call.op == "LISTSTATUS":
            return Answer(200, json.dumps({"FileStatuses": {"FileStatus": entries}}).encode())
        after = call.parameters.get("startAfter", "")
        rest = [entry for entry in entries if not after or str(entry["pathSuffix"]) > after]
        listing = {
            "partialListing": {"FileStatuses": {"FileStatus": rest[: self.page]}},
            "remainingEntries": max(0, len(rest) - self.page),
        }
        return Answer(200, json.dumps({"DirectoryListing": listing}).encode())

    def _redirect(self, call: Call) -> Answer:
        excluded = call.parameters.get("excludedatanodes", "").split(",") if self.excluding else []
        data_nodes = [a for name, a in self.addresses.items() if name.startswith("dn") and a not in excluded]
        kept = {k: v for k, v in call.parameters.items() if k != "excludedatanodes"}
        query = urlencode({"op": call.op, **kept, "namenoderpcaddress": "localhost:8020"})
        if not data_nodes:
            return refusal(403, "IOException", "No active nodes contain this block")
        location = f"{self.scheme}://{data_nodes[0]}{self.prefix}{quote(call.path)}?{query}"
        return Answer(307, b"", {"Location": location})

    # --- data nodes -----------------------------------------------------------------------------------

    def _data(self, call: Call) -> Answer:
        file = self.files.get(call.path)
        if file is None:
            return refusal(404, "FileNotFoundException", f"File does not exist: {call.path}")
        asked = {name: value for name, value in call.parameters.items() if name not in self.ignored}
        first = int(asked.get("offset", 0))
        if first >= len(file.content):
            return refusal(403, "IOException", f"Offset={first} out of the range [0, {len(file.content)})")
        body = file.content[first : first + int(asked.get("length", len(file.content)))]
        return Answer(200, body, {"Content-Type": "application/octet-stream", **self.data_headers})

    # --- the wire -------------------------------------------------------------------------------------

    async def serve(self, node: str, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            buffer = b""
            while node not in self.dead:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                call = self._parse(node, head.decode("ascii"))
                self.calls.append(call)
                if node in self.dead:
                    return
                if node in self.silent:
                    await trio.sleep_forever()
                answer = None if self.hook is None else self.hook(call)
                if answer is None:
                    answer = self._data(call) if node.startswith("dn") else self._name_node(call)
                if not await self._send(stream, call, answer):
                    return

    def _parse(self, node: str, head: str) -> Call:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        assert method == "GET"
        path, _, query = target.partition("?")
        assert path.startswith(self.prefix), target
        path = path[len(self.prefix) :].partition(";")[0]  # a bare ";" ends a path for many a Hadoop
        parameters = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
        fields = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in fields}
        return Call(node, parameters.pop("op"), unquote(path, errors="strict"), parameters, headers)

    async def _send(self, stream: trio.abc.Stream, call: Call, answer: Answer) -> bool:
        body, cut = answer.body, None
        if call.op == "OPEN" and answer.status == 200:
            cut = self.cuts.get(self.bodies)
            self.bodies += 1
        chunked = self.chunked and call.op == "OPEN" and answer.status == 200
        fields = {**answer.headers}
        fields |= (
            {"Transfer-Encoding": "chunked"}
            if chunked
            else {"Content-Length": str(10**9 if self.halting else len(body))}
        )
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in fields.items())]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1"))
        while self.halting and call.node.startswith("nn"):
            await stream.send_all(b" ")
            await trio.sleep(0.01)
        payload = memoryview(body)[:cut]
        for start in range(0, len(payload), 256 * KIB):
            chunk = bytes(payload[start : start + 256 * KIB])
            await stream.send_all(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        if cut is not None:
            if self.holding:
                await trio.sleep_forever()
            return False
        if chunked:
            await stream.send_all(b"0\r\n\r\n")
        return True


@asynccontextmanager
async def serving_hdfs(
    namenodes: int = 1, datanodes: int = 2, tls: ssl.SSLContext | None = None
) -> AsyncIterator[SpecHdfs]:
    """An HDFS on loopback; ``addresses`` tells where its nodes are. With ``tls``, its name nodes speak HTTPS."""
    hdfs = SpecHdfs()
    nodes = [*(f"nn{n}" for n in range(namenodes)), *(f"dn{n}" for n in range(datanodes))]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            host, port = listener.socket.getsockname()
            hdfs.addresses[node] = f"{host}:{port}"
            secure = tls is not None and node.startswith("nn")
            served = trio.SSLListener(listener, tls, https_compatible=True) if secure else listener
            nursery.start_soon(trio.serve_listeners, partial(hdfs.serve, node), [served])
        yield hdfs
        nursery.cancel_scope.cancel()
