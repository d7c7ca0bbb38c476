"""daemon.json: the gateway is the first mirror, and the file looks as it did."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.runtime.docker import FILE, plan_docker, with_mirror
from peer.runtime.errors import BrokenFile, Conflict
from peer.runtime.names import Wanted, parse_gateway
from tests.unit.peer.runtime.trees import ALLOW, GATEWAY, MemoryFiles

OURS = f'"{GATEWAY}"'


def wanted(*registries: str, default: str = "docker.io") -> Wanted:
    return Wanted(parse_gateway(GATEWAY), registries or ("docker.io",), ALLOW, default)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f'{{\n  "registry-mirrors": [{OURS}]\n}}\n'),
        (" \n", f'{{\n  "registry-mirrors": [{OURS}]\n}}\n'),
        ("{}", f'{{"registry-mirrors": [{OURS}]}}'),
        ('{\n\t"debug" : true\n}', f'{{\n\t"registry-mirrors": [{OURS}],\n\t"debug" : true\n}}'),
        ('{"registry-mirrors":[]}', f'{{"registry-mirrors":[{OURS}]}}'),
        ('{"registry-mirrors":["https://a"],"x":1}', f'{{"registry-mirrors":[{OURS}, "https://a"],"x":1}}'),
        (
            '{"registry-mirrors": [\n  "https://a"\n]}',
            f'{{"registry-mirrors": [\n  {OURS},\n  "https://a"\n]}}',
        ),
        (f'{{"registry-mirrors": ["https://a", {OURS}]}}', f'{{"registry-mirrors": [{OURS}, "https://a"]}}'),
        (f'{{"registry-mirrors": ["{GATEWAY}/"]}}', f'{{"registry-mirrors": ["{GATEWAY}/"]}}'),
        ('\ufeff{"a": "\\u007d"}', f'\ufeff{{"registry-mirrors": [{OURS}],"a": "\\u007d"}}'),
        (
            '{"registry-mirrors": ["https://a"], "registry-mirrors": ["https://b"]}',
            f'{{"registry-mirrors": ["https://a"], "registry-mirrors": [{OURS}, "https://b"]}}',
        ),
    ],
)
def test_how_it_is_written(before: str, after: str) -> None:
    assert with_mirror("f", before, GATEWAY) == after
    assert with_mirror("f", after, GATEWAY) == after


def test_a_former_gateway_goes() -> None:
    text = '{"registry-mirrors": ["http://old:1", "https://a"]}'
    assert with_mirror("f", text, GATEWAY, ("http://old:1",)) == (
        f'{{"registry-mirrors": [{OURS}, "https://a"]}}'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    st.none() | st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
)
def test_any_file_keeps_the_rest(
    table: dict[str, Any], mirrors: list[str] | None, indent: int | str | None, ascii_only: bool
) -> None:
    if mirrors is not None:
        table["registry-mirrors"] = mirrors
    text = json.dumps(table, indent=indent, ensure_ascii=ascii_only)
    after = json.loads(with_mirror("f", text, GATEWAY))
    assert after.pop("registry-mirrors") == [GATEWAY, *(mirrors or [])]
    assert after == {key: value for key, value in table.items() if key != "registry-mirrors"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n  "a": 1,\n}', "line 3"),
        ("[]", "no JSON object"),
        ('{"registry-mirrors": "x"}', "no list of URLs"),
        ('{"registry-mirrors": [1]}', "no list of URLs"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_broken(text: str, words: str) -> None:
    with pytest.raises(BrokenFile, match=words):
        with_mirror(FILE, text, GATEWAY)


def test_the_plan() -> None:
    files = MemoryFiles({})
    plan = plan_docker(files, wanted())
    assert list(plan.edits) == [FILE]
    files.files[FILE] = plan.edits[FILE].content.decode()
    assert plan_docker(files, wanted()).edits == {}
    with pytest.raises(Conflict, match=r"Docker Hub only: leave --registry quay\.io out"):
        plan_docker(files, wanted("docker.io", "quay.io"))
    with pytest.raises(Conflict, match=r"for ghcr\.io: set registry\.default"):
        plan_docker(files, wanted(default="ghcr.io"))


def test_a_flag_and_a_file_do_not_go_together() -> None:
    drop_in = "/etc/systemd/system/docker.service.d/mirror.conf"
    files = MemoryFiles({drop_in: "[Service]\nExecStart=/usr/bin/dockerd --registry-mirror=https://m\n"})
    with pytest.raises(Conflict, match=rf"^{drop_in} starts Docker with --registry-mirror"):
        plan_docker(files, wanted())
    files.files[drop_in] = "# ExecStart=/usr/bin/dockerd --registry-mirror=https://m\n"
    assert plan_docker(files, wanted()).edits
