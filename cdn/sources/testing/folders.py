"""Checks of listing."""

from __future__ import annotations

from cdn.sources.interface import AsyncResourceClient, SourceEntry
from cdn.sources.testing.example import Example, check, doing, expect, last_part, read, same
from shared.errors import SourceError


@check
async def what_cannot_be_listed_says_so(example: Example, client: AsyncResourceClient) -> None:
    """Without a folder in the example, listing raises SourceError."""
    if example.folder:
        return
    try:
        entries = await client.list(example.request())
    except SourceError:
        return
    raise AssertionError(
        f"list gave {entries!r} for {example.url}: raise SourceError (or leave list out) where there is no "
        "folder; when the source can list, give the example a folder"
    )


@check
async def a_folder_lists_its_children(example: Example, client: AsyncResourceClient) -> None:
    """A folder lists what lies directly below it, each once, and tells files from folders."""
    if not example.folder:
        return
    kinds: dict[str, bool] = {}
    for entry in await _list(example, client, example.folder):
        name = last_part(entry.url)
        expect(name not in kinds, f"list names {name!r} twice: each child comes once")
        kinds[name] = entry.is_folder
    for name, is_folder in example.children.items():
        expect(name in kinds, f"list leaves out {name!r}: it gave {', '.join(sorted(kinds)) or 'nothing'}")
        kind = "a folder" if kinds[name] else "a file"
        expect(kinds[name] == is_folder, f"list says that {name!r} is {kind}, which it is not")
    extra = sorted(kinds.keys() - example.children.keys())
    expect(
        not extra,
        f"list gave {', '.join(extra)} too: it gives what lies directly below the folder, and not the folder "
        "itself, the one above it, or what lies deeper",
    )


@check
async def what_is_listed_reads_back(example: Example, client: AsyncResourceClient) -> None:
    """The URL of each child can be downloaded (a file, with the length told) or listed (a folder)."""
    if not example.folder:
        return
    for entry in await _list(example, client, example.folder):
        if entry.is_folder:
            await _list(example, client, entry.url)
            continue
        with doing(f"download of {entry.url}, which was listed,"):
            response = await client.download(example.request(url=entry.url))
        if entry.size >= 0:
            with doing(f"reading {entry.url}, which was listed,"):
                content = await read(response, max(entry.size, len(example.content)))
            expect(
                len(content) == entry.size,
                f"list says that {entry.url} has {entry.size} bytes, and it has {len(content)}: -1 is unknown",
            )
            if entry.url == example.url:
                same(content, example.content, f"{entry.url}, which was listed,")
        await response.aclose()


async def _list(example: Example, client: AsyncResourceClient, url: str) -> list[SourceEntry]:
    with doing(f"list of {url}"):
        entries = list(await client.list(example.request(url=url)))
    for entry in entries:
        expect(isinstance(entry, SourceEntry), f"list gave {entry!r}: give SourceEntry(url, is_folder, size)")
        expect(
            entry.url.partition(":")[0].lower() == url.partition(":")[0].lower(),
            f"list of {url} gave {entry.url!r}: give whole URLs of the same scheme",
        )
    return entries
