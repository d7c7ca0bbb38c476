"""hosts.toml: the gateway comes first, and nothing else changes its meaning."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peer.runtime import hosts, toml_text
from peer.runtime.errors import BrokenFile
from peer.runtime.names import parse_gateway
from tests.unit.peer.runtime.trees import GATEWAY

HERE = parse_gateway(GATEWAY)
EXISTING = """\
# Managed by the platform team.
server = "https://registry.example"   # upstream
skip_verify = false

[header]
  x-team = ["a", "b"]

# the old mirror
[host."https://mirror.example"]
  capabilities = ["pull"]
  ca = "mirror.crt"
  client = [["a.cert", "a.key"]]
  override_path = true
  [host."https://mirror.example".header]
    authorization = "Basic c2VjcmV0"

[host."http://10.0.0.1:5000"]
  skip_verify = true
"""


def test_a_new_file() -> None:
    assert hosts.new(HERE, "https://quay.io") == (
        f"{hosts.COMMENT}\n"
        'server = "https://quay.io"\n\n'
        '[host."http://127.0.0.1:65001"]\n  capabilities = ["pull", "resolve"]\n'
    )


def test_an_existing_file_keeps_its_text() -> None:
    edited = hosts.with_gateway("f", EXISTING, HERE)
    block = '[host."http://127.0.0.1:65001"]\n  capabilities = ["pull", "resolve"]\n\n'
    assert edited == EXISTING.replace("# the old mirror\n", f"{block}# the old mirror\n")
    assert hosts.with_gateway("f", edited, HERE) == edited


def test_a_gateway_elsewhere_has_a_dial_timeout() -> None:
    there = parse_gateway("https://gateway.example")
    table = tomllib.loads(hosts.new(there, ""))
    assert table == {
        "host": {"https://gateway.example:443": {"capabilities": ["pull", "resolve"], "dial_timeout": "2s"}}
    }


@pytest.mark.parametrize(
    "text",
    [
        'host."https://a.example".capabilities = ["pull"]\n',
        'host = { "https://a.example" = { skip_verify = true }, "https://b.example" = {} }\n',
        '[host]\n"https://a.example" = { skip_verify = true }\n',
        '[host]\n  [host."https://a.example"]\n',
        'server = "https://a.example"',
        "[host]\n",
        'server = "x"\r\n\r\n[host."https://a.example"]\r\n',
        f'[host."https://a.example"]\n[host."{GATEWAY}"]\n  capabilities = ["pull"]\n',
        f'[host."{GATEWAY}/"]\n',
    ],
)
def test_however_a_file_is_written_its_hosts_come_after(text: str) -> None:
    before = tomllib.loads(text)
    edited = hosts.with_gateway("f", text, HERE)
    after = tomllib.loads(edited)
    ours, *others = after["host"]
    assert ours.rstrip("/") == GATEWAY
    kept = {url: o for url, o in before.get("host", {}).items() if url.rstrip("/") != GATEWAY}
    assert others == list(kept)
    assert {url: after["host"][url] for url in others} == kept
    assert {k: v for k, v in after.items() if k != "host"} == {k: v for k, v in before.items() if k != "host"}
    assert ("\r\n" in edited) == ("\r\n" in text)
    assert hosts.with_gateway("f", edited, HERE) == edited


def test_a_former_gateway_goes() -> None:
    text = hosts.with_gateway("f", EXISTING, HERE)
    other = parse_gateway("http://127.0.0.1:7000")
    edited = tomllib.loads(hosts.with_gateway("f", text, other, [GATEWAY]))
    assert list(edited["host"]) == ["http://127.0.0.1:7000", "https://mirror.example", "http://10.0.0.1:5000"]


URLS = st.sampled_from(
    [f"http{s}://{name}" for s in ("", "s") for name in ("a.example", "b", "10.0.0.1:5000")]
)
PATHS = st.text(st.characters(codec="utf-8"), max_size=10)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "capabilities": st.lists(st.sampled_from(["pull", "resolve", "push"]), unique=True),
        "ca": PATHS | st.lists(PATHS, max_size=3),
        "client": PATHS | st.lists(st.lists(PATHS, min_size=2, max_size=2), max_size=2),
        "skip_verify": st.booleans(),
        "override_path": st.booleans(),
        "header": st.dictionaries(PATHS, PATHS | st.lists(PATHS, max_size=2), max_size=2),
    },
)
FILES = st.builds(
    lambda root, server, listed: {**root, **server, **({"host": listed} if listed is not None else {})},
    OPTIONS,
    st.fixed_dictionaries({}, optional={"server": PATHS}),
    st.none() | st.dictionaries(URLS, OPTIONS, max_size=4),
)


@given(FILES, st.sampled_from(["", "# a comment\n", "\n\n"]))
def test_any_file_keeps_its_hosts(table: dict[str, object], top: str) -> None:
    text = top + toml_text.write(table)
    assume(tomllib.loads(text) == table)
    after = tomllib.loads(hosts.with_gateway("f", text, HERE))
    listed = table.get("host", {})
    assert isinstance(listed, dict)
    ours, *others = after.pop("host").items()
    assert ours == (GATEWAY, {"capabilities": ["pull", "resolve"]})
    assert others == list(listed.items())
    assert after == {k: v for k, v in table.items() if k != "host"}


def test_certificates_and_paths() -> None:
    names = ["ca.crt", "a.cert", "a.key", "b.cert", "notes.txt"]
    base = hosts.certificates("/d", names)
    assert base == {"ca": ["/d/ca.crt"], "client": [["/d/a.cert", "/d/a.key"], ["/d/b.cert", ""]]}
    moved = hosts.absolute(tomllib.loads(EXISTING), "/certs/_default")
    mirror = moved["host"]["https://mirror.example"]
    assert mirror["ca"] == "/certs/_default/mirror.crt"
    assert mirror["client"] == [["/certs/_default/a.cert", "/certs/_default/a.key"]]
    assert hosts.absolute({"ca": "/x/y.crt"}, "/d") == {"ca": "/x/y.crt"}


def test_upstreams() -> None:
    assert hosts.server_of("docker.io") == "https://registry-1.docker.io"
    assert hosts.server_of("10.1.1.1:5000") == "https://10.1.1.1:5000"
    assert {hosts.server_of(name) for name in ("localhost:5000", "127.0.0.1:5000", "localhost")} == {""}


@pytest.mark.parametrize("text", ["host = 1\n", "[[host]]\n", '[host]\n"https://x" = "y"\n', "server = \n"])
def test_files_that_are_none(text: str) -> None:
    with pytest.raises(BrokenFile, match=r"^/etc/hosts.toml is broken, nothing was changed"):
        hosts.with_gateway("/etc/hosts.toml", text, HERE)
