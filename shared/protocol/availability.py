"""Availability: parent to child."""

from __future__ import annotations

from shared.protocol.assignments import Beat
from shared.protocol.values import Message


class Availability(Message, frozen=True, tag="availability"):
    """The first frame: the version that is held here, and which pieces."""

    version: str
    held: bytes


class PiecesAdded(Message, frozen=True, tag="added"):
    """Pieces newly held."""

    pieces: list[int]


class AvailabilityEnded(Message, frozen=True, tag="ended"):
    """The last frame: the task is gone or has a new version here."""


AvailabilityEvent = Availability | PiecesAdded | AvailabilityEnded | Beat
