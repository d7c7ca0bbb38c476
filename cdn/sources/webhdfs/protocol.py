"""What WebHDFS says, and what it means: paths, answers in JSON, refusals in words. Pure.

From "WebHDFS REST API" (Apache Hadoop 3): *File and Directory Operations*, *JSON Schemas*, *Error Responses*.
Nearly every failure of a name or data node, whatever its kind, comes as 403 with the name of a Java exception
in the body, so that name decides and not the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import quote, unquote, urlsplit

import msgspec

from cdn.sources.interface import SourceRequest
from cdn.sources.webhdfs.credentials import Credentials
from shared.errors import Fault, SourceError
from shared.task.identity import redact_url

_MISSING = frozenset({"FileNotFoundException"})
_FORBIDDEN = frozenset({"AccessControlException", "SnapshotAccessControlException", "AuthorizationException"})
_UNKNOWN_CALLER = frozenset({"SecurityException", "InvalidToken", "AuthenticationException"})
_STANDBY = frozenset({"StandbyException", "RouterSafeModeException", "ObserverRetryOnActiveException"})
_NOT_UNDERSTOOD = frozenset({"IllegalArgumentException", "UnsupportedOperationException"})

_NAME_SAFE = "!$&'()*+,;=:@~"
"""What may stand in a part of a path as it is (RFC 3986 §3.3)."""


class FileStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What a name node tells about a file or folder. ``length`` is in bytes, ``modification_time`` in
    milliseconds since 1970; ``file_id`` is the file's for ever, 0 where a gateway leaves it out;
    ``path_suffix`` is the name in a listing."""

    type: str
    length: int = 0
    modification_time: int = 0
    file_id: int = 0
    path_suffix: str = ""

    @property
    def etag(self) -> str:
        """A strong validator: what is overwritten gets a new id, what is appended to or cut a new time."""
        if not self.modification_time and not self.file_id:
            return ""
        return f'"{self.modification_time:x}-{self.length:x}-{self.file_id:x}"'

    @property
    def last_modified(self) -> str:
        """As a Last-Modified field has it; "" when unknown."""
        return formatdate(self.modification_time / 1000, usegmt=True) if self.modification_time > 0 else ""


class StatusAnswer(msgspec.Struct, rename={"status": "FileStatus"}):
    """The answer to GETFILESTATUS."""

    status: FileStatus


class _Statuses(msgspec.Struct, rename={"entries": "FileStatus"}):
    entries: list[FileStatus]


class ListAnswer(msgspec.Struct, rename={"statuses": "FileStatuses"}):
    """The answer to LISTSTATUS."""

    statuses: _Statuses


class _Listing(msgspec.Struct, rename="camel"):
    partial_listing: ListAnswer
    remaining_entries: int


class BatchAnswer(msgspec.Struct, rename={"listing": "DirectoryListing"}):
    """The answer to LISTSTATUS_BATCH: a part of a listing, and how many entries come after it."""

    listing: _Listing

    @property
    def entries(self) -> list[FileStatus]:
        """Those of this part."""
        return self.listing.partial_listing.statuses.entries


class _RemoteException(msgspec.Struct):
    exception: str = ""
    message: str = ""


class _Failure(msgspec.Struct, rename={"remote": "RemoteException"}):
    remote: _RemoteException


class Refused(SourceError):
    """WebHDFS said no. ``exception`` is the name that it gave the reason."""

    exception = ""

    @property
    def on_standby(self) -> bool:
        """Another name node of the same HDFS is the one to ask."""
        return self.exception in _STANDBY

    @property
    def not_understood(self) -> bool:
        """The server does not know the operation or its parameters."""
        return self.exception in _NOT_UNDERSTOOD

    @property
    def passing(self) -> bool:
        """Not about the caller or the file: another node, or another time, may do better."""
        return self.origin_status == 503


def path_of(request: SourceRequest) -> str:
    """The path in HDFS that a URL names, not quoted. Raises SourceError (fault "request")."""
    shown = redact_url(request.url)
    try:
        parts = urlsplit(request.url)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise SourceError(
            f"{shown} is not a URL in UTF-8: percent-encode its path", fault="request"
        ) from None
    if parts.query:
        raise SourceError(
            f"{shown} holds a query, which HDFS does not have: write ? in a name as %3F, and give "
            "credentials as headers",
            fault="request",
        )
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names or "\0" in path:
        raise SourceError(f"{shown} holds a part of a path that is no name: write it out", fault="request")
    return "/" + "/".join(names)


def child_url(request: SourceRequest, path: str, child: FileStatus) -> str:
    """The URL of what lies in the folder ``path``. Raises SourceError when a name would lead elsewhere."""
    name = child.path_suffix
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise SourceError(f"{redact_url(request.url)} lists {name!r}, which is no name of a file")
    parts = urlsplit(request.url)
    names = [*path.strip("/").split("/"), name] if path != "/" else [name]
    quoted = "/".join(quote(each, safe=_NAME_SAFE) for each in names)
    return f"{parts.scheme}://{parts.netloc}/{quoted}{'/' if child.type == 'DIRECTORY' else ''}"


def refusal(
    shown: str, scheme: str, status: int, body: bytes, headers: Mapping[str, str], credentials: Credentials
) -> Refused:
    """The error for an answer that is none. ``shown`` is the URL as people may see it."""
    try:
        said = msgspec.json.decode(body, type=_Failure).remote
    except msgspec.DecodeError:
        said = _RemoteException()
    kind, message = said.exception, _clean(said.message, credentials)
    told = f" ({message})" if message else ""
    found: int | None = status
    words = ""
    fault: Fault = "origin"
    if kind in _STANDBY:
        found, fault = 503, "reader"
        words = (
            f"{shown}: no name node is active now: try again later, or name all of them in {_option(scheme)}"
        )
    elif kind in _MISSING or (status == 404 and kind):
        found, words = 404, f"{shown} does not exist: check the path"
    elif kind in _UNKNOWN_CALLER or status == 401:
        found, fault = 401, _fault(credentials)
        words = f"{shown} is not given to an unknown caller{told}: {_cure(scheme, headers, credentials)}"
    elif kind in _FORBIDDEN or (status == 403 and not kind):
        found, fault = 403, _fault(credentials)
        cure = "check its permissions, or read as another user"
        if credentials.holder in ("nobody", "withheld"):
            cure = _cure(scheme, headers, credentials)
        words = f"{shown} may not be read{told}: {cure}"
    elif kind in _NOT_UNDERSTOOD or (status == 400 and kind):
        found, words = 400, f"{shown} is not understood by HDFS{told}: check the path"
    elif kind or status in (429, 500, 502, 503, 504):
        found, words = 503, f"{shown}: HDFS fails with {kind or status}{told}: try again later"
    else:
        found, fault = None, "reader"  # a file that is missing is another matter
        words = (
            f"{shown}: its name node's address answered {status} and does not speak WebHDFS: check the port "
            f"({'it is that of HTTP' if scheme != 'hdfs' else 'source.options.hdfs.http_port'})"
        )
    error = Refused(words, origin_status=found, fault=fault)
    error.exception = kind
    return error


def _fault(credentials: Credentials) -> Fault:
    """Who is to blame for a refusal: another host may have credentials where this one has none."""
    if credentials.holder == "request":
        return "request"
    return "origin" if credentials.holder == "host" else "reader"


def _cure(scheme: str, headers: Mapping[str, str], credentials: Credentials) -> str:
    if credentials.holder == "withheld":
        return (
            "this host's own credentials are only sent to name nodes that are named in "
            f"{_option(scheme)}: add this one"
        )
    if credentials.holder == "request":
        return "check the credentials of the request"
    if credentials.holder == "host" and credentials.token:
        return f"check source.options.{scheme}.delegation_token, which may have expired"
    if "negotiate" in headers.get("www-authenticate", "").lower():
        return f"it asks for Kerberos, in place of which set source.options.{scheme}.delegation_token"
    if credentials.user:
        return f"check source.options.{scheme}.user ({credentials.user})"
    return (
        f"set source.options.{scheme}.delegation_token (or .user where HDFS asks for no proof), or send the "
        "header x-dragonet-source-delegation-token"
    )


def _option(scheme: str) -> str:
    return f"source.options.{scheme}.namenodes"


def _clean(message: str, credentials: Credentials) -> str:
    line = credentials.hidden(message).strip().partition("\n")[0]
    return "".join(c for c in line if c.isprintable())[:200].strip()
