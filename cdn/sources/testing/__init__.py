"""What every source must do, as checks that run against any resource client.

For the author of a plugin, in a test file beside it::

    class TestMySource(SourceConformance):
        @pytest.fixture
        def example(self):
            client = load_plugin("d7y-resource-plugin-myfs.py", {})
            return Example(client, url="myfs://host/a", content=b"…", missing="myfs://host/b")

Each check raises AssertionError in words that say what the client did and what it should do. Nothing but
dragonet is needed, and pytest for :class:`SourceConformance`; there is also ``for check in CHECKS: await
check(example)`` under trio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import trio

from cdn.sources.plugins.loading import load_plugin
from cdn.sources.testing import engine, folders, ranges, troubles, versions, whole
from cdn.sources.testing.example import Check, Example, as_plugin

__all__ = ["CHECKS", "Check", "Example", "SourceConformance", "load_plugin"]

CHECKS: tuple[Check, ...] = (
    whole.whole_content,
    whole.length_is_right_or_unknown,
    whole.answer_length_is_right_or_unknown,
    whole.digest_is_right_or_absent,
    whole.end_stays_the_end,
    whole.tiny_and_huge_buffers,
    whole.many_at_the_same_time,
    whole.last_modified_is_in_milliseconds,
    ranges.ranges_are_exact,
    ranges.ranges_beyond_the_end_are_refused,
    ranges.without_ranges_the_whole_comes,
    ranges.a_range_of_another_version_is_not_given,
    ranges.parts_make_the_whole,
    versions.answers_tell_the_same_version,
    versions.just_read_is_not_expired,
    versions.another_version_is_expired,
    versions.trouble_is_not_expiry,
    versions.immutable_is_said_without_waiting,
    versions.changed_content_is_noticed,
    troubles.missing_is_said_in_words,
    troubles.an_answer_can_be_closed_early,
    troubles.cancelled_reads_leave_the_client_usable,
    folders.what_cannot_be_listed_says_so,
    folders.a_folder_lists_its_children,
    folders.what_is_listed_reads_back,
    engine.the_engine_reads_it,
    engine.the_engine_reads_parts_at_the_same_time,
    engine.the_engine_reads_what_it_changed_to,
)
"""All checks. Each takes an :class:`Example` of its own where that has a ``change``: it changes once."""


class SourceConformance:
    """A class of pytest tests, one for each check; a class below it has a fixture ``example``.

    The fixture is made anew for each test (pytest's default): the client is closed after it.
    """


def _test(check: Check) -> Callable[[Any, Example], None]:
    async def run(example: Example) -> None:
        client = as_plugin(example.client)
        try:
            await check(dataclasses.replace(example, client=client))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await client.close()

    def test(self: Any, example: Example) -> None:
        trio.run(run, example)

    test.__doc__ = check.__doc__
    return test


for _check in CHECKS:
    setattr(SourceConformance, f"test_{_check.__name__}", _test(_check))
