"""A real container registry (docker-registry) on loopback, and a service that gives out its tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.integration.net import Answer, free_port, request, wait_until
from tests.integration.processes import bound_to_us

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CERTIFICATE = Path(__file__).parent / "unit/shared/http/localhost.pem"
"""Self-signed, for localhost, with its key (on the curve P-256)."""

USER, PASSWORD = "alice", "correct horse"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e\n"
"""The same user and password, as bcrypt has them."""


class DockerRegistry:
    """docker-registry in a process of its own; a context manager.

    ``folder`` keeps its content: another registry on the same folder has the same. ``auth`` is that part of
    its configuration: see :func:`htpasswd` and :meth:`TokenService.auth`. ``log`` has a line for each request.
    ``address`` is HOST:PORT when it is not to be on loopback; ``prefix`` is what its command begins with then.
    """

    def __init__(
        self,
        folder: Path,
        program: str,
        *,
        auth: Mapping[str, Any] | None = None,
        tls: bool = False,
        address: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.program = program
        self.auth = auth
        self.tls = tls
        self.prefix = list(prefix) or bound_to_us()
        self.address = address or f"127.0.0.1:{free_port()}"
        host, _, port = self.address.rpartition(":")
        self.host, self.port = "localhost" if tls else host, int(port)
        self.name = f"{self.host}:{self.port}"
        self._log = folder / f"registry-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        http: dict[str, Any] = {"addr": self.address, "secret": "made for tests"}
        if self.tls:
            http["tls"] = {"certificate": str(CERTIFICATE), "key": str(CERTIFICATE)}
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "content")},
                "maintenance": {"uploadpurging": {"enabled": False}},
                "delete": {"enabled": True},
            },
            "http": http,
        }
        if self.auth is not None:
            config["auth"] = dict(self.auth)
        path = self.folder / f"registry-{self.port}.yml"
        path.write_text(json.dumps(config))  # what is JSON is YAML
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self.prefix, self.program, "serve", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
            )
        wait_until(self._listens, "the registry listens", 20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the registry ended:\n{self.log[-2000:]}"
        return "listening on" in self.log

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text("utf-8", "replace")

    def url(self, repository: str, held: str) -> str:
        """The oci:// URL of ``held``: "sha256:…", or a tag."""
        return f"oci://{self.name}/{repository}{'@' if ':' in held else ':'}{held}"

    def blob_path(self, digest: str) -> Path:
        """Where it keeps a blob."""
        algorithm, _, digits = digest.partition(":")
        return self.folder / "content/docker/registry/v2/blobs" / algorithm / digits[:2] / digits / "data"

    def gets(self, path: str) -> int:
        """How often ``path`` was asked for (GET), whatever the answer."""
        return self.log.count(f'"GET {path} ')

    def push_blob(self, repository: str, content: bytes) -> str:
        """Put a blob into a repository (which needs no login); gives its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        begun = self._ask(f"/v2/{repository}/blobs/uploads/", "POST")
        assert begun.status == 202, begun.text
        place = urlsplit(begun.headers["location"])
        kind = {"content-type": "application/octet-stream"}
        put = self._ask(f"{place.path}?{place.query}&digest={digest}", "PUT", content, kind)
        assert put.status == 201, put.text
        return digest

    def push_manifest(self, repository: str, tag: str, content: bytes, kind: str = MANIFEST) -> str:
        """Let a tag stand for a manifest; gives the manifest's digest."""
        put = self._ask(f"/v2/{repository}/manifests/{tag}", "PUT", content, {"content-type": kind})
        assert put.status == 201, put.text
        return put.headers["docker-content-digest"]

    def push_image(self, repository: str, tag: str, *layers: bytes) -> tuple[str, bytes]:
        """An image with these layers; gives the digest of its manifest, and the manifest."""
        config = json.dumps({"os": "linux", "architecture": "amd64", "tag": tag}).encode()
        held = [self._described(repository, layer, "layer.v1.tar") for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._described(repository, config, "config.v1+json"),
            "layers": held,
        }
        content = json.dumps(manifest).encode()
        return self.push_manifest(repository, tag, content), content

    def _described(self, repository: str, content: bytes, kind: str) -> dict[str, object]:
        digest = self.push_blob(repository, content)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": digest,
            "size": len(content),
        }

    def _ask(
        self, path: str, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return request(self.address, path, method, body, headers, timeout=60)


def htpasswd(folder: Path, *users: str) -> dict[str, Any]:
    """The configuration of a registry that wants user and password with each request; further ``users`` have
    the same password."""
    path = folder / "htpasswd"
    path.write_text("".join(HTPASSWD.replace(USER, user, 1) for user in (USER, *users)))
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


@dataclass(frozen=True)
class TokenRequest:
    """What the token service was asked."""

    query: Mapping[str, list[str]]
    authorization: str
    status: int


@dataclass
class TokenService:
    """Gives out tokens to read: for ``public`` repositories to everybody, for all to the user; a context
    manager. ``lifetime`` in seconds is what it tells, ``expires`` what its tokens do. ``readers`` are further
    users, who have the same password, each with the repositories that they may read. ``host`` is the address
    to listen on."""

    public: frozenset[str] = frozenset()
    lifetime: int = 300
    expires: int = 3600
    readers: dict[str, frozenset[str]] = field(default_factory=dict)
    issuer: str = "tests"
    host: str = "127.0.0.1"
    requests: list[TokenRequest] = field(default_factory=list)
    address: str = ""
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = service.answer(self.path, self.headers.get("authorization", ""))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.send_error(405)  # as many services do: clients then ask with GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((self.host, 0), Handler)
        self.address = f"{self.host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def auth(self) -> dict[str, Any]:
        """The configuration of a registry whose tokens come from here."""
        return {
            "token": {
                "realm": f"http://{self.address}/token",
                "service": "registry.tests",
                "issuer": self.issuer,
                "rootcertbundle": str(CERTIFICATE),
            }
        }

    def answer(self, target: str, authorization: str) -> tuple[int, dict[str, object]]:
        """Status and answer for a request, which is remembered."""
        query = parse_qs(urlsplit(target).query)
        known = {basic(user): allowed for user, allowed in self.readers.items()}
        status = 200 if authorization in ("", basic(USER), *known) else 401
        self.requests.append(TokenRequest(query, authorization, status))
        if status != 200:
            return status, {"errors": [{"code": "UNAUTHORIZED"}]}
        granted = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            may = name in known.get(authorization, ()) if authorization != basic(USER) else True
            if "pull" in actions and (may or name in self.public):
                granted.append({"type": kind, "name": name, "actions": ["pull"]})
        token = self._token(query["service"][0], granted)
        return 200, {"token": token, "expires_in": self.lifetime}

    def _token(self, service: str, granted: list[dict[str, object]]) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        pem = CERTIFICATE.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(certificate).decode()]}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": service,
            "sub": USER,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self.expires,
            "jti": str(len(self.requests)),
            "access": granted,
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def basic(user: str, password: str = PASSWORD) -> str:
    """The Authorization of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
