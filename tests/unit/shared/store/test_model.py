"""Any order of puts, new versions, removals, pins, restarts and evictions, against a model in memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StoreFull
from shared.store import Store, StoreConfig
from tests.unit.shared.store.samples import KIB, PIECE, Sample, content_files

SIZES = {"tiny": 700, "inline": 60 * KIB, "one": PIECE, "some": 3 * PIECE + 1, "most": 6 * PIECE}
QUOTA = 9 * PIECE
names = st.sampled_from(sorted(SIZES))
steps = st.one_of(
    st.tuples(st.just("put"), names, st.sampled_from(["v1", "v2"]), st.integers(0, 5)),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("pin"), names, st.booleans()),
    st.tuples(st.just("restart")),
)


@dataclass
class Known:
    sample: Sample
    pinned: bool = False
    held: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(self.sample.layout.size(number) for number in self.held)


async def run(folder: Path, script: list[tuple[object, ...]]) -> None:
    model: dict[str, Known] = {}
    remaining = list(script)
    while remaining:
        async with Store.open(folder, StoreConfig(quota=QUOTA, disk_share=1.0)) as store:
            store.on_removed.append(lambda task_id: model.pop(task_id, None))
            await compare(store, model, folder)
            while remaining:
                step = remaining.pop(0)
                if step[0] == "restart":
                    break
                await carry_out(store, model, *step)
                await compare(store, model, folder)


async def carry_out(store: Store, model: dict[str, Known], kind: object, name: str, *rest: object) -> None:
    task_id = Sample(name, 0).id
    if kind == "put":
        version, wanted = rest
        sample = Sample(name, SIZES[name], version=str(version))
        number = int(str(wanted)) % sample.layout.count
        try:
            async with store.create(sample.spec, sample.meta) as content:
                known = model.setdefault(task_id, Known(sample))
                await content.put(number, sample.piece(number), expected=None)
                known.held.add(number)
        except StoreFull:
            pinned = sum(known.size for known in model.values() if known.pinned)
            assert pinned + len(sample.data) > QUOTA, "refused though others could have gone"
        if task_id in model and not model[task_id].held:
            del model[task_id]
    elif kind == "remove":
        await store.remove(task_id)
        assert task_id not in model
    elif task_id in model:
        model[task_id].pinned = bool(rest[0])
        await store.set_pin(task_id, bool(rest[0]))


async def compare(store: Store, model: dict[str, Known], folder: Path) -> None:
    found = {task.task_id: task for task in store.tasks()}
    assert found.keys() == model.keys()
    for task_id, known in model.items():
        assert set(found[task_id].held) == known.held
        assert found[task_id].meta == known.sample.meta
        assert found[task_id].pinned == known.pinned
        async with store.use(task_id) as content:
            await known.sample.check(content)
    assert store.statistics().used == sum(known.size for known in model.values()) <= QUOTA
    files = {f"{task_id}.mdb" for task_id, known in model.items() if len(known.sample.data) > 64 * KIB}
    assert content_files(folder) == files


@settings(max_examples=40)
@given(st.lists(steps, min_size=1, max_size=25))
def test_store_does_what_the_model_does(script: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(run, Path(folder), script)
