"""Generations of a content: what a source has now, told from what it had before it changed. Pure.

Each generation is a task of its own (:attr:`TaskSpec.generation`), so that whoever reads the one before
finishes with it. "" is the first one that the cluster saw; later ones are greater as text.
"""

from __future__ import annotations

import re

import msgspec

from shared.task.identity import TaskSpec

_DIGITS = 12
_GENERATION = re.compile(rf"([0-9a-f]{{{_DIGITS}}})?")


def next_generation(before: str, wall: float) -> str:
    """A generation after ``before``: the time (Unix seconds) in milliseconds, 12 hexadecimal digits.

    The time makes it greater than what hosts hold that nobody here has heard of; where clocks disagree it is
    the one before and one more.
    """
    return f"{max(int(wall * 1000), int(before or '0', 16) + 1):0{_DIGITS}x}"


def is_generation(text: str) -> bool:
    """Whether ``text`` may be a ``TaskSpec.generation``."""
    return _GENERATION.fullmatch(text) is not None


def in_generation(spec: TaskSpec, generation: str) -> TaskSpec:
    """The same content in another generation."""
    return spec if spec.generation == generation else msgspec.structs.replace(spec, generation=generation)
