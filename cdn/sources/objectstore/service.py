"""What is the same for all kinds of object stores: options, and the connection to a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from cdn.config import SourceConfig
from cdn.sources.builtin import environment_credentials
from cdn.sources.context import SourceContext
from cdn.sources.interface import SourceRequest
from cdn.sources.objectstore.credentials import Credentials, from_request
from cdn.sources.objectstore.names import BucketRule, ObjectName
from shared.errors import ConfigError, SourceError
from shared.task.identity import redact_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

Store: TypeAlias = S3Store | GCSStore | AzureStore

_NO_PROXY = "0.0.0.0/0,::/0,*"
_NOWHERE = "http://127.0.0.1:9"
"""A proxy that nothing goes through, since all hosts are excepted: without one, the client would take the
proxy that the environment names."""


@dataclass(frozen=True, slots=True)
class Place:
    """How an object is asked for: the store at ``base`` with the bucket ``bucket``, and its ``path`` there.

    obstore drops empty parts of names. A name that has some is asked for in a store that begins deeper, so
    that only its last part is left to obstore.
    """

    base: str
    bucket: str
    path: str


class Service(ABC):
    """One scheme: its options, its credentials, and how its stores are opened.

    ``secrets`` are the credentials that options may hold, ``carried`` those that a request may carry.
    """

    buckets: ClassVar[BucketRule]
    version_parameter: ClassVar[str] = "versionId"
    secrets: ClassVar[frozenset[str]]
    carried: ClassVar[frozenset[str]]
    places: ClassVar[frozenset[str]]
    default_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SourceContext) -> None:
        """Raises ConfigError when an option is wrong."""
        self.scheme = context.scheme
        self._options = context.options
        self._environ = context.environ
        context.check_options(self.secrets | self.places | {"allow_http", "ca_file"})
        self.endpoint = self._endpoint()
        self.allow_http = self._flag("allow_http", self.endpoint.startswith("http://"))
        if self.endpoint.startswith("http://") and not self.allow_http:
            raise self._wrong(
                "allow_http", "is false and the endpoint begins with http://: use one of https://"
            )
        self._transport = self._client_config(context.config)
        self._retries: RetryConfig = {
            "max_retries": 2,
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1)},
            "retry_timeout": timedelta(seconds=context.config.header_timeout),
        }
        self.credentials = self._configured()

    @property
    def host(self) -> str:
        """Who is asked, for people."""
        return urlsplit(self.endpoint).netloc or self.endpoint

    def credentials_for(self, request: SourceRequest) -> Credentials:
        """Those of the request, or else the host's. Raises SourceError (fault "request")."""
        carried = from_request(request, self.carried, self.scheme)
        if carried is None:
            return self.credentials
        if problem := self.problem(carried):
            raise SourceError(
                f"the credentials of the request for {self.scheme}:// {problem}", fault="request"
            )
        return carried

    @abstractmethod
    def place(self, name: ObjectName) -> Place:
        """How an object is asked for."""

    @abstractmethod
    def open(self, place: Place, credentials: Credentials) -> Store:
        """A store. Does no network; raises obstore's errors when credentials cannot be used at all."""

    @abstractmethod
    def problem(self, credentials: Credentials) -> str:
        """What is missing or too much in a set of credentials, in words; "" for nothing."""

    def signed(self, credentials: Credentials) -> bool:
        """Whether requests say who asks."""
        return credentials.origin == "instance" or any(name in self.secrets for name, _ in credentials.values)

    # --- options ------------------------------------------------------------------------------------

    @abstractmethod
    def _endpoint(self) -> str:
        """Where the store answers, without "/" at the end. Raises ConfigError."""

    def _configured(self) -> Credentials:
        values = {name: value for name, value in self._options.items() if name in self.secrets and value}
        if values:
            credentials = Credentials.of(values, "options")
        elif self._flag("instance_credentials", False):
            credentials = Credentials((), "instance")
        else:
            found = environment_credentials(self.scheme, self._environ)
            values = {name: value for name, value in found.items() if name in self.secrets}
            credentials = Credentials.of(values, "environment") if values else Credentials()
        if problem := self.problem(credentials):
            raise ConfigError(
                f"the credentials {credentials.source(self.scheme)} for {self.scheme}:// {problem}"
            )
        return credentials

    def _wrong(self, name: str, problem: str) -> ConfigError:
        return ConfigError(f"source.options.{self.scheme}.{name} {problem}")

    def _option(self, name: str) -> str:
        return self._options.get(name, "").strip()

    def _flag(self, name: str, default: bool) -> bool:
        text = self._option(name).lower()
        if text not in ("", "true", "false"):
            raise self._wrong(name, "is neither true nor false")
        return default if not text else text == "true"

    def _endpoint_option(self) -> str:
        """The option ``endpoint``, "" when it is not set. Raises ConfigError."""
        text = self._option("endpoint").rstrip("/")
        if not text:
            return ""
        try:
            parts = urlsplit(text)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or "@" in parts.netloc or parts.query or parts.fragment:
            raise self._wrong(
                "endpoint", f"{redact_url(text)!r} is not an endpoint: write it as https://HOST"
            )
        return text

    def _client_config(self, config: SourceConfig) -> ClientConfig:
        client: ClientConfig = {
            "allow_http": self.allow_http,
            "connect_timeout": timedelta(seconds=config.connect_timeout),
            # Whoever waits has a deadline of its own; these end what nobody waits for any more.
            "read_timeout": timedelta(seconds=max(config.header_timeout, config.idle_timeout)),
            "timeout": timedelta(days=365),
            "user_agent": "dragonet",
            "proxy_url": config.proxy or _NOWHERE,
        }
        if not config.proxy:
            client["proxy_excludes"] = _NO_PROXY
        if self.default_headers:
            client["default_headers"] = dict(self.default_headers)
        certificates = b""
        for setting, name in (
            ("source.ca_file", config.ca_file),
            (f"source.options.{self.scheme}.ca_file", self._option("ca_file")),
        ):
            if name:
                try:
                    text = Path(name).read_bytes()
                except OSError as error:
                    raise ConfigError(f"{setting} {name} cannot be read: {error.strerror}") from None
                if b"-----BEGIN CERTIFICATE-----" not in text:
                    raise ConfigError(f"{setting} {name} holds no certificate: give a PEM file of some")
                certificates += text + b"\n"
        if certificates:
            client["root_certificate"] = certificates
        return client
