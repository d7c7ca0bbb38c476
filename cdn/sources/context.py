"""What a built-in source is made from, and where its credentials come from.

Credentials come from three places: the configuration (``source.options``), the environment of a daemon, and
the request itself, as headers ``x-dragonet-source-NAME``. Those of a request replace all others, keep its
content apart from everybody else's (they give the task a scope) and never leave the host that was given
them. A request carries credentials only: places (endpoints, name nodes) come from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdn.sources.interface import SourceRequest
from shared.errors import ConfigError, SourceError

if TYPE_CHECKING:  # the command line asks for names only, and is to start quickly
    from cdn.config import SourceConfig
    from cdn.policy import SourcePolicy
    from cdn.sources.http import HttpSource
    from shared.http.client import HttpClient

CREDENTIAL_PREFIX = "x-dragonet-source-"
"""Of the request headers that carry credentials: ``x-dragonet-source-secret-access-key`` and so on."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the client of one scheme may use.

    ``options`` are the scheme's from the configuration; ``environ`` is empty where the environment belongs
    to a caller and not to the host. ``http`` is closed by whoever made it.
    """

    scheme: str
    http: HttpClient
    policy: SourcePolicy
    config: SourceConfig
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def web_policy(self) -> SourcePolicy:
        """What holds for http:// and https:// below a scheme whose content is had that way: which schemes a
        URL may have (``source.schemes``) does not matter there, which addresses are denied does."""
        from cdn.policy import SourcePolicy

        return SourcePolicy(("http", "https"), self.config.denied_addresses)

    def web_source(self) -> HttpSource:
        """A reader of http:// and https:// for such a scheme."""
        from cdn.sources.http import HttpSource

        return HttpSource(self.http, self.web_policy(), self.config)

    def check_options(self, known: Iterable[str]) -> None:
        """Raises ConfigError when an option is none of ``known``."""
        allowed = sorted(known)
        for name in self.options:
            if name not in allowed:
                raise ConfigError(
                    f"source.options.{self.scheme} has no option {name!r}: there are {', '.join(allowed)}"
                )


def request_credentials(request: SourceRequest, known: Iterable[str]) -> dict[str, str]:
    """The credentials that a request carries, by name with "_"; {} for none.

    Raises SourceError (fault "request") when it carries one that is none of ``known``.
    """
    allowed = set(known)
    found = {
        name.lower().removeprefix(CREDENTIAL_PREFIX).replace("-", "_"): value
        for name, value in request.headers.items()
        if name.lower().startswith(CREDENTIAL_PREFIX)
    }
    for name in found:
        if name not in allowed:
            raise SourceError(
                f"a request cannot carry the source option {name!r}: it may carry "
                f"{', '.join(sorted(allowed)) or 'none'}; set others in source.options",
                fault="request",
            )
    return found


def credential_header(name: str) -> str:
    """The request header for the credential ``name``."""
    return CREDENTIAL_PREFIX + name.replace("_", "-").lower()
