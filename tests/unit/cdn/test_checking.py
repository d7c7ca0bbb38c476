"""What is found wrong with settings of single schemes when a role starts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from cdn.checking import PATIENCE, check_schemes
from cdn.config import SourceConfig
from cdn.reader import SourceReader
from cdn.sources.builtin import BUILTIN, Builtin
from cdn.sources.interface import AsyncResourceClient
from cdn.sources.plugins.finder import PluginFinder
from shared.errors import ConfigError
from shared.plugins import PluginRegistry


async def checked(config: SourceConfig) -> list[Mapping[str, object]]:
    """What is logged."""
    finder = PluginFinder(config, PluginRegistry())
    with structlog.testing.capture_logs() as logs:
        async with SourceReader.open(config, CollectorRegistry(), finder=finder) as reader:
            await check_schemes(config, reader)
    return [line for line in logs if line["log_level"] == "warning"]


@pytest.mark.parametrize(
    ("scheme", "options", "words"),
    [
        ("oci", {"insecur": "a"}, "source.options.oci has no option 'insecur': there are"),
        ("oci", {"insecure": "https://a"}, "insecure: 'https://a' does not name a registry"),
        ("oci", {"docker_config": "nowhere"}, "docker_config: there is no file nowhere"),
        ("hf", {"endpoint": "hub"}, "source.options.hf: the endpoint 'hub' is not an address"),
        ("hdfs", {"http_port": "many"}, "source.options.hdfs.http_port is 'many'"),
        ("swebhdfs", {"tls": "false"}, "source.options.swebhdfs.tls is false"),
        ("s3", {"region": "Some where"}, "source.options.s3.region 'Some where' is not a region"),
        ("az", {"account_key": "a", "sas_token": "b"}, "az:// are too many"),
        ("http", {"timeout": "3"}, "source.options.http: http:// has no options: remove them"),
        ("file", {"root": "/"}, "source.options.file: file:// has no options"),
    ],
)
async def test_a_wrong_option_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, options: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        await checked(SourceConfig(plugin_dir=tmp_path, options={scheme: options}))
    assert words in str(caught.value)


async def test_what_is_right_is_opened_and_nothing_else(tmp_path: Path) -> None:
    config = SourceConfig(plugin_dir=tmp_path, options={"oci": {"insecure": "a"}, "hf": {}, "http": {}})
    async with SourceReader.open(config, CollectorRegistry()) as reader:
        opened: list[str] = []
        get = reader.registry.get

        async def counted(scheme: str) -> AsyncResourceClient:
            opened.append(scheme)
            return await get(scheme)

        reader.registry.get = counted  # type: ignore[method-assign]
        await check_schemes(config, reader)
        assert opened == ["oci"]


async def test_what_may_not_or_cannot_be_read_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUILTIN, "s3", Builtin("nowhere", "not_installed_at_all", "objectstore"))  # type: ignore[arg-type]
    wrong = {"no": "option"}
    config = SourceConfig(plugin_dir=tmp_path, schemes=("http", "s3"), options={"oci": wrong, "s3": wrong})
    assert await checked(config) == []


async def test_a_disk_that_does_not_answer_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty_clock: MockClock
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(Builtin, "open", lambda *_: answered.wait())
    begun = trio.current_time()
    warnings = await checked(SourceConfig(plugin_dir=tmp_path, options={"oci": {"insecure": "a"}}))
    answered.set()
    assert [line["scheme"] for line in warnings] == ["oci"]
    assert trio.current_time() == begun + PATIENCE


# --- schemes ------------------------------------------------------------------------------------------


async def test_a_scheme_that_nothing_reads_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "d7y-resource-plugin-memfs.py").write_text("")
    config = SourceConfig(
        plugin_dir=tmp_path,
        options={"memfs": {"a": "b"}, "memsf": {"token": "hush"}},
        revalidate={"*": "60s", "oci-descritor": "5m", "file": "never", "memfs": "1s", "xyzzy-1": "1s"},
    )
    warnings = await checked(config)
    assert [(line["setting"], line["hint"]) for line in warnings] == [
        ("source.options.memsf", "did you mean memfs?"),
        ("source.revalidate.oci-descritor", "did you mean oci-descriptor?"),
        ("source.revalidate.xyzzy-1", "install a plugin for it, or remove the setting"),
    ]
    assert "hush" not in repr(warnings)


async def test_schemes_that_cannot_be_read_here_are_known_all_the_same(tmp_path: Path) -> None:
    config = SourceConfig(plugin_dir=tmp_path, revalidate=dict.fromkeys((*BUILTIN, "http", "file"), "1m"))
    assert await checked(config) == []
