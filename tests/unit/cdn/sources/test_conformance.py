"""The conformance suite against the sources that need nothing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdn.sources.testing import CHECKS, Check
from tests.unit.cdn.sources.examples import MakeExample, bare_http, files, http, memory


@pytest.mark.parametrize("make", [memory, files, http, bare_http], ids=lambda make: make.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, make: MakeExample, tmp_path: Path) -> None:
    async with make(tmp_path) as example:
        await check(example)
