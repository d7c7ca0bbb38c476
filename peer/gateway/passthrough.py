"""What is asked of the registry each time: the lists of tags and of referrers, as the client itself could have them.

Nothing is kept of them. Those who ask the same at the same time, with the same credentials or with none, share
one answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy
from urllib.parse import urlencode

from peer.gateway.access import Access, HasRegistryClient
from peer.gateway.challenges import FIELD, challenges_for
from peer.gateway.errors import API_VERSION
from peer.gateway.target import Target
from shared.errors import InvalidRequest, SourceError
from shared.http.client import ClientResponse
from shared.http.fields import Query
from shared.http.messages import Request, Response

_PASSED_ON = ("content-type", "oci-filters-applied", "retry-after")
_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[^;,<>]+)*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?\s*next\s*"?\s*(?:;|$)', re.IGNORECASE)
_LONGEST = 512
"""Characters of a parameter, in a request or in a registry's link."""


class Passthrough:
    """Answers requests for tags and referrers."""

    def __init__(self, reader: HasRegistryClient, access: Access) -> None:
        self._reader = reader
        self._access = access

    async def answer(self, target: Target, request: Request) -> Response:
        """What the registry answers, whatever that is. Raises InvalidRequest; SourceError without an answer."""
        path = "tags/list" if target.kind == "tags" else f"referrers/{target.digest}"
        query = _asked(request.query)
        accept = request.headers.get("accept", "")
        asker = await self._access.asker(target, request.headers.get("authorization", ""))

        async def ask() -> ClientResponse | SourceError:
            client = await self._reader.registry_client()
            headers = {"accept": accept} if accept else {}
            login = asker.login if asker is not None else None
            try:
                return await client.get(target.registry, target.repository, path, query, headers, login)
            except SourceError as error:
                return error

        who = asker.key if asker is not None else (target.registry, target.repository)
        answer = await self._access.asking.once(target.registry, (who, path, query, accept), ask)
        if isinstance(answer, SourceError):
            raise copy(answer)
        return _passed_on(answer, target, path)


def _passed_on(answer: ClientResponse, target: Target, path: str) -> Response:
    headers = [API_VERSION]
    headers += [(name, value) for name in _PASSED_ON for value in answer.headers.get_all(name)]
    headers += [(FIELD, value) for value in challenges_for(answer.headers.get_all(FIELD), target)]
    more = next_page(answer.headers.get_all("link"), target, path)
    if more:
        headers.append(("link", f'<{more}>; rel="next"'))
    return Response(answer.status, answer.body, headers)


def next_page(links: Iterable[str], target: Target, path: str) -> str:
    """Where the next page of a list is, by way of this gateway; "" when a registry names none.

    Of the registry's link (RFC 8288) only the parameters are taken over: whatever place it names, the way
    leads to this list of this repository.
    """
    for value in links:
        for place, attributes in _LINK.findall(value):
            if not _NEXT.search(attributes):
                continue
            query = Query(place.partition("#")[0].partition("?")[2])
            kept = [(n, v) for n, v in query.items() if n != "ns" and len(n) + len(v) <= _LONGEST][:8]
            kept += [("ns", target.ns)] if target.ns else []
            return f"/v2/{target.prefix}{target.repository}/{path}?{urlencode(kept)}"
    return ""


def _asked(query: Query) -> str:
    """The parameters that the registry gets. Raises InvalidRequest."""
    asked: list[tuple[str, str]] = []
    for name, value in query.items():
        if name == "ns":
            continue
        if len(name) + len(value) > _LONGEST or len(asked) == 8:
            raise InvalidRequest(f"the query is too long: at most 8 parameters of {_LONGEST} characters each")
        if name == "n" and not (value.isascii() and value.isdigit()):
            raise InvalidRequest(f"n is how many tags are wanted, a whole number, not {value!r}")
        asked.append((name, value))
    return urlencode(asked)
