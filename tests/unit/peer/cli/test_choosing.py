"""Which scheduler a command talks to."""

import msgspec
import pytest

from peer.cli.choosing import scheduler_for, scheduler_in
from peer.cli.execution import UsageError
from peer.client import LocalClient, NoDaemon
from peer.config import Config, HostConfig
from peer.lan.views import HostView, LanView, Mode
from shared.errors import Unavailable


def view(mode: Mode, *schedulers: str) -> LanView:
    return LanView(here=HostView(id="a", state="present"), mode=mode, schedulers=schedulers)


def test_the_daemons_own_may_be_told_everything() -> None:
    assert scheduler_in(view("configured", "http://s:1"), secrets=True) == "http://s:1"
    assert scheduler_in(view("alone"), secrets=True) == ""


def test_one_that_was_found_is_told_no_secrets() -> None:
    found = view("scheduler", "http://s:1")
    assert scheduler_in(found, secrets=False) == "http://s:1"
    with pytest.raises(UsageError, match="http://s:1 was found on the network"):
        scheduler_in(found, secrets=True)


def test_of_several_one_must_be_named() -> None:
    with pytest.raises(UsageError, match="http://s:1, http://s:2"):
        scheduler_in(view("scheduler", "http://s:1", "http://s:2"), secrets=False)


def test_a_ring_has_none() -> None:
    with pytest.raises(Unavailable, match="preheats need a scheduler"):
        scheduler_in(view("ring"), secrets=False)


async def test_the_configured_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[LanView] = []

    async def lan(_client: LocalClient, *, probe: bool) -> LanView:
        assert not probe
        if not answers:
            raise NoDaemon("no daemon")
        return answers[0]

    monkeypatch.setattr(LocalClient, "lan", lan)
    config = Config()
    local = "http://127.0.0.1:8002"
    assert await scheduler_for(config, secrets=True) == local
    answers.append(view("scheduler", "http://found:1"))
    assert await scheduler_for(config, secrets=False) == "http://found:1"
    answers[0] = view("alone")
    assert await scheduler_for(config, secrets=False) == local
    told = msgspec.structs.replace(config, host=HostConfig(scheduler="http://told:1"))
    assert await scheduler_for(told, secrets=True) == "http://told:1"
