"""What a plugin says about itself: the attributes that ``dragonet_plugin_init`` gives. Pure.

===============  ==========================================================================
``type``         "resource"
``scheme``       the scheme that the plugin's place is named after, in any case
``name``         the same
``vendor``       who made it (optional; as are all below)
``version``      which release it is
``buildCommit``  what it was built from
``buildTime``    when it was built
===============  ==========================================================================

Names and meaning as in Dragonfly's resource plugins. Further attributes are kept and shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

RESOURCE = "resource"
"""The ``type`` of every source plugin."""
REQUIRED = ("type", "name", "scheme")
MAX_TEXT = 1024
"""Characters of one attribute."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class WrongAttributes(ValueError):
    """The attributes are not those of a source plugin; the message says which, and what was expected."""


def is_scheme(text: str) -> bool:
    """Whether ``text`` may be a URL's scheme (RFC 3986 §3.1)."""
    return _SCHEME.fullmatch(text) is not None


def check_attributes(attributes: object, scheme: str) -> dict[str, str]:
    """The attributes of the plugin for ``scheme``, checked and sorted. Raises WrongAttributes."""
    if not isinstance(attributes, Mapping):
        raise WrongAttributes(f"its attributes are {_kind(attributes)}, expected a dict of texts")
    checked: dict[str, str] = {}
    for key, value in attributes.items():
        if not isinstance(key, str):
            raise WrongAttributes(f"an attribute is named {key!r}, expected a text")
        if not isinstance(value, str):
            raise WrongAttributes(f"its attribute {key!r} is {_kind(value)}, expected a text")
        if len(value) > MAX_TEXT:
            raise WrongAttributes(
                f"its attribute {key!r} has {len(value)} characters, expected {MAX_TEXT} at most"
            )
        checked[key] = value
    for key, expected in zip(REQUIRED, (RESOURCE, scheme.lower(), scheme.lower()), strict=True):
        if key not in checked:
            raise WrongAttributes(f"it lacks the attribute {key!r}, expected {expected!r}")
        if (checked[key] if key == "type" else checked[key].lower()) != expected:
            raise WrongAttributes(f"its attribute {key!r} is {checked[key]!r}, expected {expected!r}")
    return dict(sorted(checked.items()))


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
