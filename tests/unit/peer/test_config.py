import os
from pathlib import Path

import pytest

from peer import config as config_module
from peer.config import default_file, default_socket, load_config, local_url, scheduler_url
from shared.config.places import default_data_dir
from shared.errors import ConfigError


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user whose home folder this is."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config_module, "SYSTEM_FILE", tmp_path / "etc.toml")
    return tmp_path


def test_places_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    environ = {"XDG_DATA_HOME": "/x", "XDG_RUNTIME_DIR": "/y"}
    assert default_data_dir(environ) == Path("/var/lib/dragonet")
    assert default_socket(environ) == Path("/run/dragonet/dragonet.sock")


def test_places_of_users(user: Path) -> None:
    environ = {"XDG_DATA_HOME": "/x", "XDG_RUNTIME_DIR": "/y"}
    assert default_data_dir(environ) == Path("/x/dragonet")
    assert default_socket(environ) == Path("/y/dragonet.sock")
    assert default_data_dir({}) == user / ".local/share/dragonet"
    assert default_socket({}) == user / ".local/share/dragonet/dragonet.sock"
    assert default_data_dir({"XDG_DATA_HOME": "relative"}) == user / ".local/share/dragonet"


def test_the_users_file_comes_before_the_systems(user: Path) -> None:
    assert default_file({}) is None
    (user / "etc.toml").write_text("[log]\nlevel = 'error'\n")
    assert default_file({}) == user / "etc.toml"
    own = user / ".config/dragonet/dragonet.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[log]\nlevel = 'debug'\n")
    assert default_file({}) == own
    assert load_config(environ={}).config.log.level == "debug"


def test_the_file_that_is_named_wins(user: Path) -> None:
    (user / "etc.toml").write_text("[log]\nlevel = 'error'\n")
    (user / "one.toml").write_text("[log]\nlevel = 'debug'\n")
    (user / "two.toml").write_text("[log]\nlevel = 'warning'\n")
    environ = {"DRAGONET_CONFIG": str(user / "one.toml")}
    assert load_config(environ=environ).config.log.level == "debug"
    assert load_config(environ=environ, file=user / "two.toml").config.log.level == "warning"
    assert load_config(environ={"DRAGONET_CONFIG": ""}).config.log.level == "info"
    assert load_config(environ={}).config.log.level == "error"


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8002", "http://127.0.0.1:8002"),
        ("0.0.0.0:8002", "http://127.0.0.1:8002"),
        ("[::]:8002", "http://[::1]:8002"),
        ("10.0.0.1:80", "http://10.0.0.1:80"),
        (":8002", "http://127.0.0.1:8002"),
        ("*:8002", "http://127.0.0.1:8002"),
    ],
)
def test_the_way_to_the_own_listener(listen: str, url: str) -> None:
    assert local_url(listen) == url


def test_nothing_may_be_configured_of_schedulers_and_listeners(user: Path) -> None:
    empty = dict.fromkeys(("DRAGONET_HOST_SCHEDULER", "DRAGONET_PEER_LISTEN", "DRAGONET_SEEDER_LISTEN"), "")
    config = load_config(environ={"DRAGONET_CONFIG": "", **empty}).config
    assert (config.host.scheduler, config.peer.listen, config.seeder.listen) == ("", "", "")
    assert scheduler_url(config) == "http://127.0.0.1:8002"
    for name in (*empty, "DRAGONET_SCHEDULER_LISTEN"):
        with pytest.raises(ConfigError, match=r"write a URL|write HOST:PORT"):
            load_config(environ={"DRAGONET_CONFIG": "", name: "x"})
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        load_config(environ={"DRAGONET_CONFIG": "", "DRAGONET_SCHEDULER_LISTEN": ""})


def test_commands_ask_the_configured_scheduler() -> None:
    environ = {"DRAGONET_CONFIG": "", "DRAGONET_SCHEDULER_LISTEN": "0.0.0.0:9"}
    assert scheduler_url(load_config(environ=environ).config) == "http://127.0.0.1:9"
    environ["DRAGONET_HOST_SCHEDULER"] = "https://s:1"
    assert scheduler_url(load_config(environ=environ).config) == "https://s:1"
