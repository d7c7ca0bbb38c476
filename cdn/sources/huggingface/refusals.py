"""What a hub means by its refusals, in words. Pure."""

from __future__ import annotations

from cdn.sources.http import Hop
from cdn.sources.huggingface.places import HubPlace
from shared.errors import Fault, SourceError

HOW = "source.options.hf token, HF_TOKEN, or --source-option token=…"
_INVALID = "invalid credentials"


def refusal(
    error: SourceError, hop: Hop, place: HubPlace, endpoint: str, *, credentials: bool
) -> SourceError:
    """The error for an answer 401, 403 or 404 of a hub.

    The header fields ``X-Error-Code`` and ``X-Error-Message`` tell what it means. Another host may have the
    credentials that this one has not.
    """
    code = hop.headers.get("x-error-code", "")
    status = hop.status
    fault: Fault = "reader" if status in (401, 403) and not credentials else "origin"
    if code == "EntryNotFound":
        words = f"{place} has no {place.path or 'content'} in revision {place.revision}: check the path"
    elif code == "RevisionNotFound":
        words = f"{place} has no revision {place.revision}: check what follows @"
    elif code == "GatedRepo":
        words = (
            f"{place} is gated: ask for access at {endpoint}/{place.page}, "
            f"and give a token of that account ({HOW})"
        )
    elif credentials and _INVALID in hop.headers.get("x-error-message", "").lower():
        words = f"the hub does not know the token that was given for {place}: give another one ({HOW})"
    elif code == "RepoNotFound" or status == 401:
        # a hub says the same of what is private and of what is not there
        words = (
            f"{place} is not there, or is private: check the name, or give a token that may read it ({HOW})"
        )
    elif status == 403:
        words = f"{place} may not be read with these credentials: give a token that may read it ({HOW})"
    else:
        words = (
            f"{place} has nothing at {place.path or 'its root'} in revision {place.revision}: check the URL"
        )
    return SourceError(
        f"{words} (the hub answered {status})",
        origin_status=status,
        retry_after=error.retry_after,
        fault=fault,
    )
