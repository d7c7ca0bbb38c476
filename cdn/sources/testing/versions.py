"""Checks of what tells one version of a content from another."""

from __future__ import annotations

from cdn.sources.interface import AsyncResourceClient, ExpireInfo, SourceRequest
from cdn.sources.testing.example import Example, check, doing, expect, read_all
from shared.errors import SourceError


async def _version(client: AsyncResourceClient, request: SourceRequest) -> ExpireInfo:
    with doing("download"):
        response = await client.download(request)
    await response.aclose()
    return ExpireInfo(response.last_modified, response.etag)


async def _expired(client: AsyncResourceClient, request: SourceRequest, info: ExpireInfo) -> bool:
    with doing("is_expired"):
        expired = await client.is_expired(request, info)
    expect(isinstance(expired, bool), f"is_expired gave {expired!r}: it says True or False")
    return expired


@check
async def answers_tell_the_same_version(example: Example, client: AsyncResourceClient) -> None:
    """All answers of one version, parts too, have the same ETag and time of change."""
    first = await _version(client, example.request())
    again = await _version(client, example.request())
    expect(
        first == again,
        f"two answers for the same content tell two versions ({first} and {again}): an ETag changes when the "
        "content does; leave it out when nothing tells versions apart",
    )
    with doing("is_support_range"):
        ranged = await client.is_support_range(example.request())
    if ranged and len(example.content) > 1:
        part = await _version(client, example.request(range=(1, 1)))
        expect(
            part == first,
            f"a part tells another version ({part}) than the whole ({first}): parts would not be put together",
        )


@check
async def just_read_is_not_expired(example: Example, client: AsyncResourceClient) -> None:
    """What was read just now is not expired, as far as anything tells versions apart."""
    info = await _version(client, example.request())
    if info == ExpireInfo():
        return
    expect(
        not await _expired(client, example.request(), info),
        f"is_expired says True for {info}, which was read just now: everything would be read again and again",
    )


@check
async def another_version_is_expired(example: Example, client: AsyncResourceClient) -> None:
    """Where the source has ETags, another one is expired; what never changes is never asked about."""
    info = await _version(client, example.request())
    if not info.etag or client.is_immutable(example.request()):
        return
    other = ExpireInfo("Thu, 01 Jan 1970 00:00:01 GMT" if info.last_modified else "", '"another version"')
    expect(
        await _expired(client, example.request(), other),
        f"is_expired says False for the ETag {other.etag}, and the source has {info.etag}: "
        "changed content would never be noticed",
    )


@check
async def trouble_is_not_expiry(example: Example, client: AsyncResourceClient) -> None:
    """is_expired fails, or says False, where nothing can be found out: a source in trouble is not asked for
    more."""
    if not example.missing:
        return
    info = await _version(client, example.request())
    try:
        expired = await client.is_expired(example.request(url=example.missing), info)
    except SourceError:
        return
    expect(
        expired is False,
        f"is_expired says {expired!r} for {example.missing}, where nothing is: only a version that is there and "
        "another one counts as expired",
    )


@check
async def immutable_is_said_without_waiting(example: Example, client: AsyncResourceClient) -> None:
    """is_immutable decides by the URL alone, and says True only for what does not change."""
    with doing("is_immutable"):
        immutable = client.is_immutable(example.request())
    expect(
        isinstance(immutable, bool),
        f"is_immutable gave {immutable!r}: it is a plain function that says True or False",
    )
    expect(
        not (immutable and example.change is not None),
        "is_immutable says True for content that the example can change: it would never be asked for again",
    )


@check
async def changed_content_is_noticed(example: Example, client: AsyncResourceClient) -> None:
    """After a change is_expired says True, answers tell another version, and the new content comes."""
    if example.change is None:
        return
    before = await _version(client, example.request())
    with doing("the example's change"):
        await example.changed()
    limit = 2 * len(example.content) + 1024 * 1024
    content = await read_all(client, example.request(), limit)
    expect(content != example.content, "after the example's change the client still gives the old content")
    if before == ExpireInfo():
        return  # nothing tells versions apart: the engine compares the bytes
    after = await _version(client, example.request())
    expect(
        after != before,
        f"the content changed and answers still tell {before}: old and new parts would be put together",
    )
    expect(
        await _expired(client, example.request(), before),
        f"the content changed and is_expired says False for {before}, which is the old version",
    )
    expect(
        not await _expired(client, example.request(), after),
        f"is_expired says True for {after}, which is the version after the change",
    )
