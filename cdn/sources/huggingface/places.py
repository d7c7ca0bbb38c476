"""What a hf:// URL names, and where a hub has it. Pure.

URLs are those of Hugging Face's own libraries: ``hf://[KIND/]OWNER/NAME[@REVISION][/PATH]`` with the kinds
models (when none is written), datasets and spaces. A revision is a branch, a tag or a commit; one that holds
a slash is written with ``%2F``, but for the refs of pull requests and conversions (``refs/pr/1``).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from shared.errors import SourceError
from shared.task.identity import redact_url

KINDS = ("models", "datasets", "spaces")
DEFAULT_REVISION = "main"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A file or folder in a repository.

    ``path`` is not percent-encoded, "" for the repository's root. ``base`` is the URL of the root, written
    as the caller wrote it.
    """

    kind: str
    repository: str
    revision: str
    path: str
    base: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, whose content never changes."""
        return is_commit(self.revision)

    @property
    def page(self) -> str:
        """The path of the repository below a hub's address."""
        return self.repository if self.kind == "models" else f"{self.kind}/{self.repository}"

    def at(self, commit: str) -> HubPlace:
        """The same place as of another revision; itself when ``commit`` is ""."""
        return dataclasses.replace(self, revision=commit) if commit else self

    def content_url(self, endpoint: str) -> str:
        """Where the hub at ``endpoint`` gives the content of a file."""
        return f"{endpoint}/{self.page}/resolve/{quote(self.revision, safe='')}/{quote(self.path)}"

    def tree_url(self, endpoint: str) -> str:
        """Where the hub lists a folder."""
        path = f"/{quote(self.path)}" if self.path else ""
        revision = quote(self.revision, safe="")
        return f"{endpoint}/api/{self.kind}/{self.repository}/tree/{revision}{path}?recursive=false"

    def child_url(self, path: str, *, is_folder: bool) -> str:
        """The hf:// URL of another path in the same repository and revision."""
        return f"{self.base}/{quote(path)}{'/' if is_folder else ''}"

    def __str__(self) -> str:
        return f"the {self.kind[:-1]} {self.repository}"


def is_commit(revision: str) -> bool:
    """Whether a revision is the full hash of a commit."""
    return _COMMIT.fullmatch(revision) is not None


def parse_place(url: str) -> HubPlace:
    """What a URL names. Raises SourceError (fault "request") in words when it names nothing."""
    body, query, _ = url.partition("://")[2].partition("?")
    if query or "#" in body:
        raise _invalid(url, 'a "?" or "#" in a name is written as %3F or %23')
    parts = body.removesuffix("/").split("/")
    kind = parts.pop(0) if parts[0] in KINDS else "models"
    # Old names of one part can be told from an owner only by a revision that follows.
    owner = [] if parts and "@" in parts[0] else parts[:1]
    if len(parts) <= len(owner):
        raise _invalid(url, "it names no repository: write hf://owner/name/path")
    name, at, revision = parts[len(owner)].partition("@")
    rest = parts[len(owner) + 1 :]
    if revision == "refs" and len(rest) >= 2 and rest[0] in ("pr", "convert"):
        revision, rest = "/".join(("refs", *rest[:2])), rest[2:]
    revision = unquote(revision) if at else DEFAULT_REVISION
    if not all(_NAME.fullmatch(part) for part in (*owner, name)):
        raise _invalid(url, "a repository is named owner/name, of letters, digits, '.', '-' and '_'")
    if not revision or {"", ".", ".."} & set(revision.split("/")):
        raise _invalid(url, "what follows @ is not a revision: write a branch, a tag or a commit")
    path = [part for each in rest for part in unquote(each).split("/")]
    if {"", ".", ".."} & set(path):
        raise _invalid(url, "its path has an empty or a dot part: write it without")
    base = "/".join((url.partition("://")[0] + ":/", *body.removesuffix("/").split("/")))
    for _ in rest:
        base = base.rpartition("/")[0]
    return HubPlace(kind, "/".join((*owner, name)), revision, "/".join(path), base)


def _invalid(url: str, words: str) -> SourceError:
    return SourceError(f"{redact_url(url)} cannot be read: {words}", fault="request")
