"""Checks of parts of contents."""

from __future__ import annotations

from cdn.sources.interface import AsyncResourceClient, RangeNotSatisfiable
from cdn.sources.testing.example import Example, check, doing, expect, read, read_all, same
from shared.errors import SourceError


async def _ranged(example: Example, client: AsyncResourceClient) -> bool:
    with doing("is_support_range"):
        supported = await client.is_support_range(example.request())
    expect(isinstance(supported, bool), f"is_support_range gave {supported!r}: it says True or False")
    return supported and len(example.content) > 0


@check
async def ranges_are_exact(example: Example, client: AsyncResourceClient) -> None:
    """Where ranges are supported, each gives exactly its bytes: 206, first, last and total."""
    if not await _ranged(example, client):
        return
    total = len(example.content)
    middle = total // 2
    for first, last in (
        (0, 0),
        (0, total - 1),
        (middle, middle),
        (total - 1, total - 1),
        (total // 3, middle),
        (middle, None),
        (total - 1, None),
        (0, None),
        (middle, total + 1000),
    ):
        stop = total if last is None else min(last + 1, total)
        asked = f"the range {first}-{'' if last is None else last} of {total} bytes"
        with doing(f"download of {asked}"):
            response = await client.download(example.request(range=(first, last)))
        with doing(f"reading {asked}"):
            found = await read(response, total)
        expect(
            response.status == 206,
            f"{asked} has status {response.status}: a part is 206; "
            "when ranges cannot be had, is_support_range says False",
        )
        part = response.range
        told = part is not None and (part.first, part.last, part.total)
        expect(
            told == (first, stop - 1, total),
            f"{asked} came with the range {part}: it should be ContentRange({first}, {stop - 1}, {total})",
        )
        expect(
            response.content_length in (stop - first, -1),
            f"{asked} says content_length {response.content_length}: that of a part is its own, "
            f"{stop - first}, or -1",
        )
        same(found, example.content[first:stop], asked)


@check
async def ranges_beyond_the_end_are_refused(example: Example, client: AsyncResourceClient) -> None:
    """A range of which the source has no byte raises RangeNotSatisfiable."""
    if not await _ranged(example, client):
        return
    total = len(example.content)
    for first, last in ((total, None), (total + 5, total + 10)):
        asked = f"the range {first}-{'' if last is None else last} of {total} bytes"
        try:
            response = await client.download(example.request(range=(first, last)))
        except RangeNotSatisfiable as error:
            expect(
                error.total in (None, total),
                f"{asked} was refused with total {error.total}: tell the source's length, or None",
            )
        except SourceError as error:
            raise AssertionError(
                f"{asked} raised SourceError ({error}): raise RangeNotSatisfiable"
            ) from error
        else:
            await response.aclose()
            raise AssertionError(
                f"{asked} was answered with status {response.status}: raise RangeNotSatisfiable"
            )


@check
async def without_ranges_the_whole_comes(example: Example, client: AsyncResourceClient) -> None:
    """Where ranges are not supported, a request for one is answered with the whole content."""
    if await _ranged(example, client) or not example.content:
        return
    with doing("download of a range"):
        response = await client.download(example.request(range=(1, 2)))
    with doing("reading the answer"):
        found = await read(response, len(example.content))
    expect(
        response.status == 200 and response.range is None,
        f"is_support_range says False and a range was answered with status {response.status}, range "
        f"{response.range}: answer 200 with the whole content, or say True",
    )
    same(found, example.content, "the whole content, as answer to a range")


@check
async def a_range_of_another_version_is_not_given(example: Example, client: AsyncResourceClient) -> None:
    """With an if_range of another version comes the whole, or a part whose ETag tells its own version."""
    if not await _ranged(example, client):
        return
    with doing("download"):
        response = await client.download(example.request())
    await response.aclose()
    if not response.etag or response.etag.startswith("W/"):
        return  # the engine sends strong ETags only
    total = len(example.content)
    with doing("download of a range of this version"):
        part = await client.download(example.request(range=(1, 2), if_range=response.etag))
    with doing("reading a range of this version"):
        found = await read(part, total)
    expect(
        part.status == 206,
        f"a range with the if_range of this very version has status {part.status}: it is 206",
    )
    same(found, example.content[1:3], "a range with the if_range of this version")
    with doing("download of a range of another version"):
        other = await client.download(example.request(range=(1, 2), if_range='"another version"'))
    with doing("reading the answer"):
        found = await read(other, total)
    if other.status == 206:
        expect(
            other.etag == response.etag,
            f"a range of another version (if_range) was answered with 206 and the ETag {other.etag!r}, and there "
            f"is {response.etag}: answer 200 with the whole content, or at least tell the ETag of what there is",
        )
        same(found, example.content[1:3], "a range of what there is, when another version was asked for,")
        return
    expect(other.status == 200, f"a range of another version has status {other.status}: it is 200, the whole")
    same(found, example.content, "the whole content, as answer to a range of another version")


@check
async def parts_make_the_whole(example: Example, client: AsyncResourceClient) -> None:
    """Consecutive ranges put together are the content."""
    if not await _ranged(example, client):
        return
    total, content = len(example.content), b""
    step = total // 5 + 1
    for first in range(0, total, step):
        request = example.request(range=(first, min(first + step, total) - 1))
        content += await read_all(client, request, total)
    same(content, example.content, "five ranges put together")
