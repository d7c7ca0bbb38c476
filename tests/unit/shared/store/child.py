"""A process that stores pieces until it is killed: ``child.py FOLDER LENGTH``; prints each committed one."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from shared.store import Store
from tests.unit.shared.store.samples import ROOMY, Sample


async def main(folder: Path, length: int) -> None:
    sample = Sample("killed", length)
    async with Store.open(folder, ROOMY) as store, store.create(sample.spec, sample.meta) as content:
        for number in range(sample.layout.count):
            await sample.put(content, number)
            print(number, flush=True)
        print("all", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
