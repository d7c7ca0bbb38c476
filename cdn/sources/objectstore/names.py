"""What URLs of object stores name: a bucket, the name of an object in it, a version. Pure.

The name is the URL's path without its first "/", percent-decoded, and nothing else is done to it: "//",
spaces, "?" and "#" (written ``%3F`` and ``%23``) all belong to it. Bucket names become part of host names,
so they are held against the rules of their store before anything is asked.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from shared.errors import SourceError
from shared.task.identity import redact_url


@dataclass(frozen=True, slots=True)
class BucketRule:
    """Which bucket names a kind of store knows. ``words`` tell a person; ``called`` is the store's own word."""

    pattern: re.Pattern[str]
    words: str
    called: str = "bucket"

    def check(self, scheme: str, name: str) -> None:
        """Raises SourceError (fault "request") when ``name`` is none."""
        if self.pattern.fullmatch(name) is None or _is_address(name):
            raise SourceError(
                f"{name!r} is not the name of a {self.called} for {scheme}://: such names have {self.words}",
                fault="request",
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


S3_BUCKETS = BucketRule(
    re.compile(r"(?!.*(?:\.\.|\.-|-\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "3 to 63 lower-case letters, digits, '-' and single '.'",
)
OSS_BUCKETS = BucketRule(
    re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), "3 to 63 lower-case letters, digits and '-'"
)
GOOGLE_BUCKETS = BucketRule(
    re.compile(r"(?!.*(?:\.\.|\.-|-\.|[^.]{64}))[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "3 to 222 lower-case letters, digits, '-', '_' and single '.'",
)
AZURE_CONTAINERS = BucketRule(
    re.compile(r"\$root|\$web|\$logs|(?=.{3,63}$)[a-z0-9](?:-?[a-z0-9])*"),
    "3 to 63 lower-case letters, digits and single '-'",
    "container",
)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object (or, for listing, a folder of objects) of a store; ``version`` is "" for the current one."""

    scheme: str
    bucket: str
    key: str
    version: str = ""

    @property
    def immutable(self) -> bool:
        """Whether it names a version that cannot be written again (S3's version "null" can)."""
        return self.version not in ("", "null")

    @property
    def odd(self) -> bool:
        """Whether the key has empty parts, which obstore cannot name by itself."""
        return self.key == "" or "" in self.key.split("/")

    def url(self, key: str) -> str:
        """The URL of another key of the same bucket."""
        return f"{self.scheme}://{self.bucket}/{quote(key, safe='/~')}"


def parse_name(url: str, rule: BucketRule, version_parameter: str) -> ObjectName:
    """What the URL names; the key is "" for the bucket itself.

    Raises SourceError (fault "request") when it names nothing that such a store can have.
    """
    shown = redact_url(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError(f"{shown!r} is not a URL: {error}", fault="request") from None
    rule.check(parts.scheme, parts.netloc)
    if parts.fragment:
        raise SourceError(f"{shown} has a '#': write it as %23 where it belongs to the name", fault="request")
    try:
        key = unquote(parts.path.removeprefix("/"), errors="strict")
    except UnicodeDecodeError:
        raise SourceError(
            f"the name in {shown} is not UTF-8: percent-encode it as UTF-8", fault="request"
        ) from None
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in key):
        raise SourceError(
            f"the name in {shown} holds a control character: it cannot be read", fault="request"
        )
    if any(part in (".", "..") for part in key.split("/")):
        raise SourceError(f"the name in {shown} has a part '.' or '..': it cannot be read", fault="request")
    version = _version(parts.query, version_parameter, shown, parts.scheme)
    return ObjectName(parts.scheme, parts.netloc, key, version)


def _version(query: str, parameter: str, shown: str, scheme: str) -> str:
    version = ""
    for pair in filter(None, query.split("&")):
        name, _, value = (unquote(part) for part in pair.partition("="))
        if name.lower() != parameter.lower() or not value or version:
            raise SourceError(
                f"{scheme}:// URLs may end in ?{parameter}=VERSION and nothing else, and {shown} does not: "
                "write a '?' that belongs to the name as %3F",
                fault="request",
            )
        version = value
    if not version.isprintable():
        raise SourceError(f"the {parameter} in {shown} holds a control character", fault="request")
    return version
