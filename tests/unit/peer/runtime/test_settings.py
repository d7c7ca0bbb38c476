"""containerd's config.toml: one setting, in the place where it belongs, and everything else as it was."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.runtime import settings, toml_text
from peer.runtime.errors import BrokenFile, Conflict

CRI = 'plugins."io.containerd.grpc.v1.cri"'
DEBIAN = f"""\
version = 2

[plugins]
  [{CRI}]
    [{CRI}.cni]
      bin_dir = "/usr/lib/cni"  # Debian's
"""


def test_a_new_file() -> None:
    for version, plugin in ((1, "cri"), (2, "io.containerd.grpc.v1.cri"), (3, "io.containerd.cri.v1.images")):
        table = tomllib.loads(settings.new(version))
        assert table == {
            "version": version,
            "plugins": {plugin: {"registry": {"config_path": "/etc/containerd/certs.d"}}},
        }


def test_a_file_without_the_table_gets_it_at_its_end() -> None:
    edited = settings.with_folder("f", DEBIAN, 2)
    assert edited == DEBIAN + f'\n[{CRI}.registry]\n  config_path = "/etc/containerd/certs.d"\n'


def test_a_table_gets_the_setting_at_its_top() -> None:
    text = f"version = 2\n    [{CRI}.registry] # here\n      [{CRI}.registry.headers]\n"
    assert settings.with_folder("f", text, 2) == text.replace(
        "# here\n", '# here\n      config_path = "/etc/containerd/certs.d"\n'
    )


def test_an_empty_setting_is_filled_in() -> None:
    text = f'version = 2\r\n[{CRI}.registry]\r\n  config_path = ""  # unset\r\n  x = 1\r\n'
    assert settings.with_folder("f", text, 2) == text.replace('""', '"/etc/containerd/certs.d"')


@pytest.mark.parametrize(
    "text",
    [
        'version = 2\n[plugins]\n"io.containerd.grpc.v1.cri" = { registry = { } }\n',
        f"version = 2\n[{CRI}]\nregistry.auths = {{}}\n",
    ],
)
def test_what_cannot_be_added_to_is_said(text: str) -> None:
    with pytest.raises(Conflict, match=r'add config_path = "/etc/containerd/certs.d" to it by hand'):
        settings.with_folder("/f", text, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'[{CRI}.registry.mirrors."docker.io"]\nendpoint = ["https://x"]\n', "registry.mirrors"),
        (f'[{CRI}.registry.configs."x".tls]\nca_file = "y"\n', "registry.configs"),
    ],
)
def test_the_old_way_is_refused(text: str, words: str) -> None:
    with pytest.raises(Conflict, match=rf"{words}.*hosts.toml"):
        settings.folders_of("/f", tomllib.loads(text), 2)


def test_empty_tables_of_the_old_way_do_no_harm() -> None:
    text = f'[{CRI}.registry]\nconfig_path = "/a:/b"\n[{CRI}.registry.mirrors]\n[{CRI}.registry.configs.x.auth]\na=1\n'
    assert settings.folders_of("/f", tomllib.loads(text), 2) == "/a:/b"


@pytest.mark.parametrize(
    "text",
    [
        "version = 7",
        "version = true",
        "plugins = 1",
        "plugins.cri = 3",
        "plugins.cri.registry.config_path = 1",
    ],
)
def test_files_that_make_no_sense(text: str) -> None:
    table = tomllib.loads(text)
    with pytest.raises(BrokenFile, match=r"^/f is broken"):
        settings.folders_of("/f", table, settings.version_of("/f", table))


def test_a_disabled_plugin() -> None:
    assert settings.disabled({"disabled_plugins": ["cri"]}, 1)
    assert settings.disabled({"disabled_plugins": ["io.containerd.grpc.v1.cri"]}, 3)
    assert not settings.disabled({"disabled_plugins": ["io.containerd.snapshotter.v1.zfs"]}, 2)


KEYS = st.sampled_from(["a", "registry", "io.containerd.grpc.v1.cri", "x y", "headers"])
TABLES = st.recursive(
    st.integers(0, 9) | st.text(max_size=4),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, TABLES, max_size=3), st.sampled_from(["\n", "\r\n"]))
def test_any_file_keeps_the_rest(plugins: dict[str, object], newline: str) -> None:
    table: dict[str, object] = {"version": 2, "plugins": plugins}
    text = toml_text.write(table).replace("\n", newline)
    before = tomllib.loads(text)
    try:
        edited = settings.with_folder("/f", text, 2)
    except (Conflict, BrokenFile):
        return
    after = tomllib.loads(edited)
    registry = after["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    assert registry.pop("config_path") == settings.FOLDER
    held = before["plugins"].get("io.containerd.grpc.v1.cri", {})
    if "registry" not in held:
        assert registry == {}
        del after["plugins"]["io.containerd.grpc.v1.cri"]["registry"]
    if not held and "io.containerd.grpc.v1.cri" not in before["plugins"]:
        del after["plugins"]["io.containerd.grpc.v1.cri"]
    assert after == before
