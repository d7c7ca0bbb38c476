"""``dragonet lan`` with a daemon, without one, and on a terminal; sources and daemon are stand-ins."""

import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peer.cli import lan as command
from peer.cli import main
from peer.cli.lan_screen import LanScreen
from peer.client import LocalClient
from peer.config import Config
from peer.lan import looking
from peer.lan.views import HostView, LanView
from shared.errors import Unavailable

HERE = HostView(id="a", name="anna", role="peer", address="10.0.0.1:65002", state="present", member=True)
BERT = HostView(id="b", name="bert", role="peer", address="10.0.0.2:65002", state="present", member=True)
VIEW = LanView(here=HERE, mode="ring", hosts=(BERT,))


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DRAGONET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DRAGONET_CONFIG", "")
    monkeypatch.setenv("DRAGONET_LAN_MDNS", "false")
    monkeypatch.setenv("DRAGONET_PEER_SOCKET", str(tmp_path / "dragonet.sock"))
    monkeypatch.chdir(tmp_path)


class Eyes:
    """What is seen: a daemon's, or the command's own. After ``views`` views ``end`` happens."""

    def __init__(self, views: int = 1, end: BaseException | None = None) -> None:
        self.probes: list[bool] = []
        self.end = end
        self._views = views

    async def view(self, probe: bool) -> LanView:
        if len(self.probes) == self._views and self.end is not None:
            raise self.end
        self.probes.append(probe)
        return VIEW

    def as_daemon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def ask(_client: LocalClient, *, probe: bool) -> LanView:
            return await self.view(probe)

        monkeypatch.setattr(LocalClient, "lan", ask)

    def as_looker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @asynccontextmanager
        async def opened(_config: Config) -> AsyncIterator[Eyes]:
            yield self

        monkeypatch.setattr(looking, "open_looker", opened)


def test_the_daemon_tells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    eyes = Eyes()
    eyes.as_daemon(monkeypatch)
    assert main(["lan"]) == 0
    shown = capsys.readouterr()
    assert "a ring of 2" in shown.out
    assert "bert" in shown.out
    assert shown.err == ""
    assert main(["lan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [told["mode"], told["here"]["name"], told["hosts"][0]["id"]] == ["ring", "anna", "b"]
    assert eyes.probes == [True, True]


def test_without_a_daemon_it_looks_for_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Eyes().as_looker(monkeypatch)
    assert main(["lan"]) == 0
    shown = capsys.readouterr()
    assert "bert" in shown.out
    assert shown.err.startswith("dragonet: no dragonet daemon answers on ")
    assert shown.err.endswith("this command looks for itself\n")
    assert main(["lan", "--socket", "other.sock"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no dragonet daemon answers on other.sock" in shown.err


def test_watching_where_no_terminal_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "INTERVAL", 0.0)
    eyes = Eyes(7, Unavailable("the daemon went\x1b away"))
    eyes.as_daemon(monkeypatch)
    assert main(["lan", "--watch"]) == 1
    shown = capsys.readouterr()
    assert [json.loads(line)["mode"] for line in shown.out.splitlines()] == ["ring"] * 7
    assert shown.err == "dragonet: the daemon went\\x1b away\n"
    assert eyes.probes == [True, False, False, False, False, True, False]


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(_view: LanView) -> None:
        raise BrokenPipeError

    eyes = Eyes()
    eyes.as_daemon(monkeypatch)
    monkeypatch.setattr(command, "_print_json", hang_up)
    config = Config()
    assert isinstance(trio.run(command._watch, config, False, True), BrokenPipeError)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("LINES", "6")
    terminal = Terminal()
    with LanScreen(terminal, lambda: 0.0) as draw:
        draw(VIEW)
        draw(VIEW)
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[?1049h")  # the alternate screen, and back
    assert shown.rstrip("\r\n").endswith(("\x1b[?1049l", "\x1b[?25h"))
    assert "bert" in shown
    assert "Ctrl-C" not in shown  # the terminal has 6 lines only


def test_the_terminal_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", terminal)
    eyes = Eyes(2, KeyboardInterrupt())
    eyes.as_daemon(monkeypatch)
    monkeypatch.setattr(command, "INTERVAL", 0.0)
    assert main(["lan", "--watch"]) == 130
    assert terminal.getvalue().count("\x1b[?1049h") == 1
    assert "\x1b[?1049l" in terminal.getvalue()
