"""What a server that answers 401 wants to be shown: the WWW-Authenticate field (RFC 9110 §11.6.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)|\s+|(?=,|$))")
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to be let in: a scheme in lower case, and its parameters by lower-case name."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """The challenges in all values of the field; what cannot be understood ends its value."""
    found: list[Challenge] = []
    for value in values:
        here: list[Challenge] = []
        at = _skip(value, 0)
        while at < len(value):
            parameter = _PARAMETER.match(value, at) if here else None
            match = parameter or _SCHEME.match(value, at)
            if match is None:
                break
            if parameter is None:
                here.append(Challenge(match[1].lower()))
            else:
                held = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
                here[-1].parameters.setdefault(parameter[1].lower(), held)
            at = _skip(value, match.end())
        found += here
    return found


def _skip(value: str, at: int) -> int:
    match = _BETWEEN.match(value, at)
    return match.end() if match else at
