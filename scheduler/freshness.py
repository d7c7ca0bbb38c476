"""How long the content of a task counts as what its source has, and the check under way. Pure state.

What follows from it is decided in ``revalidation``. The words::

    until     the time up to which nobody needs to ask the source
    check     one host has been told to ask it
    asking    hosts whose registration, or question, waits for the outcome
    tried     hosts that were told to ask and gave no answer, this time
    stale     the source could not be asked when it was time to, and has not been since
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from shared.protocol import FreshWanted, PeerRegistered

Asking = PeerRegistered | FreshWanted


@dataclass(frozen=True, slots=True)
class Check:
    """A host's leave to ask the source whether its content has changed. ``deadline``: when it is given up."""

    id: str
    host: str
    deadline: float


@dataclass(slots=True, eq=False)
class Freshness:
    """That of one task (one generation of a content)."""

    until: float = -inf
    check: Check | None = None
    asking: dict[str, Asking] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    stale: bool = False

    @property
    def known(self) -> bool:
        """Whether anybody has ever said that the content was valid."""
        return self.until > -inf

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an outcome, or finds one out."""
        return bool(self.asking) or self.check is not None

    def valid(self, until: float) -> None:
        """The content was found to be that of its source, and counts as fresh until then."""
        self.until = max(self.until, until)
        self.stale = False
        self.tried.clear()

    def unchecked(self, until: float) -> None:
        """The source could not be asked; it is left alone until then."""
        self.until = max(self.until, until)
        self.stale = True
        self.tried.clear()

    def unknown(self) -> None:
        """Nothing was ever heard of this content."""
        self.until, self.stale = -inf, False

    def give_up(self) -> None:
        """The host that was to check does not answer; it is not told again this time."""
        if self.check is not None:
            self.tried.add(self.check.host)
            self.check = None

    def forget(self, host: str) -> None:
        """The host is gone."""
        self.asking.pop(host, None)
        if self.check is not None and self.check.host == host:
            self.give_up()
