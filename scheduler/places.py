"""Where the content of a task can be read, and what came of trying. Pure state.

A task has one place, its URL. Content that is known by its digest has as many as those who want it name: the same
layer in two registries, say, or one of a repository that is not the right one. What fails at one place says nothing
of another, so failures are remembered, and hosts that have tried are noted, for each place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf

from shared.offline import Offline
from shared.protocol import MAX_PLACES, Failure
from shared.task.identity import TaskSpec


class Place:
    """One place. ``tried`` are the hosts (with their instances) that could not read there in this episode.

    ``failure`` is what the place itself said last, until ``failure_until``; ``last_failure`` what the last host
    that tried said. ``offline`` are those who had no network when they tried; they may try again in a while.
    """

    __slots__ = ("failure", "failure_until", "last_failure", "offline", "spec", "tried")

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.tried: dict[str, str] = {}
        self.last_failure: Failure | None = None
        self.failure: Failure | None = None
        self.failure_until = 0.0
        self.offline: dict[str, Offline] = {}

    def found_offline(self, host: str, now: float) -> None:
        """A host that tried has no network."""
        self.offline.setdefault(host, Offline()).failed(now)

    def again_at(self) -> float:
        """When the next of those who tried without a network may try again; infinite for never."""
        return min(
            (self.offline[host].again_at() for host in self.tried if host in self.offline), default=inf
        )

    def try_again(self, now: float) -> None:
        """Who had no network may have one by now."""
        for host, offline in self.offline.items():
            if now >= offline.again_at():
                self.tried.pop(host, None)

    def answered(self, host: str) -> None:
        """The host reads here."""
        self.failure = None
        self.offline.pop(host, None)

    def begin_again(self) -> None:
        """The episode is over: whoever tried in vain may try again."""
        self.tried.clear()
        self.offline.clear()

    @property
    def url(self) -> str:
        """What tells it from the other places of the task."""
        return self.spec.url

    def __repr__(self) -> str:
        state = "failed" if self.failure is not None else "open"
        return f"<Place {state}, tried by {len(self.tried)}>"


class Places:
    """Those of one task, by their URLs, in the order in which they were named."""

    def __init__(self, spec: TaskSpec) -> None:
        self.several = bool(spec.digest)
        self._spec = spec
        self._places: dict[str, Place] = {} if self.several else {spec.url: Place(spec)}

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    def __len__(self) -> int:
        return len(self._places)

    def get(self, url: str) -> Place | None:
        """The place, if it is known."""
        return self._places.get(url)

    def name(self, spec: TaskSpec, needed: Callable[[], Collection[str]]) -> str:
        """Somebody names a place: its URL, "" when there is no room for another.

        Room is made by forgetting a place that is not among the ``needed`` ones, else one that has failed.
        """
        if not self.several:
            return self._spec.url
        if spec.url not in self._places:
            if len(self._places) >= MAX_PLACES:
                kept = needed()
                useless = [place for place in self if place.url not in kept]
                useless += [place for place in self if place.failure is not None]
                if not useless:
                    return ""
                del self._places[useless[0].url]
            self._places[spec.url] = Place(spec)
        return spec.url

    def open(self, named: Iterable[str]) -> list[Place]:
        """Those among ``named`` that have not failed, in that order."""
        places = (self._places.get(url) for url in dict.fromkeys(named))
        return [place for place in places if place is not None and place.failure is None]

    @property
    def failed(self) -> Place | None:
        """The place that failed last, as far as that is remembered."""
        failed = [place for place in self if place.failure is not None]
        return max(failed, key=lambda place: place.failure_until, default=None)

    @property
    def failure_until(self) -> float:
        """Until when a failure is remembered."""
        return max((place.failure_until for place in self), default=0.0)

    def expire(self, now: float) -> None:
        """Forget failures whose time is over."""
        for place in self:
            if place.failure is not None and now >= place.failure_until:
                place.failure = None

    def begin_again(self) -> None:
        """The episode is over: whoever tried in vain may try again."""
        for place in self:
            place.begin_again()
