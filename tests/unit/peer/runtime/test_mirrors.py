"""registries.conf: the drop-in says all that was said before, with the gateway as the first mirror."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.mirrors import mirror_path, plan_mirrors
from peer.runtime.names import Wanted, parse_gateway, parse_registries
from peer.runtime.plan import Plan
from tests.unit.peer.runtime.trees import ALLOW, GATEWAY, MemoryFiles

MAIN = "/etc/containers/registries.conf"
FOLDER = "/etc/containers/registries.conf.d"
OURS = f"{FOLDER}/50-dragonet.conf"


def planned(
    files: dict[str, str],
    *registries: str,
    allow: tuple[str, ...] = ALLOW,
    gateway: str = GATEWAY,
    former: tuple[str, ...] = (),
) -> Plan:
    wanted = Wanted(parse_gateway(gateway), parse_registries(registries, "podman"), allow, former=former)
    return plan_mirrors(MemoryFiles(files), wanted, "podman")


def tables(plan: Plan, path: str = OURS) -> list[dict[str, Any]]:
    assert list(plan.edits) == [path]
    found: list[dict[str, Any]] = tomllib.loads(plan.edits[path].content.decode())["registry"]
    return found


def ours(location: str) -> dict[str, Any]:
    return {"location": f"127.0.0.1:65001/{location}", "insecure": True}


def test_nothing_there() -> None:
    plan = planned({})
    assert plan.registries == ("docker.io", "ghcr.io", "quay.io")
    assert tables(plan)[0] == {"prefix": "docker.io", "location": "docker.io", "mirror": [ours("docker.io")]}


def test_a_gateway_with_tls_is_not_insecure() -> None:
    (table,) = tables(planned({}, "quay.io", gateway="https://g.example"))
    assert table["mirror"] == [{"location": "g.example:443/quay.io"}]


MAIN_TEXT = """\
unqualified-search-registries = ["docker.io"]

[[registry]]
location = "docker.io"
insecure = false
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example/hub"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "quay.io/team"
location = "internal.example:5000/quay/team"
blocked = true

[[registry]]
prefix = "*.corp.example"
insecure = true

[[registry]]
location = "untouched.example"
"""


def test_what_was_said_about_a_registry_still_holds() -> None:
    plan = planned({MAIN: MAIN_TEXT}, "docker.io", "quay.io", "reg.corp.example:5000")
    assert tables(plan) == [
        {
            "prefix": "docker.io",
            "location": "docker.io",
            "insecure": False,
            "mirror-by-digest-only": True,
            "mirror": [
                ours("docker.io"),
                {"location": "mirror.example/hub", "pull-from-mirror": "digest-only"},
            ],
        },
        {"prefix": "quay.io", "location": "quay.io", "mirror": [ours("quay.io")]},
        {
            "prefix": "quay.io/team",
            "location": "internal.example:5000/quay/team",
            "blocked": True,
            "mirror": [ours("internal.example_5000/quay/team")],
        },
        {
            "prefix": "reg.corp.example:5000",
            "location": "reg.corp.example:5000",
            "insecure": True,
            "mirror": [ours("reg.corp.example_5000")],
        },
    ]
    assert plan.notes == (f"quay.io/team is blocked in {MAIN}, and stays so",)


def test_later_files_count() -> None:
    files = {
        MAIN: MAIN_TEXT,
        f"{FOLDER}/10-a.conf": '[[registry]]\nlocation = "docker.io"\ninsecure = true\n',
        f"{FOLDER}/ignored.txt": "not toml",
    }
    assert tables(planned(files, "docker.io"))[0]["insecure"] is True
    for name in ("70-b.conf", "zz-z.conf", "zzz-z.conf"):
        files[f"{FOLDER}/{name}"] = '[[registry]]\nlocation = "docker.io"\n'
        plan = planned(files, "docker.io")
        (path,) = plan.edits
        assert path > f"{FOLDER}/{name}"
        assert path.endswith("dragonet.conf")
    assert list(planned(files, "quay.io").edits) == [OURS], "only what says something about it counts"


def test_a_file_of_the_same_name_is_kept_in_meaning() -> None:
    text = (
        'short-name-mode = "enforcing"\n[[registry]]\nlocation = "x.example"\n'
        '[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:1/quay.io"\n'
    )
    plan = planned({OURS: text}, "quay.io", former=("http://127.0.0.1:1",))
    table = tomllib.loads(plan.edits[OURS].content.decode())
    assert table["short-name-mode"] == "enforcing"
    assert [t["prefix"] for t in table["registry"]] == ["x.example", "quay.io"]
    assert table["registry"][1]["mirror"] == [ours("quay.io")]
    assert planned({OURS: plan.edits[OURS].content.decode()}, "quay.io").edits == {}


def test_all_registries() -> None:
    files = {MAIN: '[[registry]]\nlocation = "a.corp.example/team"\n'}
    plan = planned(files, allow=("*.corp.example", "quay.io", "dotless"))
    assert plan.registries == ("a.corp.example", "quay.io")
    assert "registry.allow has *.corp.example" in plan.notes[0]
    with pytest.raises(Conflict, match="--registry"):
        planned({}, allow=("*",))


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("docker.io", "docker.io"),
        ("10.9.9.9:5000/a/b", "10.9.9.9_5000/a/b"),
        ("localhost:5000", "localhost_5000"),
        ("registry:5000", None),
        ("[::1]:5000", None),
    ],
)
def test_what_the_gateway_is_told(location: str, path: str | None) -> None:
    assert mirror_path(location) == path


def test_a_location_that_the_gateway_refuses_is_noted() -> None:
    files = {MAIN: '[[registry]]\nprefix = "quay.io"\nlocation = "cache.test/quay"\n'}
    [note] = planned(files, "quay.io", allow=("quay.io",)).notes
    assert note.startswith(f"quay.io is read from cache.test ({MAIN}), which the gateway refuses")
    assert not planned(files, "quay.io", allow=("quay.io", "*.test")).notes
    files = {MAIN: '[[registry]]\nprefix = "docker.io/team"\nlocation = "index.docker.io/other"\n'}
    assert not planned(files, "docker.io", allow=("docker.io",)).notes


def test_names_that_cannot_be_told() -> None:
    with pytest.raises(Conflict, match="registry:5000"):
        planned({}, "registry:5000")
    with pytest.raises(Conflict, match="is at registry:5000/x"):
        planned({MAIN: '[[registry]]\nprefix = "quay.io"\nlocation = "registry:5000/x"\n'}, "quay.io")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[registries.search]\nregistries = ['docker.io']\n", Conflict, "version 1"),
        ("registry = 1\n", BrokenFile, "array of tables"),
        ("[[registry]]\ninsecure = true\n", BrokenFile, "neither prefix nor location"),
        ("[[registry]]\nlocation = 3\n", BrokenFile, "neither"),
        ("[[registry]]\nlocation = 'x'\nmirror = 1\n", BrokenFile, "registry.mirror"),
        ("[[registry]]\nlocation = 'x'\n[[registry.mirror]]\n", BrokenFile, "no location"),
        ("\n\n[[registry]\n", BrokenFile, "line 3"),
    ],
)
def test_files_that_do_not_do(text: str, error: type[Exception], words: str) -> None:
    for path in (MAIN, f"{FOLDER}/00-x.conf"):
        with pytest.raises(error, match=words) as caught:
            planned({path: text}, "quay.io")
        assert str(caught.value).startswith(path)
