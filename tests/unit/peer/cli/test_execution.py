import os
import resource
import signal
import subprocess
import sys

import pytest
import trio

from peer.cli import app as commands
from peer.cli import main
from peer.cli.execution import (
    Interrupted,
    UsageError,
    allow_open_files,
    execute,
    innermost,
    run_command,
)
from shared.errors import ConfigError, DragonetError, SourceError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Makes the command line raise what it is told to."""

    def install(error: BaseException) -> None:
        def run(*_arguments: object, **_options: object) -> None:
            raise error

        monkeypatch.setattr(commands, "app", run)

    return install


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("up", "scheduler", "seeder", "peer", "get", "stat", "ls", "rm", "config", "version"):
        assert f" {command} " in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gat"], "Did you mean"),
        (["get"], "requires an argument"),
        (["get", "http://h/x"], "--output requires"),
        (["get", "http://h/x", "-o", "x", "--jsn"], "Did you mean --json"),
        (["get", "h/x", "-o", "x"], "has no scheme"),
        (["get", "http://h/x", "-o", "x", "--digest", "md5:3"], "use sha256"),
        (["get", "http://h/x", "-o", "x", "--range", "9-1"], "ends before it begins"),
        (["get", "http://h/x", "-o", "x", "--header", "hunter2"], "'Name: value'"),
        (["get", "http://h/x", "-o", "x", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["get", "http://h/x", "-o", "x", "--timeout", "0"], "more than 0"),
        (["get", "http://h/x", "-o", "x", "--limit", "slow"], "20MiB/s"),
        (["get", "http://h/x", "-o", "/"], "is a folder"),
        (["get", "http://h/x", "-o", "/dev/null"], "not a regular file"),
        (["config", "--set", "quota"], "SECTION.KEY=VALUE"),
        (["peer", "--log-level", "loud"], "Choose from"),
        (["ls", "extra"], "`dragonet ls` does not know what to do with 'extra' (`dragonet ls --help`"),
        (["runtime", "undo", "x"], "`dragonet runtime` does not know what to do with 'undo x'"),
        (
            ["runtime", "configure"],
            "RUNTIME requires an argument (`dragonet runtime configure --help` shows how)",
        ),
        (["nonsense"], 'Unknown command "nonsense" (`dragonet --help` shows how)'),
        (["stat", "662c42166d02"], "662c42166d02 is only the beginning of a task id"),
    ],
)
def test_wrong_usage_is_one_sentence_and_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert "hunter2" not in shown.err
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("dragonet: ")


def test_errors_are_one_sentence_and_1(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(SourceError("http://h/x answered 404: check the URL", origin_status=404))
    assert execute(["version"]) == 1
    assert capsys.readouterr().err == "dragonet: http://h/x answered 404: check the URL\n"


def test_verbose_shows_where(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(DragonetError("broken: mend it"))
    assert execute(["version", "--verbose"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("dragonet: broken: mend it\n")


def test_what_nobody_expected_is_a_sentence_too(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyError("x"))
    assert execute(["version"]) == 1
    assert capsys.readouterr().err == "dragonet: internal error, KeyError: 'x' (--verbose shows where)\n"


def test_control_characters_of_others_are_made_visible(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(DragonetError("the origin said \x1b[31m\nall is well"))
    execute(["version"])
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert shown.count("\n") == 1


def test_ctrl_c_and_signals(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert execute(["version"]) == 130
    failing(Interrupted(signal.SIGTERM))
    assert execute(["version"]) == 143
    assert capsys.readouterr().err == ""


def test_a_reader_that_went_away_is_silent() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "peer.cli", "version"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


def test_the_telling_error_is_taken_out_of_groups() -> None:
    cause = ConfigError("x")
    assert innermost(cause) is cause
    assert innermost(ExceptionGroup("", [ExceptionGroup("", [cause])])) is cause
    assert innermost(ExceptionGroup("", [ValueError(), ExceptionGroup("", [cause]), OSError()])) is cause
    stop = KeyboardInterrupt()
    assert innermost(BaseExceptionGroup("", [cause, stop])) is stop


def test_a_command_gives_its_result() -> None:
    async def add(one: int, other: int) -> int:
        return one + other

    assert run_command(add, 1, 2) == 3


def test_a_signal_cancels_a_command_which_cleans_up() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()
        finally:
            steps.append("cleaned up")

    with pytest.raises(Interrupted) as caught:
        run_command(work)
    assert caught.value.number == signal.SIGTERM
    assert steps == ["cleaned up"]


def test_what_a_command_raises_is_found() -> None:
    async def work() -> None:
        raise UsageError("x")

    with pytest.raises(BaseExceptionGroup) as caught:
        run_command(work)
    assert isinstance(innermost(caught.value), UsageError)


@pytest.fixture
def few_files():
    """A process that may open fewer files than it is allowed to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_roles_may_open_as_many_files_as_they_are_allowed_to(few_files: int) -> None:
    allow_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_files, few_files)


def test_a_limit_of_open_files_that_cannot_be_raised_is_lived_with(
    few_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refused)
    allow_open_files()
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] < few_files
