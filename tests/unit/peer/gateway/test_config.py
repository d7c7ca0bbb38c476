"""Settings of the gateway: registries that cannot be are refused when the configuration is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer.config import load_config
from peer.gateway.config import RegistryConfig
from shared.errors import ConfigError

WRONG = [
    " ",
    "https://quay.io",
    "quay.io/team",
    "user@quay.io",
    "quay.io,ghcr.io",
    " quay.io",
    "quay.io:0",
    "-a",
]


@pytest.mark.parametrize("entry", [*WRONG, ""])
@pytest.mark.parametrize("key", ["allow", "share_login"])
def test_names_that_are_none(key: str, entry: str) -> None:
    with pytest.raises(ValueError, match="host or host:port"):
        RegistryConfig(**{key: ("docker.io", entry)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*WRONG, "*", "*.example"])
def test_a_default_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="host or host:port"):
        RegistryConfig(default=name)


def test_a_login_is_shared_for_registries_by_name() -> None:
    with pytest.raises(ValueError, match="host or host:port"):
        RegistryConfig(share_login=("*.example",))


def test_a_password_in_a_name_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"cannot be 'https://quay\.io'") as caught:
        RegistryConfig(allow=("https://user:hush@quay.io",))
    assert "hush" not in str(caught.value)


def test_names_that_are_some() -> None:
    names = ("docker.io", "index.docker.io", "Registry.example:5000", "localhost:1", "[::1]:5000", "10.0.0.1")
    patterns = ("*", "*.example", "10.0.*", "registry.local:*")
    config = RegistryConfig(allow=(*names, *patterns), share_login=names, default="")
    assert config.allow == (*names, *patterns)


@pytest.mark.parametrize("key", ["allow", "share_login", "default"])
def test_the_error_tells_the_key_and_where_it_is_written(tmp_path: Path, key: str) -> None:
    file = tmp_path / "dragonet.toml"
    value = '"https://ghcr.io"'
    file.write_text(f"[registry]\n{key} = {value if key == 'default' else f'[{value}]'}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file=file, environ={})
    assert str(caught.value).startswith(
        f"registry.{key} ({file}) cannot be 'https://ghcr.io': write registries"
    )
    assert caught.value.origin == str(file)
    with pytest.raises(ConfigError) as caught:
        load_config(environ={"DRAGONET_CONFIG": ""}, flags={f"registry.{key}": "https://ghcr.io"})
    assert caught.value.origin == f"--set registry.{key}"
