"""What of a folder is taken: the text in ``TaskSpec.tree``, which is part of the task's identity. Pure.

The text is ``v=1&level=5&include=*.bin&exclude=tmp``: the version of the stream's form, the level, and the
globs, each kind sorted; ``list=1`` in place of contents. Equal wishes have equal texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cdn.tree.globs import Glob
from shared.errors import InvalidRequest

FORM = 1
"""Version of the stream's form (see ``frames``); streams of two forms are two tasks."""

DEFAULT_LEVEL = 5
MAX_LEVEL = 100
"""Deepest folder that is entered, also where no level is asked for: a folder may contain itself."""
MAX_GLOBS = 64
MAX_TEXT = 16 * 1024


@dataclass(frozen=True, slots=True)
class TreeOrder:
    """What is wanted of a folder.

    ``level`` is how many folders deep is looked, 1 for the files that lie directly in it, 0 for no limit (but
    ``MAX_LEVEL``). A file is taken when a glob of ``include`` matches (or there is none) and none of
    ``exclude`` does; a folder that ``exclude`` matches is not entered. ``contents`` False: only the listing.
    """

    level: int = DEFAULT_LEVEL
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    contents: bool = True

    def __post_init__(self) -> None:
        """Raises InvalidRequest when anything is out of bounds."""
        if self.level < 0:
            raise InvalidRequest("the level must be 0 (no limit) or more")
        if len(self.include) + len(self.exclude) > MAX_GLOBS:
            raise InvalidRequest(f"at most {MAX_GLOBS} globs are allowed")
        try:
            for glob in (*self.include, *self.exclude):
                Glob(glob)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None

    @property
    def text(self) -> str:
        """The form in which it is part of a task's identity."""
        fields = [("v", str(FORM)), ("level", str(self.level))]
        fields += [("include", glob) for glob in sorted(set(self.include))]
        fields += [("exclude", glob) for glob in sorted(set(self.exclude))]
        if not self.contents:
            fields.append(("list", "1"))
        return urlencode(fields, safe="*?[]!/", errors="surrogateescape")

    @classmethod
    def parse(cls, text: str) -> TreeOrder:
        """The order with this text. Raises InvalidRequest; also when it is not the text that the order has."""
        fields: dict[str, list[str]] = {}
        if len(text) <= MAX_TEXT:
            try:
                pairs = parse_qsl(
                    text, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_GLOBS + 3
                )
            except ValueError:
                pairs = []
            for name, value in pairs:
                fields.setdefault(name, []).append(value)
        level = fields.get("level", [""])[0]
        if not (level.isascii() and level.isdigit() and len(level) <= 9):
            raise _unknown(text)
        order = cls(
            int(level),
            tuple(fields.get("include", ())),
            tuple(fields.get("exclude", ())),
            "list" not in fields,
        )
        if order.text != text:
            raise _unknown(text)
        return order


class Filter:
    """Answers what an order takes."""

    def __init__(self, order: TreeOrder) -> None:
        self._include = [Glob(glob) for glob in order.include]
        self._exclude = [Glob(glob) for glob in order.exclude]
        self.levels = min(order.level or MAX_LEVEL, MAX_LEVEL)
        """How many folders deep is looked."""

    def takes(self, path: str) -> bool:
        """Whether the file at a relative path is taken."""
        if self._include and not any(glob.matches(path) for glob in self._include):
            return False
        return not any(glob.matches(path) for glob in self._exclude)

    def enters(self, path: str) -> bool:
        """Whether the folder at a relative path is looked into."""
        return not any(glob.matches(path) or glob.covers(path) for glob in self._exclude)


def folder_url(url: str) -> str:
    """The URL of a folder, which ends with a slash. Raises InvalidRequest."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidRequest(f"this is not a URL: {error}") from None
    if parts.path.endswith("/"):
        return url
    return urlunsplit(parts._replace(path=parts.path + "/"))


def _unknown(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"what is to be taken of the folder is not understood ({text[:100]!r}): "
        "run the same dragonet release on all hosts"
    )
