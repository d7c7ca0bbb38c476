"""The credentials of whoever runs a command, as headers of the request: the origin's reader takes them from
there. They give the content a scope of its own, and leave the host with no message to another one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from peer.cli.execution import UsageError
from peer.cli.options import parse_headers
from peer.cli.parameter import Parameter

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PLAIN = frozenset({"http", "https", "file"})


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Whose content is meant, where a source asks who reads it."""

    source_option: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="A credential for the source, as NAME=VALUE (token=…). May be repeated. Command lines can be "
            "seen by others on this machine: prefer the environment.",
        ),
    ] = field(default=(), repr=False)
    no_env_credentials: Annotated[
        bool,
        Parameter(negative=(), help="Do not take credentials from the environment (AWS_…, HF_TOKEN, …)."),
    ] = False


def request_headers(
    url: str,
    lines: tuple[str, ...],
    credentials: Credentials | None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The headers of a request for ``url``: those of ``--header``, and the credentials for its source.

    Those that are given by hand (``--source-option``, or an Authorization header) take the place of all that
    the environment holds. Raises UsageError, which never repeats a value.
    """
    headers = parse_headers(lines)
    scheme = url.partition(":")[0].strip().lower()
    options = _options(credentials.source_option if credentials else ())
    if scheme in _PLAIN:
        if options:
            raise UsageError(f"{scheme}:// takes no --source-option: give --header 'Name: value'")
        return headers
    from cdn.sources.builtin import environment_credentials
    from cdn.sources.context import CREDENTIAL_PREFIX, credential_header

    by_hand = "authorization" in headers or any(name.startswith(CREDENTIAL_PREFIX) for name in headers)
    if not options and not by_hand and not (credentials and credentials.no_env_credentials):
        options = environment_credentials(scheme, environ)
    # a key file in JSON spans lines, which headers do not; between its words they mean nothing
    return headers | {credential_header(n): " ".join(v.splitlines()) for n, v in options.items()}


def _options(written: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for line in written:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _NAME.fullmatch(name):
            # the line may hold a secret: it is not repeated
            raise UsageError("a --source-option has no name and '=': write it as NAME=VALUE")
        if not value:
            raise UsageError(f"--source-option {name} has no value: is a variable unset?")
        options[name] = value
    return options
