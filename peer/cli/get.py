"""``dragonet get``: download through the local daemon, or, where none runs, as a one-shot peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from peer.cli.credentials import Credentials, request_headers
from peer.cli.execution import UsageError, run_command
from peer.cli.options import Common, load
from peer.cli.output import OutputFile
from peer.cli.parameter import Parameter
from peer.cli.progress import SOURCES, Display, choose_display, describe_sources
from shared.errors import DeadlineExceeded, InvalidRequest
from shared.task.identity import make_spec
from shared.units import format_duration, format_rate, format_size, parse_duration, parse_rate

if TYPE_CHECKING:
    from peer.config import Config
    from peer.orders import DownloadDone, DownloadOrder

T = TypeVar("T")

DEFAULT_LEVEL = 5
LATE = 2.0
"""Seconds after ``--timeout`` for which an answer of the daemon is still waited for."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A whole folder, and what of it."""

    recursive: Annotated[
        bool, Parameter(name=["--recursive", "-r"], negative=(), help="All files below URL, a folder.")
    ] = False
    include: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(),
            help="With -r: only files that GLOB matches: its last name, or with a slash in GLOB its path below "
            "URL (** for any folders). May be repeated.",
        ),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Parameter(negative=(), help="With -r: no files and folders that GLOB matches. May be repeated."),
    ] = ()
    level: Annotated[
        int | None,
        Parameter(
            help=f"With -r: so many folders deep, 1 for one folder, 0 for all (default {DEFAULT_LEVEL})."
        ),
    ] = None
    list: Annotated[bool, Parameter(negative=(), help="With -r: print the URLs, and download nothing.")] = (
        False
    )

    def text(self) -> str:
        """What is wanted of the folder, as the daemon is told; "" for a file. Raises UsageError."""
        if not self.recursive:
            if self.include or self.exclude or self.list or self.level is not None:
                raise UsageError("--include, --exclude, --level and --list go with -r")
            return ""
        from peer.cli.tree import tree_text

        level = DEFAULT_LEVEL if self.level is None else self.level
        return tree_text(level, self.include, self.exclude, contents=not self.list)


def get(
    url: Annotated[str, Parameter(help="What to download.")],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="File to write, renamed into place when complete; with -r the folder to fill.",
        ),
    ] = None,
    tree: Tree | None = None,
    socket: Annotated[Path | None, Parameter(help="Unix socket of the daemon.")] = None,
    digest: Annotated[str, Parameter(help="Digest that the content must have, as sha256:HEX.")] = "",
    header: Annotated[
        tuple[str, ...], Parameter(negative=(), help="'Name: value' for the origin. May be repeated.")
    ] = (),
    range_: Annotated[str, Parameter(name="--range", help="Only bytes A-B, both inclusive.")] = "",
    tag: Annotated[str, Parameter(help="Keeps contents of the same URL apart.")] = "",
    application: Annotated[str, Parameter(help="Whose content it is; keeps it apart as a tag does.")] = "",
    filter_: Annotated[
        str, Parameter(name="--filter", help="Query parameters that do not change the content, as 'a&b'.")
    ] = "",
    no_origin: Annotated[
        bool, Parameter(negative=(), help="Only from the cluster; fail rather than read the origin.")
    ] = False,
    timeout: Annotated[str, Parameter(help="Give up after so many seconds (30, 5m).")] = "",
    limit: Annotated[str, Parameter(help="Receive at most so much, as 20MiB/s.")] = "",
    json: Annotated[bool, Parameter(negative=(), help="End with one JSON object on stdout.")] = False,
    credentials: Credentials | None = None,
    options: Common | None = None,
) -> int:
    """Download URL to a file, or with -r all that lies below it to a folder: from the cluster where it is
    there, else from its origin."""
    tree = tree or Tree()
    if output is None and not tree.list:
        raise UsageError("--output requires an argument: the file to write, or with -r the folder to fill")
    order = make_order(
        url,
        headers=request_headers(url, header, credentials),
        digest=digest,
        byte_range=range_,
        tag=tag,
        application=application,
        filtered=filter_,
        no_origin=no_origin,
        limit=limit,
        timeout=timeout,
        hash_content=json,
        tree=tree.text(),
    )
    config = load(options, {"peer.socket": socket}).config
    verbose = options is not None and options.verbose
    if tree.recursive:
        from peer.cli.tree import get_folder, list_folder

        if tree.list:
            return list_folder(config, order, json=json, verbose=verbose)
        assert output is not None
        return get_folder(config, order, output, json=json, verbose=verbose)
    assert output is not None
    with OutputFile(output) as file:
        display = choose_display(output.name, silent=json)
        try:
            result = run_command(_download, config, order, file.fd, display, verbose)
        finally:
            display.close()
        file.commit()
    if json:
        print(result_json(result))
    else:
        print(describe_result(output, result))
    return 0


async def _download(
    config: Config, order: DownloadOrder, fd: int, display: Display, verbose: bool
) -> DownloadDone:
    import trio

    from peer.client import LocalClient, NoDaemon

    # whoever downloads keeps the time limit; this one is for a daemon that does not answer at all
    with trio.move_on_after(float("inf") if order.timeout is None else order.timeout + LATE):
        try:
            return await LocalClient(config.peer.socket).download(order, fd, display.update)
        except NoDaemon:
            from peer.oneshot import download_once
            from shared.logging import configure

            # this process is a daemon for a moment, but its user asked for a file, not for a log
            configure("debug" if verbose else "error", config.log.format)
            return await download_once(config, order, fd, display.update)
    raise DeadlineExceeded(
        f"not complete after {format_duration(order.timeout or 0)}: give a longer --timeout; "
        "what came already is kept"
    )


def make_order(
    url: str,
    *,
    headers: Mapping[str, str],
    digest: str,
    byte_range: str,
    tag: str,
    application: str,
    filtered: str,
    no_origin: bool,
    limit: str,
    timeout: str,
    hash_content: bool,
    tree: str = "",
) -> DownloadOrder:
    """What the daemon is asked for. Raises UsageError when any of it is written wrongly."""
    from peer.orders import DownloadOrder

    named = dict(headers)
    names = tuple(name for name in filtered.split("&") if name)
    if tree and (digest or byte_range):
        raise UsageError("-r takes a whole folder: leave --digest and --range out")
    try:
        make_spec(url, headers=named, tag=tag, application=application, byte_range=byte_range, filtered=names)
        if digest:
            from shared.task.digest import parse_content_digest

            digest = ":".join(parse_content_digest(digest))
    except InvalidRequest as error:
        raise UsageError(str(error)) from None
    return DownloadOrder(
        url=url,
        headers=named,
        tag=tag,
        application=application,
        range=byte_range,
        filtered=names,
        digest=digest,
        no_origin=no_origin,
        timeout=_timeout(timeout) if timeout else None,
        limit=_written("--limit", limit, parse_rate) if limit else 0,
        hash_content=hash_content and not tree,
        tree=tree,
    )


def result_json(result: DownloadDone) -> str:
    """The closing JSON object; ``bytes`` always names every source."""
    import msgspec

    return msgspec.json.encode(
        {
            "task_id": result.task_id,
            "length": result.length,
            "sha256": result.sha256,
            "seconds": round(result.seconds, 6),
            "bytes": {source: result.bytes.get(source, 0) for source in SOURCES},
        }
    ).decode()


def describe_result(output: Path, result: DownloadDone) -> str:
    """The closing line for people."""
    rate = format_rate(result.length / result.seconds) if result.seconds > 0 else "at once"
    sources = describe_sources(result.bytes)
    return (
        f"{output}: {format_size(result.length)} in {format_duration(result.seconds)}, {rate}"
        + (f" ({sources})" if sources else "")
        + (f"\nsha256:{result.sha256}" if result.sha256 else "")
    )


def _timeout(text: str) -> float:
    seconds = _written("--timeout", text, parse_duration)
    if seconds <= 0:
        raise UsageError("--timeout must be more than 0 seconds")
    return seconds


def _written(option: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
