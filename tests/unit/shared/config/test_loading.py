from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from shared.config import Fraction, Rate, Seconds, Secret, Size, dump, load
from shared.errors import ConfigError


class Store(msgspec.Struct, frozen=True, kw_only=True):
    quota: Annotated[Size, Meta(description="Most bytes that are kept; 0 means no limit.")] = 0
    share: Annotated[Fraction, Meta(description="Highest used share of the disk.")] = 0.9
    ttl: Annotated[Seconds, Meta(description="How long unused content is kept.")] = 3600.0
    beat: Annotated[Seconds, Meta(gt=0, description="Time between two signs of life.")] = 5.0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: Annotated[Path, Meta(description="Folder of the data.")] = Path("/data")
    scheduler: Annotated[str, Meta(pattern=r"^https?://", description="URL of the scheduler.")] = "http://s:1"
    rate: Annotated[Rate, Meta(description="Bytes per second sent at most.")] = 0
    slots: Annotated[int, Meta(ge=1, le=64, description="Uploads at a time.")] = 8
    names: Annotated[tuple[str, ...], Meta(description="Names.")] = ()
    quiet: Annotated[bool, Meta(description="Say less.")] = False
    mode: Annotated[Literal["one", "two"], Meta(description="One or two.")] = "one"
    token: Annotated[Secret, Meta(description="Shared secret.")] = ""


class Root(msgspec.Struct, frozen=True, kw_only=True):
    host: Host = Host()
    store: Store = Store()


def write(folder: Path, text: str) -> Path:
    path = folder / "dragonet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_all_is_at_its_default() -> None:
    loaded = load(Root)
    assert loaded.config == Root()
    assert loaded.origins == {}


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = write(tmp_path, '[host]\nslots = 2\nrate = "1MiB/s"\nquiet = true\n[store]\nquota = "10GiB"\n')
    loaded = load(
        Root,
        file=file,
        environ={"DRAGONET_HOST_SLOTS": "3", "DRAGONET_HOST_RATE": "2MiB/s", "HOME": "/x"},
        flags={"host.slots": "4", "host.mode": None},
        flag_names={"host.slots": "--slots"},
    )
    host = loaded.config.host
    assert (host.slots, host.rate, host.quiet, host.mode) == (4, 2 * 2**20, True, "one")
    assert loaded.config.store.quota == 10 * 2**30
    assert loaded.origins == {
        "host.slots": "--slots",
        "host.rate": "DRAGONET_HOST_RATE",
        "host.quiet": str(file),
        "store.quota": str(file),
    }


def test_every_kind_of_value_can_be_written_in_the_environment() -> None:
    config = load(
        Root,
        environ={
            "DRAGONET_HOST_DATA_DIR": "/srv/x",
            "DRAGONET_HOST_NAMES": "a, b,,c",
            "DRAGONET_HOST_QUIET": "Yes",
            "DRAGONET_HOST_MODE": "two",
            "DRAGONET_STORE_SHARE": "0.5",
            "DRAGONET_STORE_TTL": "1h30m",
            "DRAGONET_STORE_BEAT": "250ms",
            "DRAGONET_STORE_QUOTA": "1.5GB",
        },
    ).config
    assert config.host == Host(data_dir=Path("/srv/x"), names=("a", "b", "c"), quiet=True, mode="two")
    assert config.store == Store(quota=1_500_000_000, share=0.5, ttl=5400.0, beat=0.25)


def test_flags_may_be_ready_values() -> None:
    assert load(Root, flags={"host.data_dir": Path("/srv/y")}).config.host.data_dir == Path("/srv/y")


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(Root, flags={"host.data_dir": "~/d"}).config.host.data_dir == Path("/home/somebody/d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host]\nslot = 3", "unknown key 'host.slot': did you mean host.slots?"),
        ("[host]\ndata-dir = 'x'", "did you mean host.data_dir?"),
        ("[stor]\nquota = 1", "unknown key 'stor.quota': did you mean store.quota?"),
        ("quota = 1", "did you mean store.quota?"),
        ("[stor]", "unknown key 'stor'"),
        ("host = 3", "'host' is a section: write [host]"),
        ("[host]\nslots = 'many'", "host.slots"),
        ("[host]\nslots = 0", "write a whole number, 1 or more, 64 or less"),
        ("[host]\nslots = true", "write a whole number"),
        ("[host]\nslots = 1.5", "write a whole number"),
        ("[host]\nmode = 'three'", "write one or two"),
        ("[host]\nquiet = 'maybe'", "write true or false"),
        ("[host]\nrate = 'fast'", "write a rate such as 20MiB/s"),
        ("[host]\nscheduler = 'ftp://x'", "host.scheduler"),
        ("[host]\ndata_dir = 3", "write a path"),
        ("[host]\nnames = 'x'\n[store]\nttl = 'soon'", "write a duration such as 10s"),
        ("[store]\nshare = 1.5", "write a number, 0 or more, 1 or less"),
        ("[store]\nbeat = 0", "write a duration such as 10s, 5m or a number of seconds, more than 0"),
        ("[store]\nquota = -1", "write a size such as 256MiB"),
        ("[host", "is not valid TOML"),
    ],
)
def test_errors_in_the_file_say_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(Root, file=file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value) or "section" in words


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load(Root, file=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(Root, file=tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(Root, file=tmp_path / "b.toml")


def test_unknown_variables_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"DRAGONET_HOST_SLOT: did you mean DRAGONET_HOST_SLOTS\?"):
        load(Root, environ={"DRAGONET_HOST_SLOT": "3"})


def test_the_file_variable_and_kubernetes_service_links_are_no_keys() -> None:
    environ = {
        "DRAGONET_CONFIG": "/x",
        "DRAGONET_SERVICE_HOST": "10.0.0.1",
        "DRAGONET_SCHEDULER_SERVICE_PORT_HTTP": "8002",
        "DRAGONET_SCHEDULER_PORT": "tcp://10.0.0.1:8002",
        "DRAGONET_SCHEDULER_PORT_8002_TCP_ADDR": "10.0.0.1",
    }
    assert load(Root, environ=environ).config == Root()


def test_unknown_flags_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'host.slost': did you mean host.slots\?"):
        load(Root, flags={"host.slost": "3"})


def test_the_message_names_where_the_value_is_from() -> None:
    with pytest.raises(ConfigError, match=r"host.slots \(--slots\) cannot be 'x': write a whole number"):
        load(Root, flags={"host.slots": "x"}, flag_names={"host.slots": "--slots"})
    with pytest.raises(ConfigError, match=r"host.slots \(DRAGONET_HOST_SLOTS\) cannot be '99'"):
        load(Root, environ={"DRAGONET_HOST_SLOTS": "99"})


def test_a_secret_is_neither_shown_nor_repeated() -> None:
    loaded = load(
        Root, flags={"host.token": "hunter2", "host.scheduler": "http://me:hunter2@s/?token=hunter2"}
    )
    assert "hunter2" not in dump(loaded)
    assert 'token = "***"' in dump(loaded)


def test_dump_comments_every_key_and_tells_origins() -> None:
    text = dump(load(Root, flags={"host.slots": "4"}))
    assert "# Uploads at a time.\nslots = 4  # from --set host.slots\n" in text
    assert text.startswith("[host]\n")
    assert "\n[store]\n" in text


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    st.builds(
        Root,
        host=st.builds(
            Host,
            data_dir=TEXT.filter(lambda t: not t.startswith("~")).map(lambda t: Path("/d") / t.lstrip("/")),
            scheduler=st.just("http://s:1"),
            rate=st.integers(0, 2**50),
            slots=st.integers(1, 64),
            names=st.lists(TEXT.filter(lambda t: "://" not in t), max_size=3).map(tuple),
            quiet=st.booleans(),
            mode=st.sampled_from(["one", "two"]),
            token=st.just(""),
        ),
        store=st.builds(
            Store, quota=st.integers(0, 2**60), share=st.floats(0, 1), ttl=st.floats(0, 1e9, allow_nan=False)
        ),
    )
)
def test_what_is_dumped_is_read_back(root: Root) -> None:
    import tomllib

    from shared.config.loading import Loaded

    tables = tomllib.loads(dump(Loaded(root, {})))
    flags = {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}
    assert load(Root, flags=flags).config == root
