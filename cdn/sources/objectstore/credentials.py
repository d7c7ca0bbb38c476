"""Whose credentials a request to an object store is made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cdn.sources.context import credential_header, request_credentials
from cdn.sources.interface import SourceRequest
from shared.errors import Fault, SourceError

Origin = Literal["request", "options", "environment", "instance", "none"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Names and values, and where they come from: the request, the configuration, the environment of the
    daemon, the cloud that the host runs in (``instance``), or nowhere: then nothing is signed."""

    values: tuple[tuple[str, str], ...] = ()
    origin: Origin = "none"

    @classmethod
    def of(cls, values: Mapping[str, str], origin: Origin) -> Credentials:
        """From a mapping."""
        return cls(tuple(sorted(values.items())), origin)

    def __getitem__(self, name: str) -> str:
        return dict(self.values).get(name, "")

    def __contains__(self, name: object) -> bool:
        return any(known == name for known, _ in self.values)

    @property
    def fault(self) -> Fault:
        """To blame when they are refused: another host may have others, unless the request brought them."""
        return "request" if self.origin == "request" else "reader"

    def source(self, scheme: str) -> str:
        """Where they come from, in words."""
        return {
            "request": "of the request",
            "options": f"in source.options.{scheme}",
            "environment": "in the environment",
            "instance": "that the cloud gives this host",
        }.get(self.origin, "")

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.values) or "none"
        return f"<Credentials {names}, from {self.origin}>"


def from_request(request: SourceRequest, known: Iterable[str], scheme: str) -> Credentials | None:
    """The credentials that a request carries; None when it carries none.

    Raises SourceError (fault "request") for those that the scheme does not know.
    """
    names = sorted(known)
    if any(name.lower() == "authorization" for name in request.headers):
        headers = ", ".join(credential_header(name) for name in names)
        raise SourceError(
            f"{scheme}:// does not take an Authorization header or a user in the URL: send {headers}",
            fault="request",
        )
    values = request_credentials(request, names)
    return Credentials.of(values, "request") if values else None
