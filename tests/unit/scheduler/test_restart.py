"""A scheduler that was restarted: it knows nothing, and hosts tell it what they hold."""

from __future__ import annotations

from shared.protocol import PeerHolding, PeerRegistered, SourceRevoked, TaskDescribed
from shared.task.bitmap import Bitmap
from tests.unit.scheduler.driver import SPEC, Driver, digests, meta


def test_a_fresh_cluster_reads_at_once() -> None:
    d = Driver()
    d.join("a", "seeder")
    d.want("a")
    assert d.readers() == ["seeder"]


def test_after_a_restart_holders_have_time_to_report() -> None:
    d = Driver()
    d.join("a", "seeder", resuming=True)
    d.want("a")
    assert d.readers() == []
    d.wait(1)
    d.join("h", resuming=True)
    d.hold("h", range(4), complete=True)
    d.wait(5)
    assert d.readers() == []
    assert d.parents("a") == ["h"]


def test_after_the_settle_time_what_is_missing_is_read() -> None:
    d = Driver()
    d.join("a", "seeder", resuming=True)
    d.want("a")
    d.hold("a", [0, 2])
    d.wait(2.9)
    assert d.readers() == []
    d.wait(0.2)
    assert d.readers() == ["seeder"]
    assert d.grant("seeder").pieces == [(1, 1), (3, 1)]


def test_cluster_only_waits_for_the_settle_time_too() -> None:
    d = Driver()
    d.join("a", resuming=True)
    d.want("a", cluster_only=True)
    assert d.failure("a") is None
    d.wait(3.1)
    assert d.failure("a") is not None


def test_who_holds_most_goes_on_reading() -> None:
    d = Driver()
    d.join("a", "b", "seeder1", "seeder2", resuming=True)
    d.hold("seeder2", [0, 1])
    d.hold("seeder1", [0])
    d.want("a")
    d.wait(3.1)
    assert d.readers() == ["seeder2"]


def test_a_read_that_went_on_over_the_restart_is_adopted() -> None:
    d = Driver()
    d.join("a", "seeder", resuming=True)
    d.hold("seeder", [0, 1])
    d.want("a")
    d.read("seeder", 2, grant="from-before")
    assert d.readers() == ["seeder"]
    assert d.parents("a") == ["seeder"]
    assert d.all("seeder", SourceRevoked) == []
    d.read("seeder", 3, grant="from-before")
    d.wait(5)
    assert d.state.cluster.tally.grants == 0
    assert d.task().complete(d.task().peers["seeder"])


def test_an_unknown_read_is_revoked_when_another_host_reads() -> None:
    d = Driver()
    d.join("a", "b", "seeder")
    d.want("a", "b")
    assert d.readers() == ["seeder"]
    d.opened("seeder")
    d.read("b", 0, grant="from-before")
    assert d.all("b", SourceRevoked) == [SourceRevoked(SPEC.task_id, "from-before")]
    assert d.readers() == ["seeder"]


def test_holdings_rebuild_metadata_and_digests_for_who_waits() -> None:
    d = Driver()
    d.join("a", "h")
    d.say("a", PeerRegistered(SPEC.task_id, SPEC, may_read=False))
    d.hold("h", [0, 1])
    assert d.all("a", TaskDescribed)[-1].meta == meta()
    assert d.task().digests.get(1) == digests([1])[1]
    assert d.parents("a") == ["h"]


def test_a_piece_without_a_digest_is_of_no_use() -> None:
    d = Driver()
    d.join("a", "h", "seeder")
    d.hold("h", range(4), complete=True, digests=digests([0, 1, 2]))
    d.want("a")
    assert d.readers() == ["seeder"]
    assert d.grant("seeder").pieces == [(3, 1)]


def test_a_holding_whose_digest_contradicts_is_not_counted() -> None:
    d = Driver()
    d.join("h1", "h2")
    d.hold("h1", range(4), complete=True)
    wrong = digests(range(4)) | {2: bytes(32)}
    d.hold("h2", range(4), complete=True, digests=wrong)
    assert list(d.task().peers["h2"].held) == [0, 1, 3]


def test_another_version_yields_to_the_one_that_more_is_held_of() -> None:
    d = Driver()
    d.join("h1", "h2", "h3", "seeder")
    d.hold("h1", [0, 1], about=meta("v1"))
    d.hold("h2", [0], about=meta("v2"))
    assert d.task().version == "v1"
    assert d.all("h2", TaskDescribed)[-1].meta.version == "v1"
    d.hold("h3", range(4), about=meta("v2"), complete=True)
    assert d.task().version == "v2"
    assert d.all("h1", TaskDescribed)[-1].meta.version == "v2"
    d.hold("seeder", range(4), about=meta("v3"), complete=True)
    assert d.task().version == "v3"
    d.hold("h1", range(4), about=meta("v1"), complete=True)
    assert d.task().version == "v3"


def test_an_unheld_version_yields_to_any() -> None:
    d = Driver()
    d.join("h1", "h2")
    d.hold("h1", range(4), complete=True, about=meta("v1"))
    d.leave("h1")
    d.hold("h2", [0], about=meta("v2"))
    assert d.task().version == "v2"


def test_a_version_being_read_does_not_yield() -> None:
    d = Driver()
    d.join("a", "h", "seeder")
    d.want("a")
    d.opened("seeder", meta("v2"))
    d.hold("h", range(4), about=meta("v1"), complete=True)
    assert d.task().version == "v2"
    assert d.all("h", TaskDescribed)[-1].meta.version == "v2"


def test_a_holding_report_replaces_the_one_before() -> None:
    d = Driver()
    d.join("h")
    d.hold("h", [0, 1, 2])
    d.say("h", PeerHolding(SPEC.task_id, SPEC, meta(), Bitmap([1]).to_bytes(), digests([1])))
    assert list(d.task().peers["h"].held) == [1]


def test_registering_again_repeats_everything() -> None:
    d = Driver()
    d.join("a", "h")
    d.hold("h", range(4), complete=True)
    d.want("a")
    d.forget_told()
    d.want("a")
    assert [type(x).__name__ for x in d.told["a"]] == ["TaskDescribed", "PieceDigests", "ParentsAssigned"]
