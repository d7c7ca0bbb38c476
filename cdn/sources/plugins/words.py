"""What people are told of a plugin that did something wrong: always its name, and what it did."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator

import structlog
import trio

from cdn.sources.interface import RangeNotSatisfiable, SourceCut, SourceRequest
from shared.errors import Fault, SourceError
from shared.offline import is_offline
from shared.task.identity import NEUTRAL_HEADERS, redact_url
from shared.units import write_size

log = structlog.get_logger()

MAX_TEXT = 300
"""Characters of an exception's text that are shown."""
MAX_SENTENCE = 1000
"""Characters that are shown of a SourceError, which is meant to be."""
_SHORTEST_SECRET = 6
"""Shorter values are not looked for in texts: they would be found in every other word."""
_CHAIN = 10


class Unimplemented(SourceError):
    """The plugin raised NotImplementedError."""


class Words:
    """The sentences about one plugin. ``secrets`` (values of its options) are never shown."""

    def __init__(self, name: str, timeout: float, memory: int, secrets: Iterable[str] = ()) -> None:
        self.name = name
        self._timeout = timeout
        self._memory = memory
        self._secrets = tuple(secrets)

    def error(self, did: str, *, origin_status: int | None = None, fault: Fault = "origin") -> SourceError:
        """The plugin did something."""
        return SourceError(f"the source plugin {self.name} {did}", origin_status=origin_status, fault=fault)

    def gave(self, value: object, what: str, wanted: str) -> SourceError:
        """The plugin gave something that is not what was wanted."""
        return self.error(f"gave {describe(value)} for {what}: {wanted}")

    def late(self, what: str) -> SourceError:
        """A call did not end in time."""
        return self.error(f"did not answer: {what} has run for {self._timeout:g} s (source.plugin_timeout)")

    def silent(self) -> SourceError:
        """Its answer does not go on."""
        return self.error(
            f"did not answer: no further byte came for {self._timeout:g} s (source.plugin_timeout)"
        )

    def busy(self, threads: int) -> SourceError:
        """No thread became free in time."""
        return self.error(
            f"is busy: its {threads} threads have all been waiting for it for {self._timeout:g} s "
            "(source.plugin_timeout)",
            fault="reader",
        )

    def threadless(self) -> SourceError:
        """The system gives no thread to call it in."""
        return SourceError(
            f"the source plugin {self.name} cannot be called: this host gives dragonet no more threads",
            fault="reader",
        )

    def stuck(self, count: int) -> SourceError:
        """Too many calls were given up and still run."""
        return self.error(
            f"is not asked any more: {count} of its calls have not returned; it is asked again when some do, "
            "or when dragonet is started again",
            fault="reader",
        )

    def memory(self, what: str) -> SourceError:
        """It took too much."""
        return self.error(
            f"took more than {write_size(self._memory)} of memory in {what} (source.plugin_memory)"
        )

    def raised(self, error: BaseException, what: str, request: SourceRequest | None) -> SourceError:
        """The plugin raised something in ``what``; a SourceError speaks for itself.

        The traceback goes to the debug log. What is given holds on to none of the plugin's frames.
        """
        error = _only(error)
        text = self._text(error, request)
        log.debug(
            "source plugin raised",
            plugin=self.name,
            call=what,
            error=type(error).__name__,
            reason=text,
            stack="".join(traceback.format_tb(error.__traceback__)),
        )
        if isinstance(error, SourceError):
            return _copy(error, text or f"the source plugin {self.name} failed in {what}")
        if isinstance(error, MemoryError):
            return self._out_of_memory(what)
        if isinstance(error, NotImplementedError):
            return Unimplemented(f"the source plugin {self.name} does not implement {what}")
        did = f"failed in {what}: {type(error).__name__}{f': {text}' if text else ''}"
        made = self.error(did, origin_status=_status(error), fault=_fault(error))
        made.offline = is_offline(error)
        return made

    def _out_of_memory(self, what: str) -> SourceError:
        if not self._memory:
            return self.error(f"ran out of memory in {what}")
        return self.error(
            f"failed in {what}: there was no memory left for it: it may take {write_size(self._memory)} "
            "(source.plugin_memory)"
        )

    def _text(self, error: BaseException, request: SourceRequest | None) -> str:
        try:
            text = str(error)
        except BaseException:  # noqa: BLE001 - even that is the plugin's code
            return ""
        for secret in sorted({*self._secrets, *_private(request)}, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        if request is not None:
            text = text.replace(request.url, redact_url(request.url))
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        most = MAX_SENTENCE if isinstance(error, SourceError) else MAX_TEXT
        return text if len(text) <= most else text[:most] + "…"

    def __repr__(self) -> str:
        return f"<Words about {self.name}>"


def describe(value: object) -> str:
    """A value that was not wanted, in a few words, without its content."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return "text (str)"
    if isinstance(value, bool) or (isinstance(value, (int, float)) and abs(value) < 1e18):
        return f"{value!r} ({type(value).__name__})"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _private(request: SourceRequest | None) -> Iterator[str]:
    """The values of a request's private headers, and the words in them ("Bearer TOKEN")."""
    for name, value in request.headers.items() if request is not None else ():
        if name.lower() not in NEUTRAL_HEADERS:
            yield value
            yield from value.split()


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _copy(error: SourceError, text: str) -> SourceError:
    """A SourceError of a plugin's as the engine may rely on it, whatever the plugin made of it."""
    total = getattr(error, "total", None)
    if isinstance(error, RangeNotSatisfiable):
        return RangeNotSatisfiable(
            text,
            total=total if isinstance(total, int) and total >= 0 else None,
            etag=_field(error, "etag"),
            last_modified=_field(error, "last_modified"),
        )
    kind = SourceCut if isinstance(error, SourceCut) else SourceError
    status, after, fault = error.origin_status, error.retry_after, error.fault
    return kind(
        text,
        offline=is_offline(error),
        origin_status=status if isinstance(status, int) else None,
        retry_after=float(after) if isinstance(after, (int, float)) and 0 <= after < 1e9 else None,
        fault=fault if fault in ("origin", "reader", "request") else "origin",
    )


def _field(error: SourceError, name: str) -> str:
    value = getattr(error, name, "")
    return value if isinstance(value, str) else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(_CHAIN):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _status(error: BaseException) -> int | None:
    if isinstance(error, FileNotFoundError):
        return 404
    return 403 if isinstance(error, PermissionError) else None


def _fault(error: BaseException) -> Fault:
    """A host that cannot connect is to blame for that itself, however libraries wrap it."""
    if isinstance(error, OSError) and any(
        isinstance(cause, (ConnectionError, TimeoutError)) for cause in _causes(error)
    ):
        return "reader"
    return "reader" if isinstance(error, trio.TooSlowError) else "origin"
