"""What people and programs ask for when they preheat, and what is made of it. Pure, but not quick: a scope is
derived from credentials slowly, on purpose."""

from __future__ import annotations

import re
from math import isfinite

import msgspec

from scheduler.preheats import PreheatOrder, Targets
from shared.errors import InvalidRequest
from shared.task.identity import make_spec, redact_url

MAX_IMAGE = 1024
MAX_PLATFORMS = 32
MAX_COUNT = 100_000
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}/[a-z0-9][a-z0-9._-]{0,31}(/[a-z0-9][a-z0-9._-]{0,31})?")
_SHARE = re.compile(r"([0-9]{1,3})%")
_COUNT = re.compile(r"[0-9]{1,6}")


class PreheatAsked(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/preheats``: an ``image`` by its name, or a ``url``.

    ``to``: "seeders", "all", "N%" of all hosts, or so many hosts. ``platforms`` as "os/architecture[/variant]",
    none for all of an image. ``headers`` go to the origin; ``timeout`` is in seconds.
    """

    image: str = ""
    url: str = ""
    platforms: tuple[str, ...] = ()
    to: str = "seeders"
    headers: dict[str, str] = {}
    tag: str = ""
    application: str = ""
    filtered: tuple[str, ...] = ()
    timeout: float | None = None

    def __repr__(self) -> str:
        return f"<PreheatAsked {self.image or redact_url(self.url)} to {self.to}>"


def order_of(asked: PreheatAsked) -> PreheatOrder:
    """The order, checked. Raises InvalidRequest."""
    targets = parse_targets(asked.to)
    if bool(asked.image) == bool(asked.url):
        raise InvalidRequest("a preheat is of an image or of a URL: give one of them")
    if asked.timeout is not None and not (isfinite(asked.timeout) and asked.timeout > 0):
        raise InvalidRequest("the timeout must be more than 0 seconds")
    if asked.image:
        if asked.tag or asked.application or asked.filtered:
            raise InvalidRequest("an image has no tag, application or filter of the swarm: leave them out")
        return image_order(asked.image, asked.platforms, targets, asked.headers, asked.timeout)
    if asked.platforms:
        raise InvalidRequest("only an image has platforms: leave them out for a URL")
    return url_order(
        (asked.url,),
        targets,
        asked.headers,
        asked.timeout,
        tag=asked.tag,
        application=asked.application,
        filtered=asked.filtered,
    )


def image_order(
    image: str,
    platforms: tuple[str, ...],
    targets: Targets,
    headers: dict[str, str],
    timeout: float | None,
) -> PreheatOrder:
    """An order for an image. Raises InvalidRequest."""
    image = image.strip()
    if len(image) > MAX_IMAGE or not image.isprintable() or " " in image:
        raise InvalidRequest(f"the name of an image has up to {MAX_IMAGE} characters, and no spaces")
    if len(platforms) > MAX_PLATFORMS:
        raise InvalidRequest(f"at most {MAX_PLATFORMS} platforms may be asked for")
    wanted = tuple(dict.fromkeys(platform.strip().lower() for platform in platforms))
    for platform in wanted:
        if not _PLATFORM.fullmatch(platform):
            raise InvalidRequest(f"{platform!r} is not a platform: write it as linux/amd64 or linux/arm/v7")
    _, private = make_spec("oci://registry/name", headers=headers)
    return PreheatOrder(
        shown=image, image=image, platforms=wanted, targets=targets, headers=private, timeout=timeout
    )


def url_order(
    urls: tuple[str, ...],
    targets: Targets,
    headers: dict[str, str],
    timeout: float | None,
    *,
    tag: str = "",
    application: str = "",
    filtered: tuple[str, ...] = (),
) -> PreheatOrder:
    """An order for files, at least one. Raises InvalidRequest."""
    made = [
        make_spec(url, headers=headers, tag=tag, application=application, filtered=filtered) for url in urls
    ]
    private = made[0][1]
    if any(other != private for _, other in made):
        raise InvalidRequest("only one of the URLs has a user in it: give each a preheat of its own")
    shown = redact_url(made[0][0].url)
    return PreheatOrder(
        shown=shown if len(made) == 1 else f"{shown} and {len(made) - 1} more",
        specs=tuple(spec for spec, _ in made),
        targets=targets,
        headers=private,
        timeout=timeout,
    )


def parse_targets(text: str) -> Targets:
    """Which hosts: "seeders", "all", "N%", or a number of hosts. Raises InvalidRequest."""
    text = text.strip().lower()
    if text == "seeders":
        return Targets("seeders")
    if text == "all":
        return Targets("all")
    share = _SHARE.fullmatch(text)
    if share is not None and 1 <= int(share[1]) <= 100:
        return Targets("all", percent=int(share[1]))
    if _COUNT.fullmatch(text) and 1 <= int(text) <= MAX_COUNT:
        return Targets("all", count=int(text))
    raise InvalidRequest(
        f"{text[:64]!r} does not tell which hosts: write seeders, all, a share such as 25%, or a number of hosts"
    )
