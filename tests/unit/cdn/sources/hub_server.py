"""A hub on loopback, made from what the Hub API documents and from what its client library reads in answers.

Small files (kept in git) are given by the hub itself, after a relative redirection; large ones (LFS) by the
storage, to which it redirects with ``X-Linked-Etag`` and ``X-Linked-Size``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from prometheus_client import CollectorRegistry

from cdn.config import SourceConfig
from cdn.policy import SourcePolicy
from cdn.reader import SourceReader
from cdn.sources.context import SourceContext
from cdn.sources.huggingface import HuggingFaceSource, open_source
from shared.http.client import HttpClient
from shared.http.messages import Request, Response
from tests.unit.cdn.fakes import MIB
from tests.unit.cdn.sources.storage_server import Seen, Storage, content_response, listening

TOKEN = "hf_aTokenThatNobodyMaySee"


@dataclass(frozen=True)
class HubFile:
    """``name`` is the object in the storage; "" for a small file."""

    content: bytes
    name: str = ""

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


Tree = dict[str, HubFile]


@dataclass
class Repository:
    """``refs`` are branches and tags; commits are found by their hash. ``access``: "" for everybody, "gated"
    or "private" for those who show the token."""

    commits: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    access: str = ""


class FakeHub:
    """Repositories by "models/owner/name" and so on."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage = Storage()
        self.seen: list[Seen] = []
        self.page_size = 1000
        self.linked = True
        self.next_host = ""
        self.address = ""

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def commit(
        self, name: str, files: dict[str, bytes], *, large: bool = True, ref: str = "main", access: str = ""
    ) -> str:
        """Put files into a repository, over what its branch had; gives the commit."""
        repository = self.repositories.setdefault(name, Repository(access=access))
        tree = dict(repository.commits.get(repository.refs.get(ref, ""), {}))
        for path, content in files.items():
            tree[path] = HubFile(content, self.storage.put(content) if large else "")
        digest = "".join(sorted(f"{path}={held.oid}" for path, held in tree.items()))
        commit = hashlib.sha1(digest.encode()).hexdigest()
        repository.commits[commit] = tree
        repository.refs[ref] = commit
        return commit

    async def __call__(self, request: Request) -> Response:
        response = self._answer(request)
        self.seen.append(Seen(request.method, request.target, request.headers, response.status))
        return response

    def _answer(self, request: Request) -> Response:
        parts = [unquote(part) for part in request.raw_path.strip("/").split("/")]
        if parts[0] != "api":
            kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
            return self._resolve(request, f"{kind}/{parts[0]}/{parts[1]}", parts[2:])
        if parts[1] == "resolve-cache":
            held = self.repositories["/".join(parts[2:5])].commits[parts[5]]["/".join(parts[6:])]
            return content_response(request, held.content, f'"{held.oid}"', [("x-repo-commit", parts[5])])
        return self._tree(request, "/".join(parts[1:4]), parts[5], "/".join(parts[6:]))

    def _resolve(self, request: Request, name: str, parts: list[str]) -> Response:
        found = self._commit(request, name, parts[1])
        if isinstance(found, Response):
            return found
        commit, tree = found
        path = "/".join(parts[2:])
        held = tree.get(path)
        headers = [("x-repo-commit", commit)]
        if held is None:
            return _refused(404, "EntryNotFound", headers)
        if not held.name:
            location = f"/api/resolve-cache/{name}/{commit}/{path}"
            return Response(307, headers=[*headers, ("location", location), ("etag", f'"{held.oid}"')])
        if self.linked:
            size = str(len(held.content))
            headers += [("x-linked-etag", f'"{held.sha256}"'), ("x-linked-size", size)]
        return Response(302, headers=[*headers, ("location", self.storage.sign(held.name))])

    def _tree(self, request: Request, name: str, revision: str, path: str) -> Response:
        found = self._commit(request, name, revision)
        if isinstance(found, Response):
            return found
        front = f"{path}/" if path else ""
        items: dict[str, dict[str, object]] = {}
        for each, held in sorted(found[1].items()):
            if not each.startswith(front):
                continue
            child = front + each.removeprefix(front).partition("/")[0]
            if child != each:
                items[child] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": child}
                continue
            size = len(held.content)
            items[each] = {"type": "file", "oid": held.oid, "size": size, "path": each}
            if held.name:
                items[each]["lfs"] = {"oid": held.sha256, "size": size, "pointerSize": 134}
        if path and not items:
            return _refused(404, "EntryNotFound")
        start = int(request.query.get("cursor") or 0)
        stop = start + self.page_size
        headers = []
        if stop < len(items):
            host = self.next_host or self.endpoint
            following = f"{host}{request.raw_path}?recursive=false&cursor={stop}"
            headers.append(("link", f'<{following}>; rel="next"'))
        return Response.json(list(items.values())[start:stop], headers=headers)

    def _commit(self, request: Request, name: str, revision: str) -> tuple[str, Tree] | Response:
        authorization = request.headers.get("authorization")
        if authorization not in (None, f"Bearer {TOKEN}"):
            return _refused(401, "", [("x-error-message", "Invalid credentials in Authorization header")])
        repository = self.repositories.get(name)
        if repository is None or (repository.access == "private" and not authorization):
            return _refused(404 if authorization else 401, "RepoNotFound")
        if repository.access == "gated" and not authorization:
            return _refused(401, "GatedRepo")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return _refused(404, "RevisionNotFound")
        return commit, repository.commits[commit]


def _refused(status: int, code: str, headers: list[tuple[str, str]] | None = None) -> Response:
    fields = [*(headers or []), *([("x-error-code", code)] if code else [])]
    return Response.json({"error": code or "no"}, status, fields)


@asynccontextmanager
async def hub() -> AsyncIterator[FakeHub]:
    """A hub and its storage, each on a port of its own."""
    fake = FakeHub()
    async with listening(fake.storage) as storage, listening(fake) as address:
        fake.storage.address, fake.address = storage, address
        yield fake


@asynccontextmanager
async def client(
    fake: FakeHub, options: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[HuggingFaceSource]:
    """The source, reading from this hub."""
    async with HttpClient() as http:
        given = {"endpoint": fake.endpoint, **(options or {})}
        context = SourceContext("hf", http, SourcePolicy(["hf"]), SourceConfig(), given, environ or {})
        yield open_source(context)


@asynccontextmanager
async def reading(fake: FakeHub, **options: str) -> AsyncIterator[SourceReader]:
    """The engine, reading from this hub."""
    config = SourceConfig(
        schemes=("hf",),
        options={"hf": {"endpoint": fake.endpoint, **options}},
        span=16 * MIB,
        retry_delay=0.0,
    )
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        yield reader
