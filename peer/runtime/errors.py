"""What can be wrong with setting a runtime up; nothing was changed, unless the message says so.

::

    SetupError
    ├── BrokenFile       an existing file cannot be understood: which, where in it, why
    ├── Conflict         what is there already does not go with dragonet: what to do about it
    ├── ChangedSince     somebody else changed what dragonet wrote: which file, what to do
    └── NotPermitted     a file or folder cannot be read or written
"""

from __future__ import annotations

from shared.errors import DragonetError


class SetupError(DragonetError):
    """A runtime cannot be set up, or put back, as asked."""


class BrokenFile(SetupError):
    """An existing file cannot be understood."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is broken, nothing was changed: {reason}")


class Conflict(SetupError):
    """What is there already does not go with dragonet."""


class ChangedSince(SetupError):
    """Somebody else changed what dragonet wrote."""


class NotPermitted(SetupError):
    """A file or folder cannot be read or written."""
