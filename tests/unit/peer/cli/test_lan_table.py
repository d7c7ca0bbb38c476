"""What ``dragonet lan`` prints, whatever others call themselves."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from peer.cli.lan_table import cell, describe_ignored, headline, lan_lines
from peer.lan.views import HostView, LanView, Mode

GIB = 1 << 30
HERE = HostView(
    id="a" * 16,
    name="anna",
    role="peer",
    address="192.168.1.20:65002",
    addresses=("192.168.1.20:65002",),
    version="0.1.0",
    state="present",
    tasks=3,
    held=4 * GIB,
    member=True,
    schedules=True,
)
BERT = msgspec.structs.replace(
    HERE,
    id="b" * 16,
    name="bert",
    address="192.168.1.21:65002",
    addresses=(),
    rtt=0.0012,
    found=("mdns", "lease"),
    tasks=1,
)
CLARA = HostView(
    id="c" * 16,
    name="clara",
    role="peer",
    addresses=("192.168.1.24:65002", "[fe80::1%eth0]:65002", "10.8.0.24:65002"),
    found=("mdns",),
)
SCHEDULER = HostView(
    id="s",
    name="zeus",
    role="scheduler",
    address="192.168.1.9:8002",
    version="0.1.0",
    state="present",
    member=True,
)


def view(*hosts: HostView, mode: Mode = "ring", here: HostView = HERE, **more: object) -> LanView:
    return msgspec.structs.replace(LanView(here=here, mode=mode, hosts=hosts), **more)


def test_a_ring() -> None:
    assert lan_lines(view(CLARA, BERT), 0.0) == [
        "cluster default: this host and 1 other; no scheduler, so the hosts schedule for each other (a ring of 2)",
        "",
        "NAME   ROLE  STATE          ADDRESS             VERSION  HOLDS             RTT     FOUND BY     ALSO AT",
        "anna   peer  self           192.168.1.20:65002  0.1.0    3 tasks, 4.0 GiB",
        "bert   peer  present        192.168.1.21:65002  0.1.0    1 task, 4.0 GiB   1.2 ms  mdns, lease",
        "clara  peer  no answer yet  192.168.1.24:65002  ?                                  mdns         "
        "10.8.0.24:65002",
    ]


def test_who_schedules() -> None:
    found = view(SCHEDULER, BERT, mode="scheduler", schedulers=("http://192.168.1.9:8002",))
    assert headline(found).endswith("this host and 1 other; scheduler http://192.168.1.9:8002 (found)")
    assert lan_lines(found, 0.0)[4].startswith("zeus  scheduler  present  192.168.1.9:8002    0.1.0")
    two = msgspec.structs.replace(found, schedulers=("http://a:1", "http://b:2"))
    assert headline(two).endswith("schedulers http://a:1, http://b:2 (found)")
    told = view(mode="configured", schedulers=("http://s:8002",), cluster="lab")
    assert headline(told) == "cluster lab: this host, and no other; scheduler http://s:8002 (configured)"
    assert headline(view(mode="alone")).endswith("no scheduler, so this host works alone")


def test_states() -> None:
    gone = msgspec.structs.replace(BERT, state="absent", since=100.0)
    unused = msgspec.structs.replace(BERT, id="d", name="dora", member=False)
    lines = lan_lines(view(gone, unused, BERT), 140.0)
    assert [line.split("  ")[2].strip() for line in lines[4:]] == ["present", "not in use", "absent 40.0s"]


def test_many_that_do_not_exist_hide_nobody() -> None:
    ghosts = [HostView(id=f"{number}", name=f"a{number:03}") for number in range(500)]
    lines = lan_lines(view(*ghosts, BERT), 0.0)
    assert [line.split()[0] for line in lines[2:]] == [
        "NAME",
        "anna",
        "bert",
        *(f"a00{n}" for n in range(10)),
        "…",
    ]
    assert lines[-1] == "… and 490 others without an answer"


def test_without_a_daemon() -> None:
    nobody = HostView(id="", name="anna", state="absent")
    lines = lan_lines(view(BERT, here=nobody), 0.0)
    assert lines[0].startswith("cluster default: no daemon on this machine, 1 host elsewhere; no scheduler")
    assert [line.split()[0] for line in lines[2:]] == ["NAME", "bert"]
    assert headline(view(here=nobody, mode="alone")).endswith("0 hosts elsewhere; no scheduler")


def test_nobody_else() -> None:
    text = "\n".join(lan_lines(view(mode="alone", cluster="lab", ignored={"cluster": 2, "self": 9}), 0.0))
    for words in ("UDP 5353", "TCP 65002", "(here: lab)", "lan.peers", "Wi-Fi", "docs/howto/lan.md"):
        assert words in text
    assert text.endswith("\n\nignored: 2 of another cluster")
    assert "firewall there?" not in text
    announced = lan_lines(view(CLARA, mode="alone"), 0.0)
    assert any("no answer yet" in line and "firewall there?" in line for line in announced)
    off = lan_lines(view(mode="configured", schedulers=("http://s:1",), discovery=False), 0.0)
    assert "lan.discovery is off" in off[-2]
    assert "docs/howto/lan.md" in off[-1]


def test_what_was_ignored() -> None:
    assert describe_ignored(view(ignored={"self": 3, "protocol": 0})) == ""
    counted = describe_ignored(view(ignored={"malformed": 7, "protocol": 1, "new\x1b": 2}))
    assert (
        counted == "ignored: 7 that could not be read, 2 (new\\x1b), 1 with another version of the protocol"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("anna", "anna"),
        ("\x1b[2Jgone\r\n\x07", "\\x1b[2Jgone\\r\\n\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("e\u0301", "é"),
        ("x\u0301\u0301", "x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        ("机器", "机器"),
        ("n" * 41, "n" * 39 + "…"),
        ("n" * 40, "n" * 40),
        ("机" * 21, "机" * 19 + "…"),
        ("[red]", "[red]"),
    ],
)
def test_text_of_others(text: str, shown: str) -> None:
    assert cell(text) == shown


@given(st.text(max_size=200))
def test_no_text_leaves_its_cell(text: str) -> None:
    shown = cell(text)
    assert cell_len(shown) <= 40
    assert shown.isprintable()
    hostile = msgspec.structs.replace(
        BERT,
        name=text,
        role=text,
        address=text,
        version=text,
        found=(text,),
        location=text,
        addresses=(text,) * 20,
    )
    lines = lan_lines(view(hostile, ignored={text: 1}, cluster=text), 0.0)
    assert all(line.isprintable() for line in lines)
