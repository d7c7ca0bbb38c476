"""Checks of whole contents."""

from __future__ import annotations

import hashlib

import trio

from cdn.sources.interface import UNKNOWN_SOURCE_FILE_LENGTH, AsyncResourceClient
from cdn.sources.testing.example import Example, check, doing, expect, read, read_all, same


@check
async def whole_content(example: Example, client: AsyncResourceClient) -> None:
    """A download without a range gives the whole content, with status 200 and no range."""
    with doing("download"):
        response = await client.download(example.request())
    with doing("reading the answer"):
        found = await read(response, len(example.content))
    expect(
        response.status == 200,
        f"a download without a range has status {response.status}: the whole content is 200",
    )
    expect(response.range is None, f"a download without a range tells one ({response.range}): leave it out")
    same(found, example.content, "the whole content")


@check
async def length_is_right_or_unknown(example: Example, client: AsyncResourceClient) -> None:
    """get_content_length gives the length, or says that it is unknown."""
    with doing("get_content_length"):
        length = await client.get_content_length(example.request())
    expect(
        length in (len(example.content), UNKNOWN_SOURCE_FILE_LENGTH),
        f"get_content_length gave {length!r} for content of {len(example.content)} bytes: "
        f"give the length, or UNKNOWN_SOURCE_FILE_LENGTH ({UNKNOWN_SOURCE_FILE_LENGTH})",
    )


@check
async def answer_length_is_right_or_unknown(example: Example, client: AsyncResourceClient) -> None:
    """The content_length of an answer is its number of bytes, or -1."""
    with doing("download"):
        response = await client.download(example.request())
    await response.aclose()
    expect(
        response.content_length in (len(example.content), -1),
        f"the answer says content_length {response.content_length} and the content has "
        f"{len(example.content)} bytes: give the number of bytes in this answer, or -1",
    )


@check
async def digest_is_right_or_absent(example: Example, client: AsyncResourceClient) -> None:
    """A digest that the source vouches for is that of the whole content."""
    with doing("download"):
        response = await client.download(example.request())
    await response.aclose()
    right = "sha256:" + hashlib.sha256(example.content).hexdigest()
    expect(
        response.digest.lower() in ("", right),
        f"the answer vouches for {response.digest!r} and the content has {right}: "
        "nobody would be given such content; leave the digest out where the source does not vouch for one",
    )


@check
async def end_stays_the_end(example: Example, client: AsyncResourceClient) -> None:
    """receive_into gives 0 at the end, however often it is called."""
    with doing("download"):
        response = await client.download(example.request())
    buffer = memoryview(bytearray(64 * 1024))
    async with response:
        with doing("reading the answer"):
            while await response.receive_into(buffer):
                pass
        for _ in range(3):
            with doing("receive_into after the end"):
                count = await response.receive_into(buffer)
            expect(count == 0, f"receive_into gave {count!r} after the end: it gives 0 again and again")


@check
async def tiny_and_huge_buffers(example: Example, client: AsyncResourceClient) -> None:
    """The content is the same whatever the size of the buffers it is received into."""
    huge = 2 * len(example.content) + 4 * 1024 * 1024
    for sizes in ([1] * 30 + [2, 3, 7, 4097], [huge] * 64, [1, huge] * 32):
        with doing("reading the answer"):
            response = await client.download(example.request())
            found = await read(response, len(example.content), sizes)
        same(found, example.content, f"what was received into buffers of {sizes[0]}, {sizes[1]}, … bytes")


@check
async def many_at_the_same_time(example: Example, client: AsyncResourceClient) -> None:
    """Several downloads at the same time do not disturb each other."""
    found: list[bytes] = []
    errors: list[AssertionError] = []

    async def one() -> None:
        try:
            found.append(await read_all(client, example.request(), len(example.content)))
        except AssertionError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    if errors:
        raise AssertionError(f"of four downloads at the same time, one had trouble: {errors[0]}")
    for content in found:
        same(content, example.content, "one of four downloads at the same time")


@check
async def last_modified_is_in_milliseconds(example: Example, client: AsyncResourceClient) -> None:
    """get_last_modified gives milliseconds since 1970, or -1; not seconds, and not the future."""
    import time
    from email.utils import parsedate_to_datetime

    with doing("get_last_modified"):
        moment = await client.get_last_modified(example.request())
    expect(
        isinstance(moment, int) and moment >= -1,
        f"get_last_modified gave {moment!r}: give whole milliseconds since 1970, or -1 for unknown",
    )
    expect(
        not 10**8 <= moment < 10**11,
        f"get_last_modified gave {moment}, which is early in the seventies: seconds? It is milliseconds",
    )
    expect(
        moment <= (time.time() + 86400) * 1000,
        f"get_last_modified gave {moment}, which is in the future: it is milliseconds since 1970",
    )
    with doing("download"):
        response = await client.download(example.request())
    await response.aclose()
    try:
        told = parsedate_to_datetime(response.last_modified).timestamp()
    except ValueError:
        return  # another form than HTTP's: only compared for equality
    expect(
        moment == -1 or abs(moment // 1000 - told) <= 1,
        f"get_last_modified gave {moment} and the answer says {response.last_modified!r}: "
        "both are the time of the same change",
    )
