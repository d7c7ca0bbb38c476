"""Sources in repositories of a Hugging Face hub: ``hf://OWNER/NAME[@REVISION]/PATH``, and the same below
``hf://datasets/`` and ``hf://spaces/``.

The hub answers for small files itself and redirects to a storage for large ones, whose SHA-256 it tells.
Facts are from the Hub API's documentation and from how its own client library reads answers.
"""

from __future__ import annotations

from cdn.sources.builtin import environment_credentials
from cdn.sources.context import SourceContext
from cdn.sources.huggingface.source import HuggingFaceSource
from shared.errors import ConfigError, InvalidRequest
from shared.task.identity import normalize_url, redact_url

PUBLIC = "https://huggingface.co"


def open_source(context: SourceContext) -> HuggingFaceSource:
    """The client. Raises ConfigError when an option is wrong.

    Options: ``endpoint``, the hub's address (else ``HF_ENDPOINT``, else the public hub); ``token``, who reads
    (else ``HF_TOKEN``; without one, what everybody may read).
    """
    context.check_options(("endpoint", "token"))
    environment = environment_credentials(context.scheme, context.environ)
    endpoint = context.options.get("endpoint") or context.environ.get("HF_ENDPOINT") or PUBLIC
    token = context.options.get("token") or environment.get("token", "")
    if not token.isascii() or not token.isprintable():
        raise ConfigError("source.options.hf: the token holds what no token holds: copy it again")
    return HuggingFaceSource(context.web_source(), _checked(endpoint), token.strip())


def _checked(endpoint: str) -> str:
    try:
        url, credentials = normalize_url(endpoint)
    except InvalidRequest:
        url, credentials = "", ""
    if credentials or "?" in url or not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"source.options.hf: the endpoint {redact_url(endpoint)!r} is not an address: write it as {PUBLIC}"
        )
    return url.rstrip("/")
