"""What is planned for containerd, from what is there."""

from __future__ import annotations

import tomllib

import pytest

from peer.runtime.containerd import parse_version, plan_containerd
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.names import Wanted, parse_gateway, parse_registries
from peer.runtime.plan import Plan
from tests.unit.peer.runtime.trees import ALLOW, GATEWAY, MemoryFiles

MAIN = "/etc/containerd/config.toml"
CERTS = "/etc/containerd/certs.d"
CRI = 'plugins."io.containerd.grpc.v1.cri"'
SET = f'version = 2\n[{CRI}.registry]\n  config_path = "{CERTS}"\n'


def planned(
    files: dict[str, str],
    *registries: str,
    version: tuple[int, int] | None = (1, 6),
    former: tuple[str, ...] = (),
    gateway: str = GATEWAY,
) -> Plan:
    chosen = parse_registries(registries, "containerd")
    wanted = Wanted(parse_gateway(gateway), chosen, ALLOW, former=former)
    return plan_containerd(MemoryFiles(files), wanted, version)


def texts(plan: Plan) -> dict[str, str]:
    return {path: edit.content.decode() for path, edit in plan.edits.items()}


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", (1, 6)),
        ("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", (1, 7)),
        (
            "containerd github.com/containerd/containerd/v2 v2.2.0 1c4457e00facac03ce1d75f7b6777a7a851e5c41",
            (2, 2),
        ),
        ("containerd github.com/containerd/containerd/v2 2.2.0+unknown ", (2, 2)),
        ("something else", None),
        ("", None),
    ],
)
def test_versions(said: str, version: tuple[int, int] | None) -> None:
    assert parse_version(said) == version


@pytest.mark.parametrize(
    ("version", "written", "plugin"),
    [
        ((1, 6), 2, "io.containerd.grpc.v1.cri"),
        ((2, 0), 3, "io.containerd.cri.v1.images"),
        (None, 2, "io.containerd.grpc.v1.cri"),
    ],
)
def test_nothing_there(version: tuple[int, int] | None, written: int, plugin: str) -> None:
    plan = planned({}, version=version)
    assert list(plan.edits) == [MAIN, f"{CERTS}/_default/hosts.toml"]
    main, hosts = (tomllib.loads(text) for text in texts(plan).values())
    assert main["version"] == written
    assert main["plugins"] == {plugin: {"registry": {"config_path": CERTS}}}
    assert "server" not in hosts, "containerd falls back to the registry that the image names"
    assert plan.registries == ("every registry",)


def test_named_registries_have_files_of_their_own() -> None:
    plan = planned({MAIN: SET}, "docker.io", "reg.example:5000")
    found = {path: tomllib.loads(text)["server"] for path, text in texts(plan).items()}
    assert found == {
        f"{CERTS}/docker.io/hosts.toml": "https://registry-1.docker.io",
        f"{CERTS}/reg.example:5000/hosts.toml": "https://reg.example:5000",
    }


def test_all_registries_include_those_with_a_folder_that_are_allowed() -> None:
    existing = '[host."https://m"]\n'
    files = {
        MAIN: SET,
        f"{CERTS}/quay.io/hosts.toml": existing,
        f"{CERTS}/private.example/hosts.toml": existing,
        f"{CERTS}/stray.txt": "x",
    }
    assert list(planned(files).edits) == [f"{CERTS}/_default/hosts.toml", f"{CERTS}/quay.io/hosts.toml"]


def test_a_folder_named_with_underlines() -> None:
    files = {MAIN: SET, f"{CERTS}/reg.example_5000_/hosts.toml": '[host."https://m"]\n'}
    assert list(planned(files, "reg.example:5000").edits) == [f"{CERTS}/reg.example_5000_/hosts.toml"]


def test_certificates_of_a_folder_stay_in_use() -> None:
    files = {MAIN: SET, f"{CERTS}/quay.io/ca.crt": "x", f"{CERTS}/quay.io/hosts.toml": ""}
    table = tomllib.loads(texts(planned(files, "quay.io"))[f"{CERTS}/quay.io/hosts.toml"])
    assert table["ca"] == [f"{CERTS}/quay.io/ca.crt"]
    assert table["server"] == "https://quay.io"


def test_what_held_for_all_still_holds_for_one() -> None:
    shared = 'ca = "own.crt"\n[host."https://company.example"]\n  ca = ["m.crt", "/abs.crt"]\n'
    files = {MAIN: SET, f"{CERTS}/_default/hosts.toml": shared}
    plan = planned(files, "quay.io")
    assert list(plan.edits) == [f"{CERTS}/quay.io/hosts.toml"]
    (edit,) = plan.edits.values()
    assert edit.mode == 0o640, "it may hold the same secrets"
    table = tomllib.loads(edit.content.decode())
    assert list(table["host"]) == [GATEWAY, "https://company.example"]
    assert table["host"]["https://company.example"]["ca"] == [f"{CERTS}/_default/m.crt", "/abs.crt"]
    assert table["ca"] == f"{CERTS}/_default/own.crt"


def test_several_folders() -> None:
    main = SET.replace(CERTS, f"{CERTS}:/etc/docker/certs.d")
    files = {MAIN: main, "/etc/docker/certs.d/quay.io/ca.crt": "x", f"{CERTS}/": ""}
    plan = planned(files)
    assert list(plan.edits) == [
        "/etc/docker/certs.d/_default/hosts.toml",
        "/etc/docker/certs.d/quay.io/hosts.toml",
    ]
    assert plan.notes == ()
    assert "move all to /etc/containerd/certs.d" in planned(files, version=(2, 2)).notes[0]
    assert list(planned({MAIN: main}).edits) == [f"{CERTS}/_default/hosts.toml"]


def test_several_folders_of_which_containerd_2_looks_into_none() -> None:
    main = SET.replace("version = 2", "version = 3").replace(
        "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"
    )
    plan = planned({MAIN: main.replace(CERTS, f"{CERTS}:/etc/docker/certs.d")}, version=(2, 2))
    assert texts(plan)[MAIN] == main
    assert list(plan.edits) == [MAIN, f"{CERTS}/_default/hosts.toml"]
    assert "it is /etc/containerd/certs.d alone now" in plan.notes[0]


def test_an_own_folder_is_used_and_the_file_left_alone() -> None:
    plan = planned({MAIN: SET.replace(CERTS, "/srv/hosts")})
    assert list(plan.edits) == ["/srv/hosts/_default/hosts.toml"]


IMPORTING = 'version = 2\nimports = ["conf.d/*.toml"]\n' + SET.partition("\n")[2]
OTHER = f"version = 2\n[{CRI}]\n  sandbox_image = 'x'\n"


def test_imports() -> None:
    files = {MAIN: IMPORTING, "/etc/containerd/conf.d/a.toml": OTHER}
    # containerd 1 takes the plugin's settings of the last file alone
    assert list(planned(files).edits) == ["/etc/containerd/conf.d/a.toml", f"{CERTS}/_default/hosts.toml"]
    # containerd 2 puts them together
    assert list(planned(files, version=(2, 1)).edits) == [f"{CERTS}/_default/hosts.toml"]
    files["/etc/containerd/conf.d/b.toml"] = SET.replace(CERTS, "/b")
    for version in ((1, 7), (2, 1)):
        assert list(planned(files, version=version).edits) == ["/b/_default/hosts.toml"]
    files["/etc/containerd/conf.d/c.toml"] = "version = 3\n"
    with pytest.raises(Conflict, match=r"c\.toml is of version 3"):
        planned(files)


def test_imports_in_a_circle_end() -> None:
    files = {MAIN: IMPORTING.replace("conf.d/*.toml", "/etc/*/config.toml")}
    assert list(planned(files).edits) == [f"{CERTS}/_default/hosts.toml"]


def test_what_containerd_2_does_not_take() -> None:
    files = {MAIN: 'disabled_plugins = ["cri"]\n'}
    with pytest.raises(Conflict, match="containerd config migrate"):
        planned(files, version=(2, 0))
    plan = planned(files)
    assert "turns containerd's CRI plugin off" in plan.notes[0]
    assert tomllib.loads(texts(plan)[MAIN])["plugins"] == {"cri": {"registry": {"config_path": CERTS}}}


def test_what_else_cannot_be() -> None:
    with pytest.raises(Conflict, match="IPv6"):
        planned({}, gateway="http://[::1]:65001")
    with pytest.raises(Conflict, match="not absolute"):
        planned({MAIN: SET.replace(CERTS, "certs.d")})
    with pytest.raises(BrokenFile, match="imports"):
        planned({MAIN: "version = 2\nimports = [1]\n"})
    with pytest.raises(BrokenFile, match=r"_default/hosts.toml is broken.*line 1"):
        planned({MAIN: SET, f"{CERTS}/_default/hosts.toml": "= 1"}, "quay.io")


def test_a_former_gateway_is_not_copied() -> None:
    files = {MAIN: SET, f"{CERTS}/_default/hosts.toml": '[host."http://old:1"]\n[host."http://m"]\n'}
    table = tomllib.loads(
        texts(planned(files, "quay.io", former=("http://old:1",)))[f"{CERTS}/quay.io/hosts.toml"]
    )
    assert list(table["host"]) == [GATEWAY, "http://m"]
