"""What obstore raises, as errors of ours: the one place where its exceptions are read.

Its messages are dumps of several lines that may hold whole URLs, signatures included. Nothing of them is
passed on: they are searched for a status, for the store's own code of an error, and for what kept a
connection from being made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from cdn.sources.interface import SourceCut
from cdn.sources.objectstore.credentials import Credentials
from cdn.sources.objectstore.service import Service
from shared.errors import SourceError
from shared.offline import is_no_way

FOREIGN = (BaseError, OSError, ValueError)
"""What obstore's functions raise (FileNotFoundError for what is not there, ValueError for bad settings)."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
_REASON = re.compile(r'(?:message|error): "([\w ,.:\'()-]{1,120})"')
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")
_TOKEN = re.compile(
    r"Generic \w+ error: (?:Error performing token request|Error (?:performing|getting) [\w ]*metadata|"
    r"Error performing (?:GET|PUT) http://(?:169\.254\.|metadata))"
)
_OS_ERROR = re.compile(r"\(os error (\d{1,5})\)|\bcode: (\d{1,5})\b")
_NO_NAMES = "Temporary failure in name resolution"
_BEYOND = re.compile(r"Generic \w+ error: (?:Invalid range: )?Wanted range starting at")
_WHOLE = re.compile(r"Generic \w+ error: Received non-partial response")
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_BAD_TOKEN = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_OTHER_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect"})
"""What S3 says with status 400 (its manual, "Error responses")."""


class VersionChanged(SourceError):
    """The object is not of the version that was asked for (412)."""


class RangeRefused(SourceError):
    """The store has no byte of the range (416)."""


class RangeIgnored(SourceError):
    """The store answered a range with the whole object."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, by whom: what the words of an error need."""

    service: Service
    credentials: Credentials
    shown: str
    """The URL as people may see it."""
    bucket: str = ""

    def timed_out(self, seconds: float) -> SourceError:
        """The error for an answer that did not begin in time."""
        return SourceError(
            f"{self.shown} cannot be read: {self.service.host} did not answer within {seconds:g} seconds",
            fault="reader",
        )


def mapped(error: Exception, asked: Asked) -> SourceError:
    """What an error of a request stands for: a SourceError, one of those above where it is one."""
    status = status_of(error)
    kind: type[SourceError] = SourceError
    if isinstance(error, PreconditionError) or status == 412:
        kind = VersionChanged
    elif status == 416 or _BEYOND.match(str(error)):
        kind = RangeRefused
    elif _WHOLE.match(str(error)):
        kind = RangeIgnored
    found = source_error(error, asked)
    if kind is SourceError:
        return found
    return kind(str(found), origin_status=found.origin_status, fault=found.fault)


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error tells."""
    if isinstance(error, FileNotFoundError):
        return 404
    found = _STATUS.search(str(error).partition("\n\nDebug source:")[0])
    if found is not None:
        return int(found[1])
    kinds = ((PermissionDeniedError, 403), (UnauthenticatedError, 401))
    return next((status for kind, status in kinds if isinstance(error, kind)), None)


def source_error(error: Exception, asked: Asked) -> SourceError:
    """An error in words, with status and whose fault it is."""
    service, text = asked.service, str(error)
    summary = text.partition("\n\nDebug source:")[0]
    status, code = status_of(error), _found(_CODE, text)
    scheme, cannot = service.scheme, f"{asked.shown} cannot be read"
    if isinstance(error, InvalidPathError):
        return SourceError(
            f"{asked.shown} cannot be listed: a name below it has empty parts ('//') or parts '.' or '..'",
            fault="origin",
        )
    if _TOKEN.match(text):
        return SourceError(
            f"{cannot}: no token could be had with the credentials {asked.credentials.source(scheme)} "
            f"for {scheme}://{_more(status, code)}",
            origin_status=403,
            fault=asked.credentials.fault,
        )
    if status in (401, 403) or code in _BAD_TOKEN:
        return SourceError(
            _refused(asked, _more(status, code)), origin_status=status, fault=asked.credentials.fault
        )
    if status == 404:
        if code in _NO_BUCKET:
            return SourceError(
                f"{cannot}: {service.host} has no {service.buckets.called} {asked.bucket}", origin_status=404
            )
        return SourceError(f"{asked.shown} does not exist at {service.host}", origin_status=404)
    if "redirect without LOCATION" in summary or status in (301, 307, 308) or code in _OTHER_REGION:
        return SourceError(
            f"{cannot}: the {service.buckets.called} {asked.bucket} lies in another region: "
            f"set source.options.{scheme}.region",
            origin_status=status or 301,
            fault="reader",
        )
    if status is not None:
        return SourceError(
            f"{cannot}: {service.host} answered {status}{_more(None, code)}", origin_status=status
        )
    if kind := _found(_KIND, text):
        words = f"{cannot}: {_connection(kind, text, service)}"
        return SourceError(words, fault="reader", offline=_offline(text))
    return SourceError(f"{cannot}: {service.host} gave an answer that is not one of an object store")


def opening_error(asked: Asked) -> SourceError:
    """The error for a store that cannot be opened, before anything is asked of it."""
    scheme, credentials = asked.service.scheme, asked.credentials
    if credentials.values:
        what = f"the credentials {credentials.source(scheme)} for {scheme}:// are not valid"
    else:
        what = f"the settings in source.options.{scheme} and source.ca_file cannot be used together"
    return SourceError(f"{asked.shown} cannot be read: {what}", fault=credentials.fault)


def body_error(error: Exception, asked: Asked, received: int, length: int) -> SourceError:
    """The error for an answer that broke off."""
    status = status_of(error)
    if status is not None and status < 500:
        return source_error(error, asked)
    kind = _found(_KIND, str(error))
    return SourceCut(
        f"{asked.shown} broke off after {received} of {length} bytes: "
        f"{_connection(kind or 'Interrupted', str(error), asked.service)}",
        fault="reader" if kind == "Connect" else "origin",
        offline=_offline(str(error)),
    )


def _refused(asked: Asked, told: str) -> str:
    service, credentials = asked.service, asked.credentials
    if not service.signed(credentials):
        names = ", ".join(sorted(service.carried))
        return (
            f"{asked.shown} may not be read without credentials{told}: set them in "
            f"source.options.{service.scheme}, or send them with the request ({names})"
        )
    return (
        f"{asked.shown} may not be read with the credentials {credentials.source(service.scheme)}{told}: "
        "check them, and what they allow"
    )


def _connection(kind: str, text: str, service: Service) -> str:
    certificate = _found(_CERTIFICATE, text)
    if certificate:
        return f"the certificate of {service.host} is not trusted ({certificate}): set source.ca_file"
    if kind == "Connect":
        reason = _found(_REASON, text)
        return f"no connection to {service.host}{f' ({reason})' if reason else ''}"
    if kind == "Timeout":
        return f"{service.host} did not answer in time"
    if kind in ("Interrupted", "Request"):
        return f"{service.host} closed the connection"
    return f"{service.host} gave an answer that is not HTTP"


def _offline(text: str) -> bool:
    """Whether the machine has no network now: its words are those of the operating system."""
    number = _OS_ERROR.search(text)
    return _NO_NAMES in text or (number is not None and is_no_way(int(number[1] or number[2])))


def _more(status: int | None, code: str) -> str:
    told = ", ".join(filter(None, (str(status or ""), code)))
    return f" ({told})" if told else ""


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
