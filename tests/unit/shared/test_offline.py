"""What counts as having no network, and for how long that is waited out."""

from __future__ import annotations

import errno
import socket
from math import inf

import pytest

from shared.errors import SourceError
from shared.offline import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, Offline, is_offline


def raised(*errors: BaseException, hidden: bool = False) -> BaseException:
    """The last of the errors, each one of which was raised while the one before was handled."""
    before: BaseException | None = None
    for error in errors:
        if hidden:
            error.__context__, error.__cause__ = before, None
        else:
            error.__cause__ = before
        before = error
    assert before is not None
    return before


@pytest.mark.parametrize(
    "number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL]
)
@pytest.mark.parametrize("hidden", [True, False])
def test_no_way_out_whoever_tells_it(number: int, hidden: bool) -> None:
    cause = OSError(number, "no way")
    assert is_offline(cause)
    assert is_offline(raised(cause, RuntimeError("of a library"), SourceError("ours"), hidden=hidden))


def test_names() -> None:
    assert is_offline(socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert not is_offline(socket.gaierror(socket.EAI_NONAME, "no such name"))


@pytest.mark.parametrize(
    "error",
    [
        None,
        OSError(errno.ECONNREFUSED, "refused"),
        OSError("without a number"),
        SourceError("it is gone", origin_status=404),
        raised(OSError(errno.ENETUNREACH, "once"), SourceError("but then it answered", origin_status=500)),
    ],
)
def test_other_troubles(error: BaseException | None) -> None:
    assert not is_offline(error)


def test_what_was_told_by_whoever_saw_the_cause() -> None:
    assert is_offline(SourceError("no network", offline=True))


def test_a_chain_without_end() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_offline(first)


def test_pauses_grow_and_end() -> None:
    offline = Offline()
    assert offline.again_at() == inf
    now, pauses = 100.0, []
    for _ in range(100):
        offline.failed(now)
        again = offline.again_at()
        if again == inf:
            break
        pauses.append(again - now)
        now = again
    assert now == 100 + PATIENCE
    assert pauses[0] == FIRST_PAUSE
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == LONGEST_PAUSE


def test_another_time_begins_anew() -> None:
    offline = Offline()
    offline.failed(0.0)
    offline.failed(PATIENCE)
    assert offline.again_at() == inf
    offline.failed(3 * PATIENCE)
    assert offline.again_at() == 3 * PATIENCE + FIRST_PAUSE
    offline.end()
    assert offline.again_at() == inf
    offline.failed(3 * PATIENCE + 1)
    assert offline.again_at() == 3 * PATIENCE + 1 + FIRST_PAUSE
