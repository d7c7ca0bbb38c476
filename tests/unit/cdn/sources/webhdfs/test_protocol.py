"""Paths, versions and refusals of WebHDFS."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources.interface import SourceRequest
from cdn.sources.webhdfs.credentials import Credentials
from cdn.sources.webhdfs.protocol import FileStatus, Refused, child_url, path_of, refusal
from shared.errors import SourceError
from shared.task.identity import normalize_url

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("hdfs://n", "/"),
        ("hdfs://n/", "/"),
        ("hdfs:///a", "/a"),
        ("hdfs:/a", "/a"),
        ("hdfs://n//a//b/", "/a/b"),
        ("hdfs://n/a%20b/%C3%A4%3Fc;d%25;e", "/a b/ä?c;d%;e"),
        ("hdfs://n/a+b&c=d", "/a+b&c=d"),
    ],
)
def test_paths(url: str, path: str) -> None:
    assert path_of(SourceRequest(url)) == path


@pytest.mark.parametrize(
    "url", ["hdfs://n/../x", "hdfs://n/a/%2e%2E/jmx", "hdfs://n/./a", "hdfs://n/a%00", "hdfs://n/%ff"]
)
def test_paths_that_lead_elsewhere(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        path_of(SourceRequest(url))
    assert caught.value.fault == "request"


def test_queries_are_refused_without_being_shown() -> None:
    with pytest.raises(SourceError, match="query") as caught:
        path_of(SourceRequest("hdfs://n/a?delegation=SECRET"))
    assert "SECRET" not in str(caught.value)


@given(st.lists(NAMES, min_size=1, max_size=4), st.booleans())
def test_what_is_listed_can_be_asked_for(names: list[str], folder: bool) -> None:
    kind = "DIRECTORY" if folder else "FILE"
    *above, name = names
    path = "/" + "/".join(above)
    url = child_url(SourceRequest(f"hdfs://n{quote(path)}"), path, FileStatus(kind, path_suffix=name))
    assert url.endswith("/") == folder
    assert path_of(SourceRequest(url)) == "/" + "/".join(names)
    assert normalize_url(url)[0] == url, "the same file has one URL, whether it is typed or listed"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a\0b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SourceError, match="no name"):
        child_url(SourceRequest("hdfs://n/a"), "/a", FileStatus("FILE", path_suffix=name))


def test_versions() -> None:
    base = FileStatus("FILE", length=5, modification_time=1_700_000_000_123, file_id=7)
    others = [
        FileStatus("FILE", length=6, modification_time=1_700_000_000_123, file_id=7),
        FileStatus("FILE", length=5, modification_time=1_700_000_000_124, file_id=7),
        FileStatus("FILE", length=5, modification_time=1_700_000_000_123, file_id=8),
    ]
    assert len({each.etag for each in (base, *others)}) == 4
    assert base.etag.startswith('"')
    assert base.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (FileStatus("FILE", length=5).etag, FileStatus("FILE").last_modified) == ("", "")


NOBODY = Credentials("nobody")
TOKEN = Credentials("request", token="T0KEN")


def refused(
    status: int, exception: str = "", message: str = "", credentials: Credentials = NOBODY, **headers: str
) -> Refused:
    body = json.dumps({"RemoteException": {"exception": exception, "message": message}}).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal("hdfs://n/a", "hdfs", status, body if exception else b"<html>", fields, credentials)


@pytest.mark.parametrize(
    ("error", "status", "fault", "words"),
    [
        (refused(404, "FileNotFoundException", "File /a"), 404, "origin", "does not exist"),
        (refused(403, "FileNotFoundException"), 404, "origin", "does not exist"),
        (refused(403, "AccessControlException", "user=x"), 403, "reader", r"\(user=x\).*\.user where"),
        (refused(403, "AccessControlException", credentials=TOKEN), 403, "request", "permissions"),
        (refused(403, "InvalidToken", credentials=TOKEN), 401, "request", "of the request"),
        (refused(403, "SecurityException"), 401, "reader", "delegation_token"),
        (refused(401, credentials=Credentials("host", token="x")), 401, "origin", "may have expired"),
        (refused(401, credentials=Credentials("host", user="bob")), 401, "origin", r"\(bob\)"),
        (refused(401, credentials=Credentials("withheld")), 401, "reader", "add this one"),
        (refused(401, www_authenticate="Negotiate"), 401, "reader", "Kerberos"),
        (refused(403), 403, "reader", "may not be read"),
        (refused(403, "StandbyException"), 503, "reader", "no name node is active"),
        (refused(403, "RetriableException"), 503, "origin", "fails with RetriableException"),
        (refused(403, "IOException", "No active nodes"), 503, "origin", "No active nodes"),
        (refused(500, "NullPointerException"), 503, "origin", "try again later"),
        (refused(502), 503, "origin", "fails with 502"),
        (refused(400, "IllegalArgumentException", "bad path"), 400, "origin", "bad path"),
        (refused(404), None, "reader", "source.options.hdfs.http_port"),
        (refused(204), None, "reader", "does not speak WebHDFS"),
    ],
)
def test_refusals_in_words(error: Refused, status: int | None, fault: str, words: str) -> None:
    assert (error.origin_status, error.fault) == (status, fault)
    with pytest.raises(SourceError, match=words):
        raise error


def test_what_the_origin_says_is_cleaned() -> None:
    error = refused(403, "InvalidToken", "no T0KEN here\nat java.lang.Thread\x1b[1m" + "x" * 999, TOKEN)
    assert "(no *** here)" in str(error)
    error = refused(403, "IOException", "\x1b[1m" + "x" * 999)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 400
