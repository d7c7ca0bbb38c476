"""Header fields and query parameters: small read-only multi-maps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import overload
from urllib.parse import parse_qsl

from shared.errors import InvalidRequest

MAX_QUERY_FIELDS = 1000
"""More parameters than any of our requests has; a longer query is refused, not parsed."""


class Headers:
    """Header fields in their order; names are compared without regard to case (RFC 9110 §5.1)."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = list(items)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``, or ``default``."""
        name = name.lower()
        for key, value in self._items:
            if key.lower() == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """All values of ``name``, one for each field line."""
        name = name.lower()
        return [value for key, value in self._items if key.lower() == name]

    def get_list(self, name: str) -> list[str]:
        """The comma-separated members of all values of ``name``, without white space and empty ones."""
        members = (member.strip() for value in self.get_all(name) for member in value.split(","))
        return [member for member in members if member]

    def items(self) -> list[tuple[str, str]]:
        """All (name, value) pairs (a copy). Names of received requests are in lower case."""
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(sorted({key for key, _ in self._items}))}>"  # never values: secrets


class Query:
    """The parameters of a request's query, percent-decoded, in their order; names are exact."""

    __slots__ = ("_items",)

    def __init__(self, text: str = "") -> None:
        """Raises InvalidRequest when there are more than ``MAX_QUERY_FIELDS``."""
        try:
            self._items = (
                parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS) if text else []
            )
        except ValueError:
            raise InvalidRequest(
                f"the query has more than {MAX_QUERY_FIELDS} parameters: send fewer"
            ) from None

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``, or ``default``."""
        for key, value in self._items:
            if key == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """All values of ``name``."""
        return [value for key, value in self._items if key == name]

    def items(self) -> list[tuple[str, str]]:
        """All (name, value) pairs (a copy)."""
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self._items)

    def __repr__(self) -> str:
        return f"<Query {', '.join(sorted({key for key, _ in self._items}))}>"
