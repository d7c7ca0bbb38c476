"""Digests that content must have: the one by which it was asked for (``TaskSpec.digest``), else the one that
its source vouches for (``TaskMeta.digest``). Content that does not have its digest is given to nobody.

Each host finds out for itself, once for each content (the store remembers it): what another host says of
content is not believed.
"""

from __future__ import annotations

from typing import NoReturn

from shared.errors import DigestMismatch, InvalidRequest
from shared.swarm.task import HostTask
from shared.task.digest import parse_content_digest
from shared.task.identity import redact_url


class Unvouched(DigestMismatch):
    """The content does not have the digest that its source vouches for."""


def promised(task: HostTask) -> str:
    """The digest that the content must have, "" for none."""
    meta = task.meta
    return task.spec.digest or ("" if meta is None else meta.digest)


def is_vouched(task: HostTask) -> bool:
    """Whether the content has the digest that it must have, if any."""
    content = task.content
    return content is not None and promised(task) in ("", content.record.verified)


def check_vouched(task: HostTask) -> None:
    """Raises Unvouched when the content was found not to have its source's digest."""
    if task.unvouched:
        raise Unvouched(task.unvouched)


async def see_vouched(task: HostTask) -> NoReturn:
    """Until cancelled: have the content hashed where its source names a digest, and note what comes out."""
    while True:
        meta = task.meta
        if meta is None or is_vouched(task) or task.unvouched:
            await task.pulse.wait()
            continue
        try:
            expected = promised(task)
            algorithm, wanted = parse_content_digest(expected)
        except InvalidRequest as error:
            _refuse(task, f"{redact_url(task.spec.url)} vouches for its content in vain: {error}")
            continue
        found = await task.hashes.of(algorithm)
        content = task.content
        if content is None or promised(task) != expected:
            continue  # another version came meanwhile
        if found == wanted:
            content.verified(expected)
            task.pulse.beat()
        else:
            _refuse(
                task,
                f"the content of {redact_url(task.spec.url)} has {algorithm}:{found}, not the "
                f"{algorithm}:{wanted} that "
                f"{'was asked for' if task.spec.digest else 'its source vouches for'}: nothing of it is kept; "
                "tell those who run the source",
            )


def _refuse(task: HostTask, words: str) -> None:
    task.unvouched = words
    task.pulse.beat()
