"""What a hub tells about a file, and how that is known again for the next range of it. Pure.

A hub tells the version of a file where it redirects to the storage (``X-Linked-Etag``, ``X-Repo-Commit``); the
storage has ETags of its own, and a redirection is good for many ranges. So what the hub told goes along with
the storage's URL, as its fragment, in ``SourceResponse.url`` and back in ``SourceRequest.resolved_url``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlencode

from cdn.sources.http import Hop, authority_of
from cdn.sources.huggingface.places import is_commit

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Told:
    """``url`` is where the bytes are, ``stored`` the ETag that they have there. ``commit`` is the one that the
    revision stood for, ``etag`` the version of the file, ``digest`` that of its content; "" where not told."""

    url: str = field(repr=False)
    commit: str = ""
    etag: str = ""
    stored: str = ""
    digest: str = ""

    @classmethod
    def by(cls, trail: Sequence[Hop], endpoint: str, known: Told | None) -> Self | None:
        """What the answers on the way to the content tell.

        ``known`` was told for an earlier range: it holds as long as the same place gives the same version.
        None when it may not: then the hub is to be asked.
        """
        last = trail[-1]
        linked = _last(trail, "x-linked-etag")
        stored = last.headers.get("etag", "").strip()
        from_hub = any(at_hub(hop.url, endpoint) for hop in trail)
        if known is not None and not from_hub and not linked:
            if stored != known.stored:
                return None
            return cls(last.url, known.commit, known.etag, stored, known.digest)
        commit = _last(trail, "x-repo-commit")
        bare = _bare(linked)
        return cls(
            last.url,
            commit if is_commit(commit) else "",
            _strong(linked) if linked else _strong(stored),
            stored,
            f"sha256:{bare}" if _SHA256.fullmatch(bare) else "",
        )

    def at(self, url: str) -> Self:
        """The same, with the bytes at another place."""
        return dataclasses.replace(self, url=url)

    def to_url(self) -> str:
        """The URL, with all the rest as its fragment."""
        rest = {"commit": self.commit, "etag": self.etag, "stored": self.stored, "digest": self.digest}
        return f"{self.url.partition('#')[0]}#{urlencode(rest)}"

    @classmethod
    def from_url(cls, url: str) -> Self | None:
        """What :meth:`to_url` made; None for ""."""
        if not url:
            return None
        bare, _, fragment = url.partition("#")
        return cls(bare, **{name: value for name, value in parse_qsl(fragment) if name in _FIELDS})


_FIELDS = frozenset(field.name for field in dataclasses.fields(Told)) - {"url"}


def at_hub(url: str, endpoint: str) -> bool:
    """Whether a URL leads to the server of the hub itself."""
    return authority_of(url) == authority_of(endpoint)


def _last(trail: Sequence[Hop], name: str) -> str:
    return next((value for hop in reversed(trail) if (value := hop.headers.get(name, "").strip())), "")


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"').lower()


def _strong(etag: str) -> str:
    """A hash of the content is a strong validator, however it is marked: nothing is recoded on the way."""
    bare = _bare(etag)
    return f'"{bare}"' if _HASH.fullmatch(bare) else etag
