"""Which handler answers a request: patterns over path segments. Pure but for calling the handler.

``/v1/tasks/{id}/pieces/{number}``: a parameter is one segment, percent-decoded after the path is split,
so an encoded slash stays inside its segment. ``/files/{path...}`` takes all the rest, slashes included
(empty too); what it holds comes from outside: dot segments are not resolved here. Literal segments win
over parameters, parameters over the rest.
"""

from __future__ import annotations

from urllib.parse import unquote

from shared.http.messages import Handler, Request, Response, failure_response


class _Node:
    """One segment of the tree of patterns."""

    __slots__ = ("endpoint", "literals", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: _Endpoint | None = None
        self.endpoint: _Endpoint | None = None


class _Endpoint:
    """The handlers of one pattern, with each one's own parameter names."""

    __slots__ = ("methods",)

    def __init__(self) -> None:
        self.methods: dict[str, tuple[Handler, tuple[str, ...]]] = {}

    def find(self, method: str) -> tuple[Handler, tuple[str, ...]] | None:
        found = self.methods.get(method)
        if found is None and method == "HEAD":
            found = self.methods.get("GET")
        return found or self.methods.get("*")


class Router:
    """Routes requests; is itself a handler. HEAD is answered by the GET handler of the path."""

    def __init__(self, fallback: Handler | None = None) -> None:
        """``fallback`` answers what no pattern matches (default: 404)."""
        self._root = _Node()
        self._fallback = fallback

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Let ``handler`` answer ``method`` ("*": any) on ``pattern``.

        Raises ValueError when the pattern is malformed or the pair is taken.
        """
        if not pattern.startswith("/"):
            raise ValueError(f"the pattern {pattern!r} must begin with a slash")
        node, names = self._root, []
        segments = pattern[1:].split("/")
        endpoint: _Endpoint | None = None
        for index, segment in enumerate(segments):
            if not (segment.startswith("{") and segment.endswith("}")):
                if "{" in segment or "}" in segment:
                    raise ValueError(f"in {pattern!r} a parameter must be a whole segment")
                node = node.literals.setdefault(segment, _Node())
                continue
            name = segment[1:-1]
            if name.endswith("..."):
                if index != len(segments) - 1:
                    raise ValueError(f"in {pattern!r} {segment} must be the last segment")
                names.append(name[:-3])
                node.rest = endpoint = node.rest or _Endpoint()
                break
            names.append(name)
            node.parameter = node = node.parameter or _Node()
        if endpoint is None:
            node.endpoint = endpoint = node.endpoint or _Endpoint()
        if len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
            raise ValueError(f"the parameters of {pattern!r} need names of their own")
        if method in endpoint.methods:
            raise ValueError(f"{method} {pattern} has a handler already")
        endpoint.methods[method] = (handler, tuple(names))

    async def __call__(self, request: Request) -> Response:
        """Answer with the handler that matches, the fallback, 404, or 405 with Allow."""
        segments = request.raw_path[1:].split("/") if request.raw_path.startswith("/") else None
        allowed: set[str] = set()
        if segments is not None:
            decoded = [unquote(s) for s in segments] if "%" in request.raw_path else segments
            for endpoint, values in _only_match(self._root, decoded) or _matches(self._root, decoded, 0, ()):
                found = endpoint.find(request.method)
                if found is not None:
                    handler, names = found
                    if names:
                        request.params = dict(zip(names, values, strict=True))
                    return await handler(request)
                allowed.update(endpoint.methods)
        if allowed:
            allow = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
            words = f"{request.method} is not possible here: use {allow}"
            return failure_response(405, words, [("allow", allow)])
        if self._fallback is not None:
            return await self._fallback(request)
        return failure_response(404, "there is nothing at this path")


def _only_match(node: _Node, segments: list[str]) -> list[tuple[_Endpoint, tuple[str, ...]]]:
    """The same as :func:`_matches` where no step leaves a choice, which is nearly always; else empty."""
    values: list[str] = []
    for segment in segments:
        literal = node.literals.get(segment)
        if literal is not None:
            if node.parameter is not None or node.rest is not None:
                return []
            node = literal
        elif node.parameter is not None and node.rest is None and segment:
            node = node.parameter
            values.append(segment)
        else:
            return []
    return [] if node.endpoint is None or node.rest is not None else [(node.endpoint, tuple(values))]


def _matches(
    node: _Node, segments: list[str], at: int, values: tuple[str, ...]
) -> list[tuple[_Endpoint, tuple[str, ...]]]:
    """All endpoints for the segments from ``at`` on, the most literal first, with parameter values."""
    found: list[tuple[_Endpoint, tuple[str, ...]]] = []
    if at == len(segments):
        if node.endpoint is not None:
            found.append((node.endpoint, values))
        return found
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        found += _matches(literal, segments, at + 1, values)
    if node.parameter is not None and segment:
        found += _matches(node.parameter, segments, at + 1, (*values, segment))
    if node.rest is not None:
        found.append((node.rest, (*values, "/".join(segments[at:]))))
    return found
