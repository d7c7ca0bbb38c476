"""Settings of the sources: options by scheme from wherever settings come, and never shown."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import cast

import msgspec
import pytest

from cdn.config import SourceConfig, default_plugin_dir
from cdn.policy import SourcePolicy
from cdn.sources.builtin import BUILTIN, open_options
from cdn.sources.context import SourceContext
from shared.config import Loaded, dump, load
from shared.errors import ConfigError
from shared.http.client import HttpClient

SECRET = "hush"
AWS = {"access_key_id", "secret_access_key", "session_token"}
HIDDEN = {
    "s3": AWS,
    "oss": AWS,
    "gs": {"service_account", "service_account_key", "application_default_credentials", "token"},
    "az": {"account_key", "sas_token", "client_id", "client_secret", "tenant_id"},
    "hdfs": {"user", "delegation_token", "authorization"},
    "webhdfs": {"user", "delegation_token", "authorization"},
    "swebhdfs": {"user", "delegation_token", "authorization"},
    "hf": {"token"},
    "oci": {"auth.REGISTRY"},
}
"""What is or may be a credential."""


class Root(msgspec.Struct, frozen=True, kw_only=True):
    source: SourceConfig = SourceConfig()


def write(folder: Path, text: str) -> Path:
    path = folder / "dragonet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_options_in_a_file(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        [source]
        connections = 2
        [source.options.s3]
        region = "eu-west-1"
        port = 9000
        virtual_host = true
        ["source".options."d7yfs"]
        token = "x=,y"
        [source.options.empty]
        [source.revalidate]
        s3 = "5m"
        http = "never"
        """,
    )
    source = load(Root, file=file).config.source
    assert source.options == {
        "s3": {"region": "eu-west-1", "port": "9000", "virtual_host": "true"},
        "d7yfs": {"token": "x=,y"},
        "empty": {},
    }
    assert source.connections == 2
    assert (source.revalidate_after("S3"), source.revalidate_after("http")) == (300.0, None)
    assert source.revalidate_after("other") == 60.0


def test_several_texts_may_be_a_list(tmp_path: Path) -> None:
    file = write(tmp_path, '[source.options.oci]\ninsecure = ["a:1", "b"]\n')
    assert load(Root, file=file).config.source.options == {"oci": {"insecure": "a:1,b"}}
    file = write(tmp_path, '[source.options.oci]\ninsecure = [["a"]]\n')
    with pytest.raises(ConfigError, match=r"source\.options"):
        load(Root, file=file)


def test_options_in_the_environment() -> None:
    environ = {
        "DRAGONET_SOURCE_OPTIONS": "s3.region=x, s3.endpoint=http://h:1/?a=b ,hf.token=t==,",
        "DRAGONET_SOURCE_REVALIDATE": "*=never,http=30s",
    }
    source = load(Root, environ=environ).config.source
    assert source.options == {"s3": {"region": "x", "endpoint": "http://h:1/?a=b"}, "hf": {"token": "t=="}}
    assert (source.revalidate_after("http"), source.revalidate_after("s3")) == (30.0, None)


def test_one_option_on_the_command_line_joins_the_others(tmp_path: Path) -> None:
    file = write(tmp_path, '[source.options.s3]\nregion = "x"\nendpoint = "e"\n')
    loaded = load(
        Root,
        file=file,
        flags={
            "source.options.s3.region": "y",
            "source.options.hf.token": "a=b,c",
            "source.revalidate.s3": "1h",
        },
    )
    assert loaded.config.source.options == {
        "s3": {"region": "y", "endpoint": "e"},
        "hf": {"token": "a=b,c"},
    }
    assert loaded.config.source.revalidate_after("s3") == 3600.0
    assert loaded.config.source.revalidate_after("http") == 60.0


def test_a_variable_takes_the_place_of_the_files_table(tmp_path: Path) -> None:
    file = write(tmp_path, '[source.options.s3]\nregion = "x"\n')
    environ = {"DRAGONET_SOURCE_OPTIONS": "hf.token=t"}
    assert load(Root, file=file, environ=environ).config.source.options == {"hf": {"token": "t"}}


def test_options_are_never_shown() -> None:
    loaded = load(Root, flags={"source.options.s3.secret_access_key": SECRET})
    assert 'options = {"s3" = {"secret_access_key" = "***"}}' in dump(loaded)
    for shown in (dump(loaded), repr(loaded), repr(loaded.config), str(loaded.config.source)):
        assert SECRET not in shown


def test_only_options_that_cannot_be_secrets_are_shown() -> None:
    options = {
        "oci": {"insecure": "true", "auth.registry.example": f"user:{SECRET}", "pasword": SECRET},
        "s3": {"endpoint": f"https://user:{SECRET}@host", "access_key_id": SECRET},
        "myfs": {"endpoint": SECRET},
    }
    text = dump(Loaded(Root(source=SourceConfig(options=options)), {}), shown=open_options())
    assert SECRET not in text
    shown = tomllib.loads(text)["source"]["options"]
    assert shown == {
        "oci": {"insecure": "true", "auth.registry.example": "***", "pasword": "***"},
        "s3": {"endpoint": "https://host", "access_key_id": "***"},
        "myfs": {"endpoint": "***"},
    }


@pytest.mark.parametrize("scheme", [scheme for scheme, builtin in BUILTIN.items() if not builtin.beside])
def test_every_option_but_credentials_is_shown(scheme: str) -> None:
    nobody = cast(HttpClient, None)
    context = SourceContext(scheme, nobody, SourcePolicy(()), SourceConfig(), {"none": "such"})
    with pytest.raises(ConfigError, match="has no option 'none': there are") as caught:
        BUILTIN[scheme].open(context)
    known = str(caught.value).rpartition(" are ")[2].split(", ")
    assert {*BUILTIN[scheme].open_options, *HIDDEN[scheme]} == set(known)
    assert not HIDDEN[scheme].intersection(BUILTIN[scheme].open_options)


@pytest.mark.parametrize(
    "text",
    [
        f'[source]\noptions = "{SECRET}"',
        f'[source.options]\ns3 = "{SECRET}"',
        f'[source.options]\ns3 = ["{SECRET}"]',
        f'[source.options.s3]\nkey = [["{SECRET}"]]',
        f'[source.options.s3.key]\ndeep = "{SECRET}"',
        f'[[source.options.s3]]\nkey = "{SECRET}"',
        f'[source.option.s3]\nkey = "{SECRET}"',
        f'[source.s3]\nkey = "{SECRET}"',
        f'[source.options.S3]\nkey = "{SECRET}"',
        f'[source.options.s3]\nkey = "{SECRET}',
        f"[source.options.s3]\nkey = {SECRET}",
    ],
)
def test_errors_in_the_file_do_not_repeat_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Root, file=write(tmp_path, text))
    assert SECRET not in str(caught.value)
    assert "source" in str(caught.value) or "TOML" in str(caught.value)


@pytest.mark.parametrize(
    "text", [SECRET, f"s3={SECRET}", f"s3.a.b={SECRET}", f"s3=x,s3.key={SECRET}", f"s3.key=x,s3={SECRET}"]
)
def test_errors_in_the_environment_do_not_repeat_a_secret(text: str) -> None:
    with pytest.raises(ConfigError, match="DRAGONET_SOURCE_OPTIONS") as caught:
        load(Root, environ={"DRAGONET_SOURCE_OPTIONS": text})
    assert SECRET not in str(caught.value)
    assert "table.name=value" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "source.options",
        "source.options.s3",
        "source.options.s3.a.b",
        "source.option.s3.key",
        "source.revalidate",
    ],
)
def test_errors_of_flags_do_not_repeat_a_secret(name: str) -> None:
    with pytest.raises(ConfigError, match="source") as caught:
        load(Root, flags={name: SECRET if name != "source.revalidate" else "s3=soon"})
    assert SECRET not in str(caught.value)
    assert caught.value.origin == f"--set {name}" or "revalidate" in name


@pytest.mark.parametrize("text", ["soon", "-1s", ""])
def test_a_wrong_age(text: str) -> None:
    with pytest.raises(ConfigError, match=r"revalidate of s3: .*\(or never\)"):
        load(Root, flags={"source.revalidate.s3": text})


def test_where_plugins_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_plugin_dir({}) == Path("/usr/local/dragonet/plugins")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_plugin_dir({"XDG_DATA_HOME": "/x"}) == Path("/x/dragonet/plugins")
