"""``dragonet stat``, ``ls`` and ``rm``: what the local daemon holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from peer.cli.credentials import Credentials, request_headers
from peer.cli.execution import UsageError, run_command
from peer.cli.options import Common, load
from shared.units import format_size

if TYPE_CHECKING:
    from peer.client import LocalClient
    from peer.orders import TaskQuery, TaskView

_SHORT_ID = re.compile(r"[0-9a-f]{12,63}")
"""As ``ls`` shows them."""

What = Annotated[str, Parameter(name="WHAT", help="URL or task id (64 hex digits).")]
Socket = Annotated[Path | None, Parameter(help="Unix socket of the daemon.")]
Json = Annotated[bool, Parameter(negative=(), help="As JSON.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Identity(Credentials):
    """What a request was made with besides its URL: the same must be given to mean the same content."""

    tag: Annotated[str, Parameter(help="As given to get.")] = ""
    application: Annotated[str, Parameter(help="As given to get.")] = ""
    range: Annotated[str, Parameter(help="As given to get.")] = ""
    filter: Annotated[str, Parameter(help="As given to get.")] = ""
    header: Annotated[tuple[str, ...], Parameter(negative=(), help="As given to get.")] = ()


def stat(
    what: What,
    /,
    *,
    json: Json = False,
    socket: Socket = None,
    identity: Identity | None = None,
    options: Common | None = None,
) -> None:
    """Show what the local daemon knows and holds of one content."""
    view = run_command(_client(socket, options).find, query_of(what, identity))
    print(_json(view) if json else describe_task(view))


def ls(*, json: Json = False, socket: Socket = None, options: Common | None = None) -> None:
    """List what the local daemon holds, most recently used first."""
    views = run_command(_client(socket, options).tasks)
    if json:
        print(_json(views))
        return
    for line in task_table(views):
        print(line)


def rm(
    what: What, /, *, socket: Socket = None, identity: Identity | None = None, options: Common | None = None
) -> None:
    """Remove one content from the local daemon's store, with what its source had earlier."""
    for view in run_command(_client(socket, options).remove, query_of(what, identity)):
        print(f"removed {view.task_id} ({format_size(view.held)})")


def query_of(what: str, identity: Identity | None) -> TaskQuery:
    """What is asked about. Raises UsageError."""
    from peer.orders import TaskQuery

    if _SHORT_ID.fullmatch(what):
        raise UsageError(f"{what} is only the beginning of a task id: `dragonet ls --json` has it whole")
    identity = identity or Identity()
    return TaskQuery(
        url=what,
        headers=request_headers(what, identity.header, identity),
        range=identity.range,
        tag=identity.tag,
        application=identity.application,
        filtered=tuple(name for name in identity.filter.split("&") if name),
    )


def _client(socket: Path | None, options: Common | None) -> LocalClient:
    from peer.client import LocalClient

    return LocalClient(load(options, {"peer.socket": socket}).config.peer.socket)


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def task_table(views: list[TaskView]) -> list[str]:
    """Lines of aligned columns; the URL, which may be long, comes last."""
    rows = [("TASK", "SIZE", "HELD", "USED", "URL")]
    rows += [
        (
            view.task_id[:12],
            "?" if view.length is None else format_size(view.length),
            _share(view),
            _time(view.accessed),
            view.url,
        )
        for view in views
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                row[1].rjust(widths[1]),
                row[2].rjust(widths[2]),
                row[3].ljust(widths[3]),
            ]
        )
        + f"  {row[4]}"
        for row in rows
    ]


def describe_task(view: TaskView) -> str:
    """One content, a line for each fact."""
    pieces = "?" if view.length is None else view.pieces
    facts = {
        "task": view.task_id,
        "url": view.url,
        "tag": view.tag,
        "application": view.application,
        "range": view.range,
        "length": "not known yet"
        if view.length is None
        else f"{view.length} bytes ({format_size(view.length)})",
        "held": f"{view.held} bytes, {view.pieces_held} of {pieces} pieces",
        "state": view.state,
        "superseded": "yes" if view.superseded else "",
        "pinned": "yes" if view.pinned else "no",
        "sha256": view.sha256,
        "etag": view.etag,
        "last modified": view.last_modified,
        "created": _time(view.created),
        "used": _time(view.accessed),
    }
    return "\n".join(f"{name + ':':<15}{value}" for name, value in facts.items() if value)


def _share(view: TaskView) -> str:
    if view.state == "complete":
        share = "all"
    else:
        share = f"{100 * view.held // view.length}%" if view.length else format_size(view.held)
    return share + ", old" * view.superseded


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
