"""``dragonet preheat``: what is asked for, what is shown, and how it ends."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from peer.cli import main
from peer.cli.execution import UsageError
from peer.cli.preheat import (
    Login,
    _tell,
    describe_preheat,
    describe_progress,
    failure_line,
    make_request,
    preheat_table,
    progress_of,
)
from peer.preheat_client import PreheatClient
from scheduler.preheat_orders import PreheatAsked
from shared.errors import DragonetError, TaskNotFound, Unavailable
from shared.http.client import ClientResponse, HttpClient
from shared.http.fields import Headers

FAILURE = {
    "what": "layer 1",
    "url": "oci://x",
    "words": "gone",
    "status": 404,
    "hosts": ["a", "b"],
    "count": 5,
}
JOB: dict[str, Any] = {
    "id": 17,
    "state": "partial",
    "what": "docker.io/library/alpine:3",
    "platforms": ["linux/amd64"],
    "to": "all",
    "private": False,
    "created": 1_700_000_000.0,
    "ended": 1_700_000_009.0,
    "seconds": 9.0,
    "items": 3,
    "hosts": 4,
    "contents": {"total": 12, "done": 7, "failed": 5, "running": 0},
    "bytes": {"total": 4096, "done": 2048, "by_source": {"origin": 1024, "peer": 1024, "store": 0}},
    "notes": ["7 platforms"],
    "failure": "gone",
    "failures": [FAILURE],
}


def asked(what: str, **fields: Any) -> PreheatAsked:
    defaults: dict[str, Any] = {
        "to": "seeders",
        "platforms": (),
        "tag": "",
        "application": "",
        "filtered": "",
        "timeout": "",
        "login": None,
    }
    return make_request(what, **(defaults | fields))


# --- what is asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["alpine", "reg:5000/a/b:1", "oci://r.test/a:1", "docker://alpine"])
def test_images(what: str) -> None:
    assert asked(what, platforms=("linux/arm64",)) == PreheatAsked(image=what, platforms=("linux/arm64",))


def test_urls() -> None:
    made = asked("https://h/f?a=1", to="all", tag="t", application="x", filtered="a&b", timeout="5m")
    assert made == PreheatAsked(
        url="https://h/f?a=1", to="all", tag="t", application="x", filtered=("a", "b"), timeout=300.0
    )


@pytest.mark.parametrize(
    ("what", "fields", "words"),
    [
        ("UPPER", {}, "name of an image"),
        ("alpine", {"to": "some"}, "which hosts"),
        ("alpine", {"platforms": ("amd64",)}, "linux/amd64"),
        ("alpine", {"tag": "x"}, "leave them out"),
        ("alpine", {"timeout": "soon"}, "duration"),
        ("alpine", {"timeout": "0"}, "more than 0"),
        ("https://h/f", {"platforms": ("linux/amd64",)}, "only an image"),
        ("https://", {}, "host"),
        ("alpine", {"login": Login(username="alice")}, "go together"),
        ("alpine", {"login": Login(password_file=Path("/x"))}, "go together"),
        ("alpine", {"login": Login(username="alice", password_file=Path("/no/such"))}, "cannot be read"),
        ("alpine", {"login": Login(header=("secret",))}, "'Name: value'"),
    ],
)
def test_what_is_written_wrongly(what: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        asked(what, **fields)
    assert "secret" not in str(caught.value)


def test_a_user_and_the_password_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    expected = {"authorization": "Basic " + base64.b64encode(b"alice:correct horse").decode()}
    assert asked("alpine", login=Login(username="alice", password_file=file)).headers == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\nmore"))
    assert asked("alpine", login=Login(username="alice", password_file=Path("-"))).headers == expected


def test_the_password_on_stdin_from_a_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    line = ["preheat", "alpine", "--username", "alice", "--password-file", "-", "--scheduler", "none"]
    assert main(line) == 2
    assert "cannot be 'none'" in capsys.readouterr().err
    assert sys.stdin.read() == ""


def test_options_of_the_source_and_headers() -> None:
    made = asked("r.test/a", login=Login(source_option=("token=t0k",), header=("X-A: b",)))
    assert made.headers == {"x-dragonet-source-token": "t0k", "x-a": "b"}
    assert "t0k" not in repr(made)


# --- what is shown -----------------------------------------------------------------------------------


def test_progress() -> None:
    assert describe_progress(progress_of(JOB), 512) == "12 of 12 contents, 2.0 KiB of 4.0 KiB, 512 B/s"
    unknown = JOB | {
        "contents": {"total": 0, "done": 0, "failed": 0, "running": 0},
        "bytes": {"total": 0, "done": 0, "by_source": {}},
    }
    assert describe_progress(progress_of(unknown), 0) == "finding out what is to be brought"


def test_the_end_of_one_that_failed_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    _tell(JOB)
    out, err = capsys.readouterr()
    assert out == "note: 7 platforms\n"
    assert err.splitlines() == [
        "dragonet: layer 1 at a, b and 3 more: gone",
        "dragonet: docker.io/library/alpine:3: 3 contents for 4 hosts: 5 of 12 could not be brought",
    ]


def test_the_end_of_one_that_succeeded(capsys: pytest.CaptureFixture[str]) -> None:
    _tell(JOB | {"state": "succeeded", "notes": []})
    line = "docker.io/library/alpine:3: 3 contents at 4 hosts in 9.0s (peer 1.0 KiB, origin 1.0 KiB)"
    assert capsys.readouterr().out.strip() == line


def test_the_end_of_one_that_failed_or_was_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    _tell(JOB | {"state": "failed", "notes": [], "failures": [], "failure": "no seeder is there"})
    _tell(JOB | {"state": "cancelled", "notes": [], "failures": [], "failure": None})
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "no seeder is there",
        "the preheat was cancelled",
    ]


def test_a_failure_at_one_host() -> None:
    assert failure_line(FAILURE | {"hosts": ["a"], "count": 1}) == "layer 1 at a: gone"


def test_the_table() -> None:
    head, line = preheat_table([JOB])
    assert head.split() == ["ID", "STATE", "CONTENTS", "BYTES", "HOSTS", "ORDERED", "WHAT"]
    assert line.split()[:3] == ["17", "partial", "7/12"]
    assert line.endswith("docker.io/library/alpine:3")
    assert preheat_table([])[1:] == []


def test_one_in_full() -> None:
    text = describe_preheat(JOB)
    assert "state:      partial" in text
    assert "contents:   3 contents for 4 hosts: 7 of 12 brought, 5 failed\n" in text
    assert text.endswith("note: 7 platforms\nfailed: layer 1 at a, b and 3 more: gone")
    assert "private" not in text
    assert "\x1b" not in describe_preheat(JOB | {"failure": "\x1b[2J"})


@pytest.mark.parametrize(
    ("items", "hosts", "counts", "words"),
    [
        (3, 2, (6, 0, 0), "3 contents for 2 hosts: 6 of 6 brought"),
        (1, 1, (0, 0, 1), "one content for one host: 0 of 1 brought, 1 under way"),
        (2, 2, (1, 1, 2), "2 contents for 2 hosts: 1 of 4 brought, 2 under way, 1 failed"),
    ],
)
def test_each_content_counts_once_for_each_host(
    items: int, hosts: int, counts: tuple[int, int, int], words: str
) -> None:
    done, failed, running = counts
    contents = {"total": items * hosts, "done": done, "failed": failed, "running": running}
    job = JOB | {"items": items, "hosts": hosts, "contents": contents}
    assert f"contents:   {words}\n" in describe_preheat(job)


def test_one_of_which_nothing_is_known_yet() -> None:
    nothing = {"total": 0, "done": 0, "failed": 0, "running": 0}
    assert "contents:" not in describe_preheat(JOB | {"items": 0, "hosts": 0, "contents": nothing})


# --- the scheduler -----------------------------------------------------------------------------------


class FakeHttp:
    """Answers once."""

    def __init__(self, status: int, body: object) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def request(self, method: str, url: str, **fields: Any) -> ClientResponse:
        self.asked.append((method, url, fields["headers"]))
        return ClientResponse(self.status, Headers([]), self.body)


def client(http: object, token: str = "") -> PreheatClient:
    assert isinstance(http, FakeHttp | HttpClient)
    return PreheatClient("http://s:8002/", token, http)  # type: ignore[arg-type]


async def test_the_token_is_shown_where_there_is_one() -> None:
    http = FakeHttp(200, {"preheats": []})
    assert await client(http).listing() == []
    assert await client(http, "t0k").listing() == []
    assert [headers.get("Authorization") for _, _, headers in http.asked] == [None, "Bearer t0k"]
    assert http.asked[0][:2] == ("GET", "http://s:8002/v1/preheats")


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, {"error": {"message": "no preheat of this id", "status": 404}}, TaskNotFound, "no preheat"),
        (404, b"<html>", TaskNotFound, "is it a scheduler"),
        (401, {"error": {"message": "show the token", "status": 401}}, DragonetError, "show the token"),
        (500, b"oops", DragonetError, "answered 500"),
        (200, b"oops", Unavailable, "not a dragonet scheduler"),
    ],
)
async def test_refusals(status: int, body: object, error: type[DragonetError], words: str) -> None:
    with pytest.raises(error, match=words):
        await client(FakeHttp(status, body)).show(1)


async def test_nobody_answers() -> None:
    async with HttpClient(connect_timeout=5) as http:
        with pytest.raises(Unavailable, match="--scheduler names another one"):
            await PreheatClient("http://127.0.0.1:1", "", http).listing()
