"""Who reads from a registry: credentials of the request, of the configuration, or of ``docker login``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from cdn.sources.context import request_credentials
from cdn.sources.interface import SourceRequest
from cdn.sources.oci.names import Reference, canonical_registry
from shared.errors import ConfigError, SourceError

AUTH_OPTION = "auth."
_FILE_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A user and password, or a value of the Authorization field that is shown as it is."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    header: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """User and password as a value of the Authorization field (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def authorization(self) -> str:
        """What stands for it as a value of the Authorization field; "" for nobody."""
        return self.header or ("" if self == ANONYMOUS else self.basic)


ANONYMOUS = Login()
"""Nobody: no credentials are shown, not even the host's own."""


def login_of(authorization: str) -> Login:
    """Whom a value of the Authorization field stands for."""
    scheme, _, rest = authorization.strip().partition(" ")
    return (_decoded(rest) if scheme.lower() == "basic" else None) or Login(header=authorization.strip())


def request_login(request: SourceRequest) -> Login | None:
    """The credentials that a request brings: username and password, a registry's token, or its own
    Authorization field. Raises SourceError (fault "request") when it brings others."""
    given = request_credentials(request, ("username", "password", "token"))
    if given.get("token"):
        return Login(header=f"Bearer {given['token']}")
    if given:
        return Login(given.get("username", ""), given.get("password", ""))
    fields = {name.lower(): value for name, value in request.headers.items()}
    return login_of(fields["authorization"]) if "authorization" in fields else None


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    registrytoken: str = ""


class _DockerConfig(msgspec.Struct, rename="camel"):
    auths: dict[str, _Auth] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class Logins:
    """The host's own credentials, by registry; those of the configuration win over docker's."""

    def __init__(self, given: Mapping[str, Login], docker_config: Path | None = None) -> None:
        self._given = {_key(name): login for name, login in given.items()}
        self._docker_config = docker_config

    @classmethod
    def from_options(cls, options: Mapping[str, str], environ: Mapping[str, str]) -> Self:
        """As told in ``open_source``. Raises ConfigError."""
        given: dict[str, Login] = {}
        for name, value in options.items():
            registry = name.removeprefix(AUTH_OPTION)
            if registry == name:
                continue
            username, colon, password = value.partition(":")
            if not registry or not colon or not username:
                raise ConfigError(f"source.options.oci {name!r}: write auth.REGISTRY = 'user:password'")
            given[registry] = Login(username, password)
        path = options.get("docker_config") or environ.get("DOCKER_CONFIG", "")
        file = _config_file(path) if path else None
        if file is not None and "docker_config" in options and not file.is_file():
            raise ConfigError(f"source.options.oci docker_config: there is no file {file}")
        return cls(given, file)

    def of(self, reference: Reference) -> tuple[Login | None, str]:
        """The login for a repository, and the credential helper that might know another ("" for none).

        Reads docker's file anew, since ``docker login`` may have written it: call in a thread. An entry may
        name a registry or, as podman writes it, a part of its repositories. Raises SourceError.
        """
        parts = f"{reference.registry}/{reference.repository}".split("/")
        names = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        for name in names:
            if name in self._given:
                return self._given[name], ""
        config = self._read()
        auths = {_key(name): auth for name, auth in config.auths.items()}
        for name in names:
            login = _login(auths[name]) if name in auths else None
            if login is not None:
                return login, ""
        helpers = {_key(name): helper for name, helper in config.cred_helpers.items()}
        return None, helpers.get(reference.registry, config.creds_store)

    def _read(self) -> _DockerConfig:
        path = self._docker_config
        if path is None:
            return _DockerConfig()
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(_FILE_LIMIT), type=_DockerConfig)
        except FileNotFoundError:
            return _DockerConfig()
        except (OSError, msgspec.DecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise SourceError(
                f"docker's credentials in {path} cannot be read: {words}", fault="reader"
            ) from None

    def __repr__(self) -> str:
        return f"<Logins for {', '.join(sorted(self._given)) or 'no registry'}>"


def _config_file(path: str) -> Path:
    place = Path(path).expanduser()
    return place / "config.json" if place.is_dir() else place


def _login(auth: _Auth) -> Login | None:
    if auth.registrytoken:
        return Login(header=f"Bearer {auth.registrytoken}")
    if auth.auth:
        return _decoded(auth.auth)
    return Login(auth.username, auth.password) if auth.username else None


def _decoded(text: str) -> Login | None:
    try:
        decoded = base64.b64decode(text.strip(), validate=True).decode()
    except ValueError:  # no base64, or not of a text
        return None
    username, colon, password = decoded.partition(":")
    return Login(username, password.rstrip("\0")) if colon else None


def _key(name: str) -> str:
    """A name of docker's file ("https://index.docker.io/v1/", "host:5000", "quay.io/team") in one form."""
    bare = name.lower().partition("://")[2] or name.lower()
    bare = bare.rstrip("/").removesuffix("/v1").removesuffix("/v2")
    registry, slash, rest = bare.partition("/")
    return canonical_registry(registry) + slash + rest
