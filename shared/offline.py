"""Failures that say no more than that this machine has no network now: a cable was pulled, the Wi-Fi changes. Pure.

They are over in a moment, mostly, so what failed for them alone is tried again for a while.
"""

from __future__ import annotations

import errno
import socket
from math import inf

from shared.errors import SourceError

PATIENCE = 15.0
"""Seconds for which what fails for want of a network is tried again, counted from the first time."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 3.0
"""Seconds between two tries: as long as it has lasted, within these."""
LONGEST_CHAIN = 20

_NO_WAY = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
)


def is_offline(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is of an own machine without network."""
    for _ in range(LONGEST_CHAIN):
        if error is None or (isinstance(error, SourceError) and error.origin_status is not None):
            return False
        if isinstance(error, OSError) and no_way(error):
            return True
        if isinstance(error, SourceError) and error.offline:  # it was seen before the cause was left out
            return True
        error = (
            error.__cause__ or error.__context__
        )  # libraries hide what is underneath; it counts all the same
    return False


def no_way(error: OSError) -> bool:
    """Whether this very error means that there is no way out now, or nobody to ask for addresses."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    return is_no_way(error.errno)


def is_no_way(number: int | None) -> bool:
    """The same, of an error number of the operating system."""
    return number in _NO_WAY


class Offline:
    """A time without network: since when, and when to try again. ``began`` None: there is none."""

    __slots__ = ("_last", "began")

    def __init__(self) -> None:
        self.began: float | None = None
        self._last = 0.0

    def failed(self, now: float) -> None:
        """Once more in vain; long after the last time, it is another one."""
        if self.began is None or now - self._last > PATIENCE:
            self.began = now
        self._last = now

    def again_at(self) -> float:
        """When to try again; infinite where it has lasted for so long that it counts as a failure."""
        if self.began is None or self._last - self.began >= PATIENCE:
            return inf
        pause = min(max(self._last - self.began, FIRST_PAUSE), LONGEST_PAUSE)
        return min(self._last + pause, self.began + PATIENCE)

    def end(self) -> None:
        """It is over: something came, or nobody waits any more."""
        self.began = None

    def __repr__(self) -> str:
        return "<Offline>" if self.began is None else f"<Offline since {self.began:.1f}>"
