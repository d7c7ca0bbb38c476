"""``dragonet preheat`` and ``preheats``: have content brought to machines before anybody asks for it.

A preheat is carried out by the scheduler and the hosts. The command only watches it: when it is interrupted,
the preheat goes on.
"""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from peer.cli.credentials import Credentials, request_headers
from peer.cli.execution import Interrupted, UsageError, complain, printable, run_command
from peer.cli.options import Common, load
from peer.cli.progress import TreeDisplay, TreeProgress, describe_sources
from shared.errors import InvalidRequest, Unavailable
from shared.units import format_duration, format_rate, format_size, parse_duration

if TYPE_CHECKING:
    from peer.config import Config
    from peer.preheat_client import PreheatClient
    from scheduler.preheat_orders import PreheatAsked

OVER = frozenset({"succeeded", "partial", "failed", "cancelled"})
FIRST_LOOK, LAST_LOOK = 0.1, 1.0
"""Seconds between two looks at a preheat."""
PATIENCE = 30.0
"""Seconds for which a scheduler may not answer while a preheat is watched."""
_IMAGE_SCHEMES = ("oci://", "docker://")

SchedulerUrl = Annotated[str | None, Parameter(name="--scheduler", help="URL of the scheduler.")]
Token = Annotated[
    str | None,
    Parameter(
        help="What the scheduler wants to be shown (its scheduler.preheat_token). Command lines can be seen by "
        "others on this machine: prefer DRAGONET_SCHEDULER_PREHEAT_TOKEN."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Login(Credentials):
    """Who may have what is to be brought."""

    header: Annotated[
        tuple[str, ...], Parameter(negative=(), help="'Name: value' for the origin. May be repeated.")
    ] = ()
    username: Annotated[str, Parameter(help="User at the registry or origin.")] = ""
    password_file: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True, help="File with the user's password or token; - reads it from stdin."
        ),
    ] = None


def preheat(
    what: Annotated[str, Parameter(name="WHAT", help="An image by its name, or a URL.")],
    /,
    *,
    to: Annotated[
        str,
        Parameter(help="Which hosts: seeders, all, a share of all as 25%, or a number of them."),
    ] = "seeders",
    platform: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="Only this platform of an image (linux/amd64). May be repeated."),
    ] = (),
    tag: Annotated[str, Parameter(help="As given to get.")] = "",
    application: Annotated[str, Parameter(help="As given to get.")] = "",
    filter_: Annotated[str, Parameter(name="--filter", help="As given to get.")] = "",
    timeout: Annotated[str, Parameter(help="Give up after so long (30, 5m).")] = "",
    no_wait: Annotated[
        bool, Parameter(negative=(), help="Return as soon as the preheat is ordered.")
    ] = False,
    json: Annotated[bool, Parameter(negative=(), help="End with one JSON object on stdout.")] = False,
    scheduler: SchedulerUrl = None,
    token: Token = None,
    login: Login | None = None,
    options: Common | None = None,
) -> int:
    """Have an image, or the content of a URL, brought to hosts before anybody asks for it, and wait for it."""
    asked = make_request(
        what,
        to=to,
        platforms=platform,
        tag=tag,
        application=application,
        filtered=filter_,
        timeout=timeout,
        login=login,
    )
    config = load(options, {"host.scheduler": scheduler, "scheduler.preheat_token": token}).config
    display = TreeDisplay(silent=json or no_wait, describe=describe_progress)
    watch = _Watch(config, asked, wait=not no_wait, display=display)
    try:
        job = run_command(watch.run)
    except Interrupted:
        if watch.number and not json:
            complain(f"preheat {watch.number} goes on: `dragonet preheats {watch.number} --cancel` ends it")
        raise
    finally:
        display.close()
    if json:
        print(_json(job))
    elif no_wait:
        print(f"preheat {job['id']} is ordered: `dragonet preheats {job['id']}` shows how far it is")
    else:
        _tell(job)
    return int(job["state"] in OVER and job["state"] != "succeeded")


def preheats(
    number: Annotated[int | None, Parameter(name="ID", help="Show this one, with all that failed.")] = None,
    /,
    *,
    cancel: Annotated[bool, Parameter(negative=(), help="End it; what was brought stays.")] = False,
    json: Annotated[bool, Parameter(negative=(), help="As JSON.")] = False,
    scheduler: SchedulerUrl = None,
    token: Token = None,
    options: Common | None = None,
) -> None:
    """List the preheats that the scheduler knows, or show or cancel one of them."""
    config = load(options, {"host.scheduler": scheduler, "scheduler.preheat_token": token}).config
    if number is None:
        if cancel:
            raise UsageError("--cancel wants the id of a preheat: `dragonet preheats` lists them")
        listed = run_command(_listing, config)
        for line in [_json(listed)] if json else preheat_table(listed):
            print(line)
        return
    job = run_command(_one, config, number, cancel)
    if json:
        print(_json(job))
    else:
        print(describe_preheat(job))


# --- requests ----------------------------------------------------------------------------------------


def make_request(
    what: str,
    *,
    to: str,
    platforms: tuple[str, ...],
    tag: str,
    application: str,
    filtered: str,
    timeout: str,
    login: Login | None,
) -> PreheatAsked:
    """What the scheduler is asked for. Raises UsageError when any of it is written wrongly."""
    from scheduler.preheat_orders import PreheatAsked, order_of

    is_image = "://" not in what or what.lower().startswith(_IMAGE_SCHEMES)
    url = "oci://image" if is_image else what
    login = login or Login()
    headers = request_headers(url, login.header, login) | _password(login)
    seconds: float | None = None
    try:
        if timeout:
            seconds = parse_duration(timeout)
        asked = PreheatAsked(
            image=what if is_image else "",
            url="" if is_image else what,
            platforms=platforms,
            to=to,
            headers=headers,
            tag=tag,
            application=application,
            filtered=tuple(name for name in filtered.split("&") if name),
            timeout=seconds,
        )
        order_of(asked)
        if is_image:
            from cdn.images.names import parse_image
            from cdn.images.platforms import parse_platform

            parse_image(what)
            for one in platforms:
                parse_platform(one)
    except (InvalidRequest, ValueError) as error:
        raise UsageError(str(error)) from None
    return asked


def _password(login: Login) -> dict[str, str]:
    if not login.username and login.password_file is None:
        return {}
    if not login.username or login.password_file is None:
        raise UsageError("--username and --password-file go together")
    try:
        if str(login.password_file) == "-":
            password = sys.stdin.readline()
        else:
            password = login.password_file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--password-file {login.password_file} cannot be read: {error}") from None
    shown = base64.b64encode(f"{login.username}:{password.strip()}".encode()).decode()
    return {"authorization": f"Basic {shown}"}


class _Watch:
    """Orders a preheat and waits for its end; ``number`` is its id once it is known."""

    def __init__(self, config: Config, asked: PreheatAsked, *, wait: bool, display: TreeDisplay) -> None:
        self._config = config
        self._asked = asked
        self._wait = wait
        self._display = display
        self.number = 0

    async def run(self) -> dict[str, Any]:
        from shared.http.client import HttpClient
        from shared.task.identity import redact_url

        async with HttpClient() as http:
            asked = self._asked
            private = bool(asked.headers) or redact_url(asked.url) != asked.url
            client = await _client(self._config, http, private)
            job = await client.begin(asked)
            self.number = job["id"]
            return await self._watched(client) if self._wait else job

    async def _watched(self, client: PreheatClient) -> dict[str, Any]:
        import trio

        pause, heard = FIRST_LOOK, trio.current_time()
        while True:
            try:
                job = await client.show(self.number)
            except Unavailable as error:
                if trio.current_time() - heard > PATIENCE:
                    raise Unavailable(f"{error}; preheat {self.number} may go on without it") from None
            else:
                heard = trio.current_time()
                if job["state"] in OVER:
                    return job
                self._display.update(progress_of(job))
            await trio.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK)


async def _listing(config: Config) -> list[dict[str, Any]]:
    from shared.http.client import HttpClient

    async with HttpClient() as http:
        return await (await _client(config, http)).listing()


async def _one(config: Config, number: int, cancel: bool) -> dict[str, Any]:
    from shared.http.client import HttpClient

    async with HttpClient() as http:
        client = await _client(config, http)
        if cancel:
            await client.cancel(number)
        return await client.show(number)


async def _client(config: Config, http: Any, credentials: bool = False) -> PreheatClient:
    """``credentials``: the scheduler is to be told some."""
    from peer.cli.choosing import scheduler_for
    from peer.preheat_client import PreheatClient

    token = config.scheduler.preheat_token
    return PreheatClient(await scheduler_for(config, secrets=credentials or bool(token)), token, http)


# --- words -------------------------------------------------------------------------------------------


def progress_of(job: dict[str, Any]) -> TreeProgress:
    """How far a preheat is, as the display takes it; ``total`` -1 while it is not known what there is."""
    contents, counts = job["contents"], job["bytes"]
    return TreeProgress(
        files=contents["done"] + contents["failed"],
        total=contents["total"] or -1,
        length=counts["done"],
        expected=counts["total"] or -1,
        bytes=counts["by_source"],
    )


def describe_progress(progress: TreeProgress, rate: float) -> str:
    """One plain line."""
    if progress.total < 0:
        return "finding out what is to be brought"
    expected = f" of {format_size(progress.expected)}" if progress.expected >= 0 else ""
    parts = [f"{progress.files} of {progress.total} contents", format_size(progress.length) + expected]
    parts.append(format_rate(rate))
    return ", ".join(parts)


def _tell(job: dict[str, Any]) -> None:
    """The closing lines for people."""
    for note in job["notes"]:
        print(printable(f"note: {note}"))
    if job["state"] == "succeeded":
        sources = describe_sources(job["bytes"]["by_source"])
        print(
            f"{job['what']}: {_contents(job)} at {_hosts(job['hosts'])} in {format_duration(job['seconds'])}"
            + (f" ({sources})" if sources else "")
        )
        return
    for failure in job["failures"]:
        complain(failure_line(failure))
    words = job["failure"] or f"the preheat was {job['state']}"
    if job["state"] == "partial":
        contents = job["contents"]
        words = f"{_wanted(job)}: {contents['failed']} of {contents['total']} could not be brought"
    complain(f"{job['what']}: {words}")


def failure_line(failure: dict[str, Any]) -> str:
    """What failed, where, and why."""
    named = ", ".join(failure["hosts"])
    more = failure["count"] - len(failure["hosts"])
    where = f"{named} and {more} more" if more else named
    return f"{failure['what']} at {where}: {failure['words']}"


def preheat_table(jobs: list[dict[str, Any]]) -> list[str]:
    """Lines of aligned columns; what was asked for, which may be long, comes last."""
    rows = [("ID", "STATE", "CONTENTS", "BYTES", "HOSTS", "ORDERED", "WHAT")]
    rows += [
        (
            str(job["id"]),
            job["state"],
            f"{job['contents']['done']}/{job['contents']['total']}",
            format_size(job["bytes"]["done"]),
            f"{job['hosts'] or '-'} ({job['to']})",
            _time(job["created"]),
            job["what"],
        )
        for job in jobs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return [printable("  ".join([*(row[c].ljust(widths[c]) for c in range(6)), row[6]])) for row in rows]


def describe_preheat(job: dict[str, Any]) -> str:
    """One preheat, a line for each fact."""
    facts = {
        "preheat": str(job["id"]),
        "what": job["what"],
        "platforms": ", ".join(job["platforms"]),
        "to": f"{job['to']} ({_hosts(job['hosts'])})" if job["hosts"] else job["to"],
        "state": job["state"],
        "contents": f"{_wanted(job)}: {_brought(job['contents'])}" if job["items"] else "",
        "bytes": f"{format_size(job['bytes']['done'])} of {format_size(job['bytes']['total'])}",
        "from": describe_sources(job["bytes"]["by_source"]),
        "private": "yes" if job["private"] else "",
        "ordered": _time(job["created"]),
        "ended": _time(job["ended"]) if job["ended"] is not None else "",
        "failure": job["failure"] or "",
    }
    lines = [f"{name + ':':<12}{value}" for name, value in facts.items() if value]
    lines += [f"note: {note}" for note in job["notes"]]
    lines += [f"failed: {failure_line(failure)}" for failure in job["failures"]]
    return "\n".join(map(printable, lines))


def _contents(job: dict[str, Any]) -> str:
    return "one content" if job["items"] == 1 else f"{job['items']} contents"


def _wanted(job: dict[str, Any]) -> str:
    return f"{_contents(job)} for {_hosts(job['hosts'])}"


def _brought(contents: dict[str, int]) -> str:
    """How far they are; each counts once for each host."""
    words = [f"{contents['done']} of {contents['total']} brought"]
    words += [f"{contents['running']} under way"] if contents["running"] else []
    words += [f"{contents['failed']} failed"] if contents["failed"] else []
    return ", ".join(words)


def _hosts(count: int) -> str:
    return "one host" if count == 1 else f"{count} hosts"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
