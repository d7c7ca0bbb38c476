"""Records of plugins, and the steps between their states."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from shared.plugins import PluginConflict, PluginKind, PluginRecord, PluginRegistry, PluginState
from shared.plugins.registry import TRANSITIONS

D7YFS = PluginRecord(kind=PluginKind.SOURCE, name="d7yfs", location="/plugins/d7yfs.py")


def other(record: PluginRecord, **changes: object) -> PluginRecord:
    return msgspec.structs.replace(record, **changes)


def test_a_record_tells_who_it_is() -> None:
    assert D7YFS.identity == "d7yfs"
    assert other(D7YFS, vendor="d7y").identity == "d7y@d7yfs"
    told = other(D7YFS, vendor="d7y", attributes={"scheme": "d7yfs"}).told()
    assert told["identity"] == "d7y@d7yfs"
    assert (told["kind"], told["state"]) == ("source", "INACTIVE")
    assert msgspec.convert(told, PluginRecord).attributes == {"scheme": "d7yfs"}


def test_listing_is_sorted() -> None:
    registry = PluginRegistry()
    for kind, name in (("source", "b"), ("source", "a"), ("extension", "z")):
        registry.add(other(D7YFS, kind=PluginKind(kind), name=name))
    assert [(r.kind.value, r.name) for r in registry.records()] == [
        ("extension", "z"),
        ("source", "a"),
        ("source", "b"),
    ]
    assert [r.name for r in registry.records(PluginKind.EXTENSION)] == ["z"]
    assert len(registry) == 3


def test_a_life() -> None:
    registry = PluginRegistry()
    registry.add(D7YFS)
    assert registry.change(D7YFS, PluginState.STARTING).state is PluginState.STARTING
    active = registry.change(D7YFS, PluginState.ACTIVE, vendor="d7y", version="3", attributes={"a": "b"})
    assert (active.identity, active.version, active.attributes) == ("d7y@d7yfs", "3", {"a": "b"})
    failed = registry.change(D7YFS, PluginState.FAILED, reason="it broke")
    assert (failed.vendor, failed.reason) == ("d7y", "it broke")
    assert registry.at(D7YFS) == failed
    assert registry.get(PluginKind.SOURCE, "d7yfs") is None
    assert registry.change(D7YFS, PluginState.STARTING).reason == ""
    registry.remove(D7YFS)
    registry.remove(D7YFS)
    assert registry.records() == []
    with pytest.raises(KeyError):
        registry.at(D7YFS)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(PluginState, PluginState)))
def test_only_the_steps_of_the_table(old: PluginState, new: PluginState) -> None:
    registry = PluginRegistry()
    registry.add(other(D7YFS, state=old))
    if new in TRANSITIONS[old]:
        assert registry.change(D7YFS, new).state is new
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            registry.change(D7YFS, new)
        assert registry.at(D7YFS).state is old


def test_who_finds_plugins_looks_before_a_listing() -> None:
    registry = PluginRegistry()
    registry.watch(lambda: None if registry.records() else registry.add(D7YFS))
    assert registry.records() == []
    assert registry.current() == [D7YFS]
    assert registry.current() == registry.records() == [D7YFS]


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(PluginState)
    assert set().union(*TRANSITIONS.values()) == set(PluginState)
    assert all(TRANSITIONS.values())


def test_a_second_one_of_the_same_kind_and_name_is_refused_by_both_places() -> None:
    registry = PluginRegistry()
    registry.add(D7YFS)
    second = other(D7YFS, name="D7yfs", location="package d7yfs 1.0")
    with pytest.raises(PluginConflict, match=r"d7yfs\.py and package d7yfs 1\.0\): remove all but one"):
        registry.add(second)
    with pytest.raises(PluginConflict, match="noted already"):
        registry.add(D7YFS)
    registry.add(other(D7YFS, kind=PluginKind.EXTENSION))
    registry.add(other(second, state=PluginState.FAILED, reason="there is another"))
    assert len(registry) == 3
    with pytest.raises(PluginConflict, match="remove all but one"):
        registry.change(second, PluginState.STARTING)
    registry.change(D7YFS, PluginState.FAILED, reason="it broke")
    assert registry.change(second, PluginState.STARTING).state is PluginState.STARTING
    found = registry.get(PluginKind.SOURCE, "D7YFS")
    assert found is not None
    assert found.location == second.location
