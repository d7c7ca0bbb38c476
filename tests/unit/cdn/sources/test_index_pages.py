"""Pages that list folders, as servers make them and as nobody should."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources import index_pages
from cdn.sources.index_pages import read_index
from cdn.sources.interface import SourceEntry
from shared.errors import SourceError

PLACE = "http://host:8080/data/"

NGINX = """<html>\r
<head><title>Index of /data/</title></head>\r
<body>\r
<h1>Index of /data/</h1><hr><pre><a href="../">../</a>\r
<a href="sub/">sub/</a>                                               01-Jan-2026 10:00                   -\r
<a href="a%20b.bin">a b.bin</a>                                       01-Jan-2026 10:01               16384\r
<a href="long">long-name-that-is-cut..&gt;</a>                        02-Jan-2026 10:01                   0\r
</pre><hr></body>\r
</html>\r
"""

APACHE = """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of /data</title></head><body><h1>Index of /data</h1>
<table><tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th>
<th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td><img src="/icons/back.gif" alt="[PARENTDIR]"></td><td><a href="/">Parent Directory</a></td></tr>
<tr><td><a href="sub/"><img src="/icons/folder.gif" alt="[DIR]"></a></td><td><a href="sub/">sub/</a></td>
<td align="right">2026-01-01 10:00  </td><td align="right">  - </td><td>&nbsp;</td></tr>
<tr><td><img src="/icons/unknown.gif" alt="[   ]"></td><td><a href="a&amp;b.bin">a&amp;b.bin</a></td>
<td align="right">2026-01-01 10:01  </td><td align="right">1.5K</td><td>&nbsp;</td></tr>
</table><address>Apache/2.4.58 Server at host Port 8080</address></body></html>"""

PYTHON = """<!DOCTYPE HTML><html lang="en"><head><title>Directory listing for /data/</title></head><body>
<h1>Directory listing for /data/</h1><hr><ul>
<li><a href="sub/">sub/</a></li>
<li><a href="a%20b.bin">a b.bin</a></li>
<li><a href="link">link@</a></li>
</ul><hr></body></html>"""

CADDY = """<!DOCTYPE html><html><head><style>a { color: red }</style></head><body>
<script>document.write('<a href="from-a-script">x</a>')</script>
<table><tr class="file"><td></td><td><a href="./sub/"><svg></svg><span class="name">sub</span></a></td>
<td>&mdash;</td><td class="timestamp"><time datetime="2026-01-01T10:00:00Z">01/01/2026</time></td></tr>
<tr class="file"><td></td><td><a href="./a%20b.bin"><span class="name">a b.bin</span></a></td>
<td class="size" data-size="16384"><div class="sizebar"><div class="sizebar-text">16 KiB</div></div></td>
<td class="timestamp"><time datetime="2026-01-01T10:00:00Z">01/01/2026</time></td></tr></table></body></html>"""


def entries(page: str | bytes, kind: str = "text/html", place: str = PLACE) -> dict[str, SourceEntry]:
    body = page if isinstance(page, bytes) else page.encode()
    found = read_index(body, kind, place, PLACE)
    assert all(entry.url.startswith(PLACE) for entry in found)
    return {entry.url.removeprefix(PLACE): entry for entry in found}


def test_nginx() -> None:
    found = entries(NGINX)
    assert list(found) == ["sub/", "a%20b.bin", "long"]
    assert found["sub/"].is_folder
    assert found["a%20b.bin"] == SourceEntry(
        PLACE + "a%20b.bin", version="01-Jan-2026 10:01 16384", hint=16384
    )
    assert found["long"].hint == 0


def test_nginx_the_long_way_means_the_same() -> None:
    assert entries(NGINX.replace("<a ", "<A ").replace("</a>", "</A>")) == entries(NGINX)
    assert entries(NGINX + "<!-- end -->") == entries(NGINX)


def test_apache() -> None:
    found = entries(APACHE)
    assert list(found) == ["sub/", "a&b.bin"]
    assert found["sub/"].version == "2026-01-01 10:00 -"
    assert found["a&b.bin"] == SourceEntry(PLACE + "a&b.bin", version="2026-01-01 10:01 1.5K", hint=1536)


def test_python() -> None:
    found = entries(PYTHON, "text/html; charset=utf-8")
    assert list(found) == ["sub/", "a%20b.bin", "link"]
    assert found["link"] == SourceEntry(PLACE + "link")


def test_caddy() -> None:
    found = entries(CADDY)
    assert list(found) == ["sub/", "a%20b.bin"]
    assert "16 KiB" in found["a%20b.bin"].version


def test_nginx_json() -> None:
    page = json.dumps(
        [
            {"name": "sub", "type": "directory", "mtime": "Thu, 01 Jan 2026 10:00:00 GMT"},
            {"name": "a b%?.bin", "type": "file", "mtime": "Thu, 01 Jan 2026 10:00:00 GMT", "size": 5},
            {"name": "fifo", "type": "other", "mtime": "Thu, 01 Jan 2026 10:00:00 GMT"},
        ]
    )
    assert entries(page, "application/json") == {
        "sub/": SourceEntry(PLACE + "sub/", True, version="Thu, 01 Jan 2026 10:00:00 GMT"),
        "a%20b%25%3F.bin": SourceEntry(
            PLACE + "a%20b%25%3F.bin", size=5, version="Thu, 01 Jan 2026 10:00:00 GMT 5", hint=5
        ),
    }


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("a", "a"),
        ("./a", "a"),
        ("a/", "a/"),
        ("/data/a", "a"),
        ("//host:8080/data/a", "a"),
        ("http://host:8080/data/a", "a"),
        ("http://HOST:8080/data/a", "a"),
        ("../data/a", "a"),
        ("x/../a", "a"),
        (" a ", "a"),
        ("a b", "a%20b"),
        ("ä", "%C3%A4"),
        ("a&amp;b", "a&b"),
        ("a&#x2f;", "a/"),
        ("%2e%2e", "%2e%2e"),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
        ("a\x00b", "a%00b"),
        ("a:b", None),
        ("./a:b", "a:b"),
        ("/%64ata/a", "a"),
        ("../", None),
        ("..", None),
        (".", None),
        ("./", None),
        ("/", None),
        ("", None),
        ("/data/", None),
        ("/database", None),
        ("a/b", None),
        ("a//", "a/"),
        ("?C=N;O=D", None),
        ("a?x", None),
        ("a#x", None),
        ("#top", None),
        ("http://other/data/a", None),
        ("https://host:8080/data/a", None),
        ("http://host:81/data/a", None),
        ("http://host:8080@evil/data/a", None),
        ("ftp://host:8080/data/a", None),
        ("javascript:alert(1)", None),
        ("mailto:a@b", None),
        ("../../etc/passwd", None),
        ("http://[bad/", None),
        ("http://host:99999/data/a", None),
    ],
)
def test_what_counts_as_a_child(href: str, name: str | None) -> None:
    assert list(entries(f'<a href="{href}">x</a>')) == ([] if name is None else [name])


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("<a href=a>x</a><a href='b'>y</a>", ["a", "b"]),
        ('<a class="x" title=">" href="a">x</a>', ["a"]),
        ("<a title=\" href='wrong'\" href=right>x</a>", ["right"]),
        ('<a HREF = "a"\n>x</a>', ["a"]),
        ('<a href="a" href="b">', ["a"]),
        ('<abbr href="a"><area href="b"><article href="c">', []),
        ('<!-- <a href="a"> --><a href="b">', ["b"]),
        ("<script>'<a href=\"a\">'</script><a href=b>", ["b"]),
        ('<a href="a', []),
        ('<a href="a">same</a><a href="a">same</a>', ["a"]),
        ("<a>x</a><a name=x>y</a>", []),
        ('<a data-href="x" href="a">', ["a"]),
        ("<a/href=a>", ["a"]),
        ("<a href=>x", []),
        ("plain words", []),
        ("", []),
    ],
)
def test_links(page: str, names: list[str]) -> None:
    assert list(entries(page)) == names


def test_other_encodings() -> None:
    assert list(entries('<a href="é">'.encode("latin-1"), "text/html; charset=ISO-8859-1")) == ["%C3%A9"]
    assert list(entries(b'<a href="\xe9">', "text/html")) == ["%E9"]
    assert list(entries('<a href="é">', "text/html; charset=no-such")) == ["%C3%A9"]


def test_names_are_those_of_the_folder_after_a_redirection() -> None:
    found = read_index(b'<a href="a">', "text/html", "http://mirror/pub/", PLACE)
    assert [entry.url for entry in found] == [PLACE + "a"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\0\1", "application/octet-stream"),
        (b"x", ""),
        (b"x", "text/plain"),
        (b"{}", "application/json"),
        (b"[1]", "application/json"),
        (b"\xff", "application/json"),
        (b"", "application/json"),
    ],
)
def test_no_index(body: bytes, kind: str) -> None:
    with pytest.raises(SourceError) as caught:
        entries(body, kind)
    assert caught.value.fault == "request"


def test_more_links_than_anybody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pages, "MAX_ENTRIES", 10)
    with pytest.raises(SourceError, match="more than 10"):
        entries("".join(f"<a href={n}>" for n in range(12)))


TAGS = st.sampled_from(
    [
        "<a ",
        "href=",
        '"',
        "'",
        ">",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "</a>",
        "x",
        "../",
        "&amp;",
        "=",
        "/",
    ]
)


@given(st.lists(TAGS, max_size=40).map("".join) | st.binary(max_size=200))
def test_junk_gives_children_or_nothing(page: str | bytes) -> None:
    for name, entry in entries(page).items():
        assert name.strip("/")
        assert "/" not in name.removesuffix("/")
        assert not {"?", "#", " ", '"'} & set(name)
        assert name.isascii()
        assert entry.is_folder == name.endswith("/")


@pytest.mark.parametrize(
    "unit", ['<a x="', "<a href='", "<!--", "<script>", "<a ", "<", "<a a=b ", '<a "', "<a href=x ", "</a"]
)
def test_work_grows_with_the_page_only(unit: str) -> None:
    """A second for each would be much; were the work the square of the page, it would be hours."""
    assert len(entries(unit * 200_000)) <= 1
