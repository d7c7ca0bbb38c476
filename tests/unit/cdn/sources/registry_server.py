"""A registry on loopback that wants to be asked as a large public one does: tokens from a service, and blobs by
redirection to a storage."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.http.messages import Request, Response
from tests.unit.cdn.sources.storage_server import Seen, Storage, listening

BASIC = "Basic YWxpY2U6c2VjcmV0"
"""alice:secret"""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@dataclass
class FakeRegistry:
    """``challenge``: "" (everybody is let in), "bearer", "basic", or a whole WWW-Authenticate value.
    ``token_answer`` takes the place of what the token service answers. ``readers`` are the Authorization values
    whose tokens are good ("" is nobody); None: all. ``hook`` may answer in the registry's place."""

    challenge: str = "bearer"
    storage: Storage = field(default_factory=Storage)
    blobs: dict[tuple[str, str], str] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    token: int = 1
    expires_in: int | None = None
    token_answer: Response | None = None
    readers: frozenset[str] | None = None
    media_type: str = MANIFEST
    hook: Callable[[Request], Response | None] | None = None
    seen: list[Seen] = field(default_factory=list)
    tokens: list[Seen] = field(default_factory=list)
    address: str = ""

    def url(self, held: str, repository: str = "lib/app") -> str:
        return f"oci://{self.address}/{repository}{'@' if ':' in held else ':'}{held}"

    def put_blob(self, content: bytes, repository: str = "lib/app", algorithm: str = "sha256") -> str:
        """Gives the digest."""
        digest = digest_of(content, algorithm)
        self.blobs[repository, digest] = self.storage.put(content)
        return digest

    def put_manifest(self, content: bytes, tag: str, repository: str = "lib/app") -> str:
        """Gives the digest."""
        digest = digest_of(content)
        self.manifests[repository, tag] = self.manifests[repository, digest] = content
        return digest

    def revoke(self) -> None:
        """Let the tokens given so far be good no more."""
        self.token += 1

    async def __call__(self, request: Request) -> Response:
        is_token = request.raw_path == "/token"
        given = self.hook(request) if self.hook is not None else None
        response = given or (self._give_token(request) if is_token else self._answer(request))
        seen = Seen(request.method, request.target, request.headers, response.status)
        (self.tokens if is_token else self.seen).append(seen)
        return response

    def _give_token(self, request: Request) -> Response:
        if self.token_answer is not None:
            answer = self.token_answer
            return Response(answer.status, answer.body, answer.headers)
        good = self.readers is None or request.headers.get("authorization", "") in self.readers
        answer = {"access_token": f"secret-token-{self.token}" if good else "useless-token"}
        return Response.json(answer if self.expires_in is None else answer | {"expires_in": self.expires_in})

    def _answer(self, request: Request) -> Response:
        wanted = {"bearer": f"Bearer secret-token-{self.token}", "basic": BASIC}.get(self.challenge, "x")
        if self.challenge and request.headers.get("authorization") != wanted:
            realm = f'realm="http://{self.address}/token?a=b",service="tests"'
            told = {"bearer": f"Bearer {realm}", "basic": 'Basic realm="tests"'}
            value = told.get(self.challenge, self.challenge)
            return Response.text("no", 401, [("www-authenticate", value)])
        _, _, rest = request.path.partition("/v2/")
        repository, kind, held = rest.rsplit("/", 2)
        if kind == "blobs" and (repository, held) in self.blobs:
            return Response(307, headers=[("location", self.storage.sign(self.blobs[repository, held]))])
        content = self.manifests.get((repository, held)) if kind == "manifests" else None
        if content is None:
            return Response.json({"errors": [{"code": "BLOB_UNKNOWN"}]}, 404)
        headers = [("docker-content-digest", digest_of(content)), ("content-length", str(len(content)))]
        return Response(200, b"" if request.method == "HEAD" else content, headers, self.media_type)


@asynccontextmanager
async def registry(challenge: str = "bearer") -> AsyncIterator[FakeRegistry]:
    """A registry and its storage, each on a port of its own."""
    fake = FakeRegistry(challenge)
    async with listening(fake.storage) as storage, listening(fake) as address:
        fake.storage.address, fake.address = storage, address
        yield fake
