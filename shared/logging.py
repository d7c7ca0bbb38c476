"""Logging of a role: structured events on stderr, for people or for collectors, without secrets.

Modules say ``log = structlog.get_logger()`` and log short lower-case sentences with ``key=value``. What
libraries log through the standard library comes out in the same form, from warnings upwards.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, TypeAlias, cast

import structlog

from shared.task.identity import NEUTRAL_HEADERS, redact_url

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]
Event: TypeAlias = MutableMapping[str, Any]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRET_KEY = re.compile(
    r"(?i)authorization|cookie|token|secret|passw|credential|api[-_]?key|private[-_]?key|signature"
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0))}
_MULTILINE = frozenset({"exception", "stack"})


def configure(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 - the setting's name
    """Send all logging to ``stream`` (stderr). ``auto`` is ``console`` on a terminal, else ``json``."""
    stream = stream or sys.stderr
    if format == "auto":
        format = "console" if stream.isatty() else "json"  # noqa: A001
    output = cast("TextIO", _Output(stream))
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=32)
    )
    structlog.configure(
        processors=[*before, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _LEVELS[level]))
    logging.captureWarnings(True)


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Processor: no secret reaches a log, and no control character a terminal."""
    for key, value in event.items():
        event[key] = _clean(key, value)
    return event


def _clean(key: str, value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if _SECRET_KEY.search(key):
        return "***"
    if isinstance(value, str):
        return _text(value, multiline=key in _MULTILINE)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if depth < 4 and isinstance(value, Mapping):
        headers = "headers" in key
        return {
            str(name): "***"
            if headers and str(name).lower() not in NEUTRAL_HEADERS
            else _clean(str(name), item, depth + 1)
            for name, item in value.items()
        }
    if depth < 4 and isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(key, item, depth + 1) for item in value]
    return _text(str(value))


def _text(text: str, *, multiline: bool = False) -> str:
    if "://" in text:
        text = _URL.sub(lambda match: redact_url(match[0]), text)
    if not text.isprintable():
        text = text.translate(_CONTROL)
        if not multiline:
            text = text.replace("\n", "\\n")
    return text


class _Output:
    """A text stream whose reader may go away: then there is nobody left to tell, and the daemon goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # the pipe is broken, or the stream closed
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return
