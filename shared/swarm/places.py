"""Where a host can have a task read: the places that its callers name, and what each of them shows there.

The rule: a place and the private headers that came with it stay together. Headers go to the URL that their caller
named and to no other, and a place counts for as long as somebody who named it wants the task. So callers who name
several places for the same content (it is known by its digest then) cannot spoil it for each other: what one of
them is refused, another one may still get.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shared.protocol import MAX_PLACES
from shared.task.identity import TaskSpec


class _Named:
    """A place, how many name it now, and what the last of them shows."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.callers = 0
        self.headers: dict[str, str] = {}


class Places:
    """Those of one task. A task that is not known by its digest has but one, its URL."""

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._only = None if spec.digest else _Named(spec)
        self._named: dict[str, _Named] = {}

    @contextmanager
    def named(self, spec: TaskSpec, headers: Mapping[str, str]) -> Iterator[None]:
        """A caller names the place ``spec.url``, and shows ``headers`` there, for the time of the context."""
        named = self._only or self._find(spec)
        if named is None:
            yield
            return
        if headers:
            named.headers = dict(headers)
        named.callers += 1
        try:
            yield
        finally:
            named.callers -= 1
            if not named.callers and named is not self._only:
                del self._named[named.spec.url]

    def specs(self) -> list[TaskSpec]:
        """The task at each place that somebody names, the one named first in front; at its own, if nobody does."""
        return [named.spec for named in self._named.values()] or [self._spec]

    def own(self, spec: TaskSpec) -> TaskSpec | None:
        """The task at the place ``spec.url``, as somebody here names it now; None where nobody does. Of a task with
        but one place, which others may spell otherwise, that one."""
        named = self._only or self._named.get(spec.url)
        return named.spec if named is not None and named.callers else None

    def headers(self, spec: TaskSpec) -> dict[str, str]:
        """What may be shown at the place ``spec.url``."""
        named = self._only or self._named.get(spec.url)
        return {} if named is None else named.headers

    def readable(self, spec: TaskSpec) -> bool:
        """Whether this host knows what to show at the place: of content that not everybody may see."""
        return bool(self._only or not spec.scope or self.headers(spec))

    def _find(self, spec: TaskSpec) -> _Named | None:
        """The place; None when there is no room for another, so that its callers rely on the others."""
        if spec.url not in self._named and len(self._named) < MAX_PLACES:
            self._named[spec.url] = _Named(spec)
        return self._named.get(spec.url)

    def __repr__(self) -> str:
        return f"<Places, {len(self._named)} named>"
