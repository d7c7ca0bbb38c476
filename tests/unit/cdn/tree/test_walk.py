"""Listing a folder and what lies below it."""

from __future__ import annotations

import pytest

from cdn.sources.interface import SourceEntry, SourceRequest
from cdn.tree import walk as module
from cdn.tree.order import TreeOrder
from cdn.tree.walk import Listing, walk
from shared.errors import SourceError
from tests.unit.cdn.tree.folders import ROOT, FolderSource

FILES = {"a": b"1", "b/c": b"2", "b/d/e": b"3", "b/d/f/g": b"4", "z.txt": b"5"}


async def listing_of(source: FolderSource, order: TreeOrder = TreeOrder()) -> Listing:  # noqa: B008
    return await walk(source, SourceRequest(ROOT), order, lambda: None)


def paths(listing: Listing) -> list[str]:
    return [file.path for file in listing.files]


async def test_all_levels() -> None:
    source = FolderSource(FILES)
    assert paths(await listing_of(source)) == sorted(FILES)
    assert set(source.lists.values()) == {1}


@pytest.mark.parametrize(("level", "count"), [(1, 2), (2, 3), (3, 4), (4, 5), (0, 5)])
async def test_levels(level: int, count: int) -> None:
    assert len(paths(await listing_of(FolderSource(FILES), TreeOrder(level)))) == count


async def test_globs_and_folders_that_are_not_entered() -> None:
    source = FolderSource(FILES)
    assert paths(await listing_of(source, TreeOrder(0, ("e", "g", "a"), ("f",)))) == ["a", "b/d/e"]
    assert "b/d/f/" not in source.lists


async def test_headers_go_along() -> None:
    source = FolderSource(FILES)
    await walk(source, SourceRequest(ROOT, {"authorization": "x"}), TreeOrder(), lambda: None)
    assert all(request.headers == {"authorization": "x"} for request in source.asked)


async def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_goes_on() -> None:
    source = FolderSource(FILES)
    source.errors["b/d/"] = SourceError("it answered 403", origin_status=403)
    listing = await listing_of(source)
    assert paths(listing) == ["a", "b/c", "z.txt"]
    assert listing.refused == [("b/d/", "the folder cannot be listed: it answered 403")]


async def test_a_root_that_cannot_be_listed_is_an_error() -> None:
    source = FolderSource(FILES)
    source.errors[""] = SourceError("it answered 404", origin_status=404)
    with pytest.raises(SourceError, match="leave -r out"):
        await listing_of(source)


@pytest.mark.parametrize(
    "url",
    [
        ROOT + "../../etc/passwd",
        ROOT + "%2e%2e",
        ROOT + "%2e%2e%2fx",
        ROOT + "a%00",
        ROOT + "x" * 300,
        ROOT + "/abs",
        ROOT + "a%5cb",
        "mem://box/other",
        "mem://elsewhere/top/a",
        "file:///etc/passwd",
        "",
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
async def test_names_that_lead_elsewhere_are_refused(url: str, is_folder: bool) -> None:
    source = FolderSource({"good": b"1"})
    source.listed[""] = [SourceEntry(url, is_folder), SourceEntry(ROOT + "good")]
    listing = await listing_of(source)
    assert paths(listing) == ["good"]
    assert len(listing.refused) == 1
    assert sum(source.lists.values()) == 1


async def test_a_source_may_encode_its_urls_in_another_way() -> None:
    source = FolderSource({})
    root = ROOT + "a(b) c/"
    source.listed["a(b) c/"] = [
        SourceEntry(ROOT + "a%28b%29%20c/x%28"),
        SourceEntry(ROOT + "a%28b%29%20c/sub?key=1", True),
        SourceEntry(ROOT + "a%28b%29/other"),
    ]
    source.listed["a(b) c/sub/"] = [SourceEntry(ROOT + "a(b) c/sub/y?key=1")]
    listing = await walk(source, SourceRequest(root), TreeOrder(), lambda: None)
    assert [(file.path, file.name) for file in listing.files] == [("sub/y", "sub/y?key=1"), ("x(", "x%28")]
    assert len(listing.refused) == 1


async def test_the_folder_itself_in_its_own_listing_is_passed_over() -> None:
    source = FolderSource({})
    source.listed[""] = [SourceEntry(ROOT, True), SourceEntry(ROOT + "a")]
    listing = await listing_of(source)
    assert (paths(listing), listing.refused) == (["a"], [])


async def test_duplicates() -> None:
    source = FolderSource({})
    twice = [SourceEntry(ROOT + "a%20b"), SourceEntry(ROOT + "a%20b"), SourceEntry(ROOT + "a b")]
    source.listed[""] = [*twice, SourceEntry(ROOT + "d", True), SourceEntry(ROOT + "d/", True)]
    source.listed["d/"] = []
    listing = await listing_of(source)
    assert paths(listing) == ["a b"]
    assert [name for name, _ in listing.refused] == ["a b"]
    assert source.lists["d/"] == 1


async def test_a_file_that_is_a_folder_too() -> None:
    source = FolderSource({})
    source.listed[""] = [SourceEntry(ROOT + "a"), SourceEntry(ROOT + "a/", True)]
    source.listed["a/"] = [SourceEntry(ROOT + "a/b")]
    listing = await listing_of(source)
    assert paths(listing) == ["a"]
    assert listing.refused == [("a/b", "it lies in a folder that is a file, too (a)")]


async def test_a_folder_in_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(FolderSource):
        async def list(self, request: SourceRequest) -> list[SourceEntry]:
            self.lists[request.url] += 1
            return [SourceEntry(request.url + "again/", True), SourceEntry(request.url + "file")]

    source = Endless({})
    assert len((await listing_of(source)).files) == 5
    assert len((await listing_of(source, TreeOrder(0))).files) == 100


async def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(FolderSource):
        async def list(self, request: SourceRequest) -> list[SourceEntry]:
            self.lists[request.url] += 1
            folders = [SourceEntry(f"{request.url}{n}/", True) for n in range(10)]
            return [*folders, *(SourceEntry(f"{request.url}file{n}") for n in range(10))]

    monkeypatch.setattr(module, "MAX_FILES", 500)
    source = Wide({})
    with pytest.raises(SourceError, match="more than 500 files"):
        await listing_of(source, TreeOrder(0))
    assert sum(source.lists.values()) < 100


async def test_patience(autojump_clock: object) -> None:
    import trio

    class Slow(FolderSource):
        async def list(self, request: SourceRequest) -> list[SourceEntry]:
            await trio.sleep(100)
            return [SourceEntry(request.url + "again/", True)]

    with pytest.raises(SourceError, match="is not listed after 600 s"):
        await listing_of(Slow({}), TreeOrder(0))


async def test_etag_tells_listings_apart() -> None:
    source = FolderSource(dict(FILES))
    first = (await listing_of(source)).etag
    assert first == (await listing_of(source)).etag
    assert not first.startswith("W/")
    source.files["z.txt"] = b"6"
    changed = (await listing_of(source)).etag
    source.files["new"] = b""
    grown = (await listing_of(source)).etag
    assert len({first, changed, grown}) == 3
    source.sizes = source.versions = False
    assert (await listing_of(source)).etag.startswith("W/")
