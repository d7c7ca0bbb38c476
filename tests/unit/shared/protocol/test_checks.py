"""What a scheduler decides that wants no good, or is out of its mind, is not carried out."""

from __future__ import annotations

import msgspec
import pytest

from shared.errors import InvalidRequest
from shared.protocol import (
    Assignment,
    Beat,
    CheckGranted,
    Failure,
    Parent,
    ParentsAssigned,
    PieceDigests,
    SourceGranted,
    TaskDescribed,
    TaskFailed,
    TaskFresh,
    TaskMeta,
    TaskMoved,
    Welcome,
)
from shared.protocol.checks import MAX_PARENTS, check_assignment
from shared.task.identity import TaskSpec

SPEC = TaskSpec("https://origin.example/file")
TASK = SPEC.task_id
META = TaskMeta("v", 1 << 20, 10 << 20)
OTHER = msgspec.structs.replace


def parents(*told: Parent) -> ParentsAssigned:
    return ParentsAssigned(TASK, list(told))


PARENT = Parent("host", "192.0.2.1:65002")

GOOD: list[Assignment] = [
    Welcome("s"),
    Beat(),
    TaskDescribed(TASK, META),
    TaskDescribed(TASK, TaskMeta("v", 4 << 20)),
    PieceDigests(TASK, "v", {0: bytes(32), 9: bytes(32)}),
    parents(),
    parents(PARENT, OTHER(PARENT, stripe=(2, 3)), OTHER(PARENT, far=True, carries=(1 << 64) - 1)),
    SourceGranted(TASK, "g", SPEC),
    SourceGranted(TASK, "g", SPEC, META, [(0, 3), (5, 1)], {0: bytes(32)}),
    CheckGranted(TASK, "g", SPEC, META, 10.0),
    TaskFresh(TASK, 60.0),
    TaskMoved(TASK, "0123456789ab"),
    TaskFailed(TASK, Failure("no", 404, 3.0), {"https://origin.example/file": Failure("no")}),
]

BAD: list[Assignment] = [
    TaskDescribed("", META),
    TaskDescribed("x" * 100_000, META),
    TaskDescribed(TASK, OTHER(META, piece_length=0)),
    TaskDescribed(TASK, OTHER(META, piece_length=-1)),
    TaskDescribed(TASK, OTHER(META, piece_length=1 << 62)),
    TaskDescribed(TASK, OTHER(META, piece_length=1, length=1 << 62)),
    TaskDescribed(TASK, OTHER(META, length=-1)),
    TaskDescribed(TASK, OTHER(META, version="")),
    TaskDescribed(TASK, OTHER(META, sha256="x" * 100_000)),
    TaskDescribed(TASK, OTHER(META, revalidate=float("nan"))),
    PieceDigests(TASK, "v", {1 << 62: bytes(32)}),
    PieceDigests(TASK, "v", {-1: bytes(32)}),
    PieceDigests(TASK, "v", {0: b""}),
    parents(*[PARENT] * (MAX_PARENTS + 1)),
    parents(OTHER(PARENT, address="two words:1")),
    parents(OTHER(PARENT, address="h\r\nX: y:1")),
    parents(OTHER(PARENT, host="")),
    parents(OTHER(PARENT, host="x" * 100_000)),
    parents(OTHER(PARENT, stripe=(0, 0))),
    parents(OTHER(PARENT, stripe=(-1, 2))),
    parents(OTHER(PARENT, stripe=(0, 1 << 60))),
    SourceGranted(TASK, "", SPEC),
    SourceGranted("0" * 64, "g", SPEC),
    SourceGranted(TASK, "g", OTHER(SPEC, digest="md5:0")),
    SourceGranted(TASK, "g", SPEC, OTHER(META, piece_length=0)),
    SourceGranted(TASK, "g", SPEC, pieces=[(-1, 2)]),
    SourceGranted(TASK, "g", SPEC, pieces=[(0, 1 << 60)]),
    SourceGranted(TASK, "g", SPEC, pieces=[(0, 1 << 20)] * 5),
    SourceGranted(TASK, "g", SPEC, digests={0: b""}),
    CheckGranted("0" * 64, "g", SPEC, META, 10.0),
    CheckGranted(TASK, "g", SPEC, META, float("nan")),
    TaskFresh(TASK, float("inf")),
    TaskFresh(TASK, -1.0),
    TaskMoved(TASK, "later"),
    TaskFailed(TASK, Failure("x" * 100_000)),
    TaskFailed(TASK, Failure("no", retry_after=float("nan"))),
    TaskFailed(TASK, Failure("no"), {str(n): Failure("no") for n in range(100)}),
]


@pytest.mark.parametrize("assignment", GOOD)
def test_decisions(assignment: Assignment) -> None:
    check_assignment(assignment)


@pytest.mark.parametrize("number", range(len(BAD)))
def test_nonsense(number: int) -> None:
    with pytest.raises(InvalidRequest):
        check_assignment(BAD[number])
