"""From arguments to an exit code: every way a command can end, in one place.

==========  ====================================================================
0           done
1           failed: one sentence on stderr with the cause and what to do
2           wrong usage: one sentence on stderr
128 + n     ended by signal n (130: Ctrl-C, 141: the reader of stdout went away)
==========  ====================================================================
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from shared.errors import DragonetError

if TYPE_CHECKING:
    from cyclopts import CycloptsError

T = TypeVar("T")


class UsageError(Exception):
    """The command was written wrongly; the message is one sentence that says how to write it."""


class Interrupted(Exception):
    """A signal ended the command; everything it had begun is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def execute(arguments: Sequence[str] | None = None) -> int:
    """Parse and run one command line (default: the process's own). Never raises."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(tokens)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # nobody reads any more; keep the interpreter from complaining when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - the end of every error is a sentence and an exit code
        return _report(innermost(error), verbose="--verbose" in tokens)


def _run(tokens: list[str]) -> int:
    from peer.cli.quick import quick

    known = quick(tokens)
    if known is not None:
        from peer.cli.get import get

        return get(known.pop("url"), **known)
    from cyclopts import CycloptsError

    from peer.cli.app import app

    try:
        result = app(tokens, print_error=False, exit_on_error=False, result_action="return_value")
    except CycloptsError as error:
        raise UsageError(_usage(error)) from error
    return result if isinstance(result, int) else 0


def _report(error: BaseException, *, verbose: bool) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, Interrupted):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if verbose:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, UsageError):
        complain(str(error))
        return 2
    if isinstance(error, DragonetError):
        complain(str(error) or type(error).__name__)
    else:
        complain(
            f"internal error, {type(error).__name__}: {error}"
            + ("" if verbose else " (--verbose shows where)")
        )
    return 1


def complain(sentence: str) -> None:
    """One line on stderr; control characters of what others said are made visible."""
    try:
        print(f"dragonet: {printable(sentence)}", file=sys.stderr, flush=True)
    except OSError:
        return  # stderr is gone: the exit code still tells


def printable(text: str) -> str:
    """The text on one line, with control characters of what others said made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def innermost(error: BaseException) -> BaseException:
    """What really happened, out of exception groups: the one error, or the most telling one of several."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [innermost(part) for part in error.exceptions]
    return min(leaves, key=_telling)


def _telling(error: BaseException) -> int:
    order = (Interrupted, KeyboardInterrupt, UsageError, DragonetError, BrokenPipeError)
    return next((rank for rank, kind in enumerate(order) if isinstance(error, kind)), len(order))


def run_role(main: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run a role, which hears signals itself and ends in good order."""
    import trio

    allow_open_files()
    gc.freeze()  # what is loaded by now stays, and is not looked through again
    gc.enable()
    trio.run(main, *arguments)


def allow_open_files() -> None:
    """Let this process open as many files as it may allow itself: each content in use takes two, each client one,
    and what is usual at first (1024) is meant for programs that use select()."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # then it is as it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_command(main: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run a command's async part; SIGINT, SIGTERM and SIGHUP cancel it, so that it cleans up, and raise
    :class:`Interrupted`. A second signal is not waited for: it does what it does to any program."""
    import trio

    heard: list[int] = []
    result: list[T] = []

    async def interruptible() -> None:
        async with trio.open_nursery() as nursery:

            async def hear(*, task_status: trio.TaskStatus[None]) -> None:
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                    task_status.started()
                    heard.append(await anext(aiter(signals)))
                nursery.cancel_scope.cancel()

            await nursery.start(hear)
            result.append(await main(*arguments))
            nursery.cancel_scope.cancel()

    gc.enable()
    trio.run(interruptible)
    if result:
        return result[0]
    raise Interrupted(heard[0])


def run_blocking(main: Callable[..., T], *arguments: object) -> T:
    """Run a command's part that needs no event loop; SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted` in
    it."""

    def hear(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before = {
        number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        return main(*arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _usage(error: CycloptsError) -> str:
    """What is wrong with a command line, and whose help tells how to write it."""
    from cyclopts import UnusedCliTokensError

    command = " ".join(("dragonet", *(error.command_chain or ())))
    words = " ".join(str(error).partition("Available commands:")[0].split()).rstrip(".")
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        words = f"`{command}` does not know what to do with {' '.join(error.unused_tokens)!r}"
    return f"{words} (`{command} --help` shows how)"
