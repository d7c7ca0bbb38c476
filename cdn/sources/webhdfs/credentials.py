"""Who reads, for name nodes: a user's name, a delegation token, or a header for a gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self
from urllib.parse import quote

from cdn.sources.builtin import environment_credentials
from cdn.sources.context import CREDENTIAL_PREFIX, request_credentials
from cdn.sources.interface import SourceRequest
from cdn.sources.webhdfs.places import Service

REQUEST_CREDENTIALS = ("user", "delegation_token")

Holder = Literal["request", "host", "nobody", "withheld"]
"""Whose the credentials of a read are. "withheld": the host has some, and not for that name node."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one read shows. A delegation token says itself whose it is, so a user's name is not sent with it."""

    holder: Holder
    user: str = ""
    token: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def parameters(self) -> dict[str, str]:
        """For the query of a call."""
        if self.token:
            return {"delegation": self.token}
        return {"user.name": self.user} if self.user else {}

    def hidden(self, text: str) -> str:
        """``text`` without the secrets that it may hold."""
        secrets = [self.token, self.headers.get("authorization", "")]
        secrets += [secret.rpartition(" ")[2] for secret in secrets]
        for secret in sorted(secrets, key=len, reverse=True):  # one may begin as another does
            if secret:
                text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return text


@dataclass(frozen=True, slots=True)
class HostCredentials:
    """Those of the configuration and of the host's environment."""

    OPTIONS: ClassVar = ("user", "delegation_token", "authorization")

    user: str = ""
    token: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)

    @classmethod
    def of(cls, scheme: str, options: Mapping[str, str], environ: Mapping[str, str]) -> Self:
        """The environment's count only where the options hold none."""
        found = {name: options[name] for name in cls.OPTIONS if options.get(name)}
        found = found or environment_credentials(scheme, environ)
        return cls(found.get("user", ""), found.get("delegation_token", ""), found.get("authorization", ""))

    def for_request(self, request: SourceRequest, service: Service) -> Credentials:
        """What a request shows to a service: its own credentials if it carries any, else the host's.

        The headers are all that the request has for its origin. Raises SourceError (fault "request") for
        credentials that HDFS does not know.
        """
        own = request_credentials(request, REQUEST_CREDENTIALS)
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if not name.lower().startswith(CREDENTIAL_PREFIX)
        }
        if own or "authorization" in headers:
            return Credentials("request", own.get("user", ""), own.get("delegation_token", ""), headers)
        if (self.token or self.authorization) and not service.trusted:
            return Credentials("withheld", self.user, headers=headers)
        if self.authorization:
            headers["authorization"] = self.authorization
        holder: Holder = "host" if self.user or self.token or self.authorization else "nobody"
        return Credentials(holder, self.user, self.token, headers)
