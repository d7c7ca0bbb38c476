"""When a token says that it ends. Pure."""

from __future__ import annotations

import base64
import binascii
import math

import msgspec


class _Claims(msgspec.Struct):
    exp: float | None = None


def token_end(token: str) -> float | None:
    """The Unix time at which a JSON web token (RFC 7519 §4.1.4) ends; None for one that does not tell.

    Its signature is not looked at: whoever accepted the token did that.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        end = msgspec.json.decode(payload, type=_Claims).exp
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
    return end if end is not None and math.isfinite(end) else None
