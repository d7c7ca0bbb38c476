"""The conformance suite for http:// against nginx."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cdn.policy import SourcePolicy
from cdn.sources.http import HttpSource
from cdn.sources.testing import CHECKS, Check, Example
from shared.http.client import HttpClient
from tests.integration.nginx import Nginx
from tests.integration.origins import random_content
from tests.programs import require_program

CONTENT = random_content(3_000_000)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = require_program("nginx")
    with Nginx(tmp_path_factory.mktemp("nginx") / "nginx", program) as nginx:
        yield nginx


@pytest.mark.parametrize("place", ["ranges", "plain"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, place: str, nginx: Nginx) -> None:
    folder = nginx.root / place / f"{next(NUMBERS)} ä"
    (folder / "below").mkdir(parents=True)
    (folder / "a file").write_bytes(CONTENT)
    url = f"{nginx.url}/{place}/{folder.name.replace(' ä', '%20%C3%A4')}/"

    def change() -> None:
        (folder / "new").write_bytes(CONTENT[::-1] + b"longer")
        (folder / "new").rename(folder / "a file")

    async with HttpClient() as client:
        source = HttpSource(client, SourcePolicy(["http"]))
        await check(
            Example(
                source,
                url + "a%20file",
                CONTENT,
                missing=url + "nothing",
                folder=url,
                children={"a file": False, "below": True},
                change=change,
            )
        )
