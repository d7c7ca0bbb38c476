"""The registry of plugins: who is there, in which state, and which steps between states there are. Pure.

At most one plugin of a kind and a name is anything but FAILED; the others that want the same name are kept
as FAILED, each with the reason, so that a listing shows them.

==========  ============================================================================
from        to
==========  ============================================================================
INACTIVE    STARTING (it is needed), FAILED (refused before anything of it ran)
STARTING    ACTIVE, FAILED, STOPPING (told to end meanwhile), INACTIVE (given up)
ACTIVE      STOPPING, FAILED (it broke)
STOPPING    INACTIVE, FAILED (it did not end)
FAILED      STARTING (tried again), INACTIVE (what was wrong is over)
==========  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from shared.errors import ConfigError
from shared.plugins.records import PluginKind, PluginRecord, PluginState

TRANSITIONS: Mapping[PluginState, frozenset[PluginState]] = {
    PluginState.INACTIVE: frozenset({PluginState.STARTING, PluginState.FAILED}),
    PluginState.STARTING: frozenset(
        {PluginState.ACTIVE, PluginState.FAILED, PluginState.STOPPING, PluginState.INACTIVE}
    ),
    PluginState.ACTIVE: frozenset({PluginState.STOPPING, PluginState.FAILED}),
    PluginState.STOPPING: frozenset({PluginState.INACTIVE, PluginState.FAILED}),
    PluginState.FAILED: frozenset({PluginState.STARTING, PluginState.INACTIVE}),
}

_Key = tuple[PluginKind, str, str]


class PluginConflict(ConfigError):
    """Two plugins of one kind want the same name."""


class PluginRegistry:
    """The records of all plugins of a process; names are compared in lower case."""

    def __init__(self) -> None:
        self._records: dict[_Key, PluginRecord] = {}
        self._looks: list[Callable[[], None]] = []

    def watch(self, look: Callable[[], None]) -> None:
        """Have ``look`` note what came and went, each time that somebody asks who is there now."""
        self._looks.append(look)

    def current(self) -> list[PluginRecord]:
        """All records, after everyone who finds plugins has looked again."""
        for look in self._looks:
            look()
        return self.records()

    def add(self, record: PluginRecord) -> None:
        """Note a plugin. Raises PluginConflict when another one of its kind and name is there and neither is
        FAILED, or when its place is taken; the message names both places."""
        key = _key(record)
        if key in self._records:
            raise PluginConflict(
                f"the {record.kind} plugin {record.name} at {record.location} is noted already"
            )
        self._check_alone(record)
        self._records[key] = record

    def change(
        self,
        record: PluginRecord,
        state: PluginState,
        *,
        reason: str = "",
        attributes: Mapping[str, str] | None = None,
        vendor: str | None = None,
        version: str | None = None,
    ) -> PluginRecord:
        """Take the plugin of ``record`` to ``state``; gives its new record.

        Facts that are None stay as they are. Raises KeyError when the plugin is not noted, ValueError for a
        step that is not in the table, PluginConflict when another one has taken the name meanwhile.
        """
        now = self._records[_key(record)]
        if state not in TRANSITIONS[now.state]:
            raise ValueError(f"plugin {now.name} cannot go from {now.state} to {state}")
        new = msgspec.structs.replace(
            now,
            state=state,
            reason=reason,
            attributes=now.attributes if attributes is None else dict(attributes),
            vendor=now.vendor if vendor is None else vendor,
            version=now.version if version is None else version,
        )
        self._check_alone(new)
        self._records[_key(new)] = new
        return new

    def remove(self, record: PluginRecord) -> None:
        """Forget a plugin that is gone; one that is not noted is no error."""
        self._records.pop(_key(record), None)

    def get(self, kind: PluginKind, name: str) -> PluginRecord | None:
        """The one plugin of a kind and a name that is not FAILED; None when there is none."""
        for record in self.records(kind):
            if record.name.lower() == name.lower() and record.state is not PluginState.FAILED:
                return record
        return None

    def at(self, record: PluginRecord) -> PluginRecord:
        """What is known now of the plugin of ``record``. Raises KeyError when it is not noted."""
        return self._records[_key(record)]

    def records(self, kind: PluginKind | None = None) -> list[PluginRecord]:
        """All records (of a kind), sorted by kind, name and location."""
        return [self._records[key] for key in sorted(self._records) if kind is None or key[0] is kind]

    def _check_alone(self, record: PluginRecord) -> None:
        other = self.get(record.kind, record.name)
        if record.state is PluginState.FAILED or other is None or other.location == record.location:
            return
        raise PluginConflict(conflict_words(record.kind, record.name, (other.location, record.location)))

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<PluginRegistry of {len(self._records)}>"


def conflict_words(kind: PluginKind, name: str, locations: tuple[str, ...]) -> str:
    """The sentence about plugins that want the same name."""
    return (
        f"{len(locations)} {kind} plugins are called {name} ({' and '.join(locations)}): remove all but one"
    )


def _key(record: PluginRecord) -> _Key:
    return record.kind, record.name.lower(), record.location
