"""Task identity: what makes two requests the same content. Pure.

A caller's request (URL, headers, range, …) becomes a :class:`TaskSpec`, which may be told to other
hosts, and the private headers, which stay on the host that was given them. ``scope`` keeps apart what
different private headers may see, so content that one caller may read is never handed to another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from shared.errors import InvalidRequest
from shared.task.digest import parse_content_digest

MAX_URL_LENGTH = 16 * 1024
NEUTRAL_HEADERS = frozenset({"user-agent", "referer", "cache-control", "pragma", "from", "dnt"})
"""Request headers that say nothing about who may see the content; all others give the task a scope."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DNS_SCHEMES = frozenset({"http", "https", "hdfs", "webhdfs", "swebhdfs", "oci", "oci-descriptor", "file"})
"""Schemes whose authority is the name of a machine, so that its case does not matter."""
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"
_SECRET_NAMES = re.compile(
    r"(?i)signature|token|delegation|secret|password|passwd|credential|api[-_]?key|^sig$|^auth|accesskey"
)
_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be distributed, without any secret of the caller's own headers.

    ``url`` is normal (see :func:`normalize_url`) and complete, so that a seeder can read it; show it
    to people only through :func:`redact_url`. ``range`` is "first-last" in bytes of the source, both
    inclusive, or "". ``headers`` are the neutral ones, lower-case. ``tree`` is "" for a file; for all that
    lies below a folder it tells what is taken (see ``cdn.tree``). ``generation`` tells the content that a
    source has now from what it had before it changed: "" for the first one that the cluster saw, later
    ones are greater as text. ``digest`` ("sha256:HEX") is that of the whole content where it is known
    beforehand: then it is the identity, and ``url`` only one of the places where the content can be read.
    """

    url: str
    tag: str = ""
    application: str = ""
    range: str = ""
    scope: str = ""
    filtered: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    tree: str = ""
    generation: str = ""
    digest: str = ""

    @property
    def task_id(self) -> str:
        """SHA-256 over the length-prefixed identity fields, 64 hex digits."""
        return self._hash(self.generation)

    @property
    def logical_id(self) -> str:
        """The id that all generations of the content have in common: the task id of the first one."""
        return self._hash("")

    @property
    def scheme(self) -> str:
        """The URL's scheme, in lower case."""
        return self.url.partition(":")[0].lower()

    @property
    def piece_key(self) -> str:
        """What a host has to show for pieces of content that not everybody may have, 64 hex digits; "" where
        everybody may. Ids of tasks are told to people, in logs and listings; scopes, and so this, are not."""
        if not self.scope:
            return ""
        return hmac.digest(self.scope.encode(), self.task_id.encode(), hashlib.sha256).hex()

    def _hash(self, generation: str) -> str:
        place = "" if self.digest else filter_query(self.url, self.filtered)
        fields = [place, self.tag, self.application, self.range, self.scope]
        if self.tree or generation or self.digest:
            fields += [self.tree, generation]
        if self.digest:
            fields.append(self.digest)
        hasher = hashlib.sha256()
        for field in fields:
            data = field.encode()
            hasher.update(len(data).to_bytes(8, "big") + data)
        return hasher.hexdigest()

    @property
    def byte_range(self) -> tuple[int, int] | None:
        """The requested (first, last) source bytes, inclusive; None for the whole source."""
        if not self.range:
            return None
        first, _, last = self.range.partition("-")
        return int(first), int(last)


def make_spec(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tag: str = "",
    application: str = "",
    byte_range: str = "",
    filtered: Iterable[str] = (),
    tree: str = "",
) -> tuple[TaskSpec, dict[str, str]]:
    """A caller's request as (spec, private headers with lower-case names).

    User and password in the URL become a private ``authorization`` header. Raises InvalidRequest.
    """
    url, credentials = normalize_url(url)
    private = {"authorization": credentials} if credentials else {}
    neutral: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not _TOKEN.match(name):
            raise InvalidRequest(f"header name {name!r} is not valid: write headers as 'Name: value'")
        if any(c in value for c in "\r\n\0"):
            raise InvalidRequest(f"the value of header {name!r} holds a line break: remove it")
        lower = name.lower()
        if lower in ("range", "host", "content-length", "transfer-encoding", "connection", "accept-encoding"):
            raise InvalidRequest(
                f"header {name!r} is set by dragonet itself: leave it out (for a range use --range)"
            )
        (neutral if lower in NEUTRAL_HEADERS else private)[lower] = value.strip()
    spec = TaskSpec(
        url=url,
        tag=tag,
        application=application,
        range=parse_range(byte_range),
        scope=scope_of(url, private),
        filtered=tuple(sorted({name for name in filtered if name})),
        headers=neutral,
        tree=tree,
    )
    return spec, private


def content_spec(url: str, digest: str, *, scope: str = "") -> TaskSpec:
    """Content that is known by its digest ("sha256:HEX"), which can be read at ``url`` among other places.

    ``scope`` tells apart what not everybody may see ("" is public). Raises InvalidRequest.
    """
    url, _ = normalize_url(url)
    return TaskSpec(url=url, scope=scope, digest=":".join(parse_content_digest(digest)))


def scope_of(url: str, private: Mapping[str, str]) -> str:
    """The scope of content read with these private headers: "" without any, else 32 hex digits.

    Derived with scrypt, salted by the origin, because the scope is told to the scheduler and must not
    let anyone guess a short password from it.
    """
    if not private:
        return ""
    secret = b"".join(
        len(part).to_bytes(4, "big") + part
        for item in sorted(private.items())
        for part in (s.encode() for s in item)
    )
    salt = b"dragonet scope\0" + urlsplit(url).netloc.encode()
    return hashlib.scrypt(secret, salt=salt, n=1 << 12, r=8, p=1, dklen=16).hex()


def normalize_url(url: str) -> tuple[str, str]:
    """(normal URL, Basic credentials taken out of it or "").

    Scheme and host in lower case, international host names in their ASCII form, default port and
    fragment dropped, characters outside ASCII percent-encoded as UTF-8. Raises InvalidRequest.
    """
    url = url.strip()
    if len(url) > MAX_URL_LENGTH:
        raise InvalidRequest(f"the URL has {len(url)} characters: at most {MAX_URL_LENGTH} are allowed")
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in url):
        raise InvalidRequest("the URL holds a control character: percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").rstrip(".")
    except ValueError as error:
        raise InvalidRequest(f"{redact_url(url)!r} is not a URL: {error}") from None
    scheme = parts.scheme.lower()
    if not scheme:
        raise InvalidRequest(
            f"{redact_url(url)!r} has no scheme: write it as https://host/path or file:///path"
        )
    if not host and scheme in _DEFAULT_PORTS:
        raise InvalidRequest(f"{redact_url(url)!r} has no host: write it as {scheme}://host/path")
    if scheme not in _DNS_SCHEMES:
        # what stands there is a bucket, an owner or whatever else the scheme says: its case may matter
        host = _as_written(parts.netloc) or host
    try:
        host = host.encode("ascii").decode() if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise InvalidRequest(f"{host!r} is not a valid host name") from None
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        netloc += f":{port}"
    credentials = ""
    if parts.username is not None or parts.password is not None:
        userinfo = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(userinfo.encode()).decode()
    path = quote(parts.path, safe=_URL_SAFE) or ("/" if scheme in _DEFAULT_PORTS else "")
    return urlunsplit((scheme, netloc, path, quote(parts.query, safe=_URL_SAFE), "")), credentials


def _as_written(netloc: str) -> str:
    """The host of an authority as it was written, without user, port and brackets."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def parse_range(text: str) -> str:
    """Check a ``A-B`` byte range (inclusive) and give it back in its normal form; "" stays "".

    Raises InvalidRequest.
    """
    text = text.strip()
    if not text:
        return ""
    match = re.fullmatch(r"(?:bytes=)?([0-9]{1,18})-([0-9]{1,18})", text)
    if match is None:
        raise InvalidRequest(
            f"range {text!r} is not valid: write first-last in bytes, both inclusive, as in 0-1023"
        )
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise InvalidRequest(f"range {text!r} ends before it begins: write first-last in bytes")
    return f"{first}-{last}"


def filter_query(url: str, names: Iterable[str]) -> str:
    """The URL without the query parameters in ``names`` (case-insensitive); the others keep order and form."""
    drop = {name.lower() for name in names}
    if not drop:
        return url
    parts = urlsplit(url)
    kept = [p for p in parts.query.split("&") if unquote(p.partition("=")[0]).lower() not in drop]
    return urlunsplit(parts._replace(query="&".join(kept)))


def redact_url(url: str) -> str:
    """The URL as people and logs may see it: no user, no password, no values of secret-looking parameters."""
    head, question, query = url.partition("?")
    head = re.sub(r"//[^/]*@", "//", head, count=1)
    if not question:
        return head
    shown = [_redact_parameter(p) for p in query.partition("#")[0].split("&")]
    return f"{head}?{'&'.join(shown)}"


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}=***" if equals and _SECRET_NAMES.search(unquote(name)) else parameter
