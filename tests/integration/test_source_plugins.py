"""Content of custom protocols through real processes: the plugin of docs/plugins/source.md, on seeders only, in one
process, without any daemon; and what people are told when there is no plugin or a broken one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.integration.cluster import Cluster, Peer
from tests.integration.net import request, wait_until
from tests.integration.test_docs_plugins import written

HELLO = b"hello world"
URL = "d7yfs://host:56001/path/to/resource"
NAME = "d7y-resource-plugin-d7yfs.py"
PLUGIN = written(f"plugins/{NAME}")

COUNTING = """
_download = Client.download

def _counted(self, request):
    with open({log!r}, "a") as file:
        file.write(request.url + "\\n")
    return _download(self, request)

Client.download = _counted
"""
"""Added to a plugin: each read of the source becomes a line of a file."""


def install(folder: Path, text: str = PLUGIN, name: str = NAME) -> Path:
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def plugins_at(folder: Path) -> dict[str, str]:
    return {"DRAGONET_SOURCE_PLUGIN_DIR": str(folder)}


def running(peer: Peer) -> dict[str, dict[str, str]]:
    """The plugins of a daemon by name, those that are built in left out."""
    told = request(str(peer.socket), "/v1/plugins").json()
    return {record["name"]: record for record in told if not record["in_tree"]}


def test_a_plugin_on_the_seeder_alone_serves_two_peers_with_one_read(cluster: Cluster) -> None:
    log = cluster.folder / "reads"
    there = plugins_at(cluster.folder / "plugins")
    install(cluster.folder / "plugins", PLUGIN + COUNTING.format(log=str(log)))
    cluster.start_scheduler()
    cluster.start_seeder(environ=there, wait=False)
    cluster.start_peer(environ=plugins_at(cluster.folder / "none"), wait=False)
    cluster.start_peer(environ=plugins_at(cluster.folder / "none"), wait=False)
    for daemon in cluster.daemons:
        daemon.wait_ready()
    for result in cluster.get_all(URL, cluster.peers):
        result.check(HELLO)
        assert result.sources["origin"] == 0
    assert log.read_text() == f"{URL}\n"
    assert running(cluster.peers[0]) == {}
    assert cluster.seeders[0].metrics().value("dragonet_origin_reads_total") == 1


def test_in_one_process_and_found_while_it_runs(cluster: Cluster) -> None:
    folder = cluster.folder / "plugins"
    peer, _ = cluster.start_up(environ=plugins_at(folder))
    cluster.get(URL, peer).check_failed("d7yfs://", "install a plugin", "http")
    path = install(folder, "import nothing_like_this\n" + PLUGIN)
    wait_until(lambda: "d7yfs" in running(peer), "the plugin is found")
    assert running(peer)["d7yfs"]["state"] == "INACTIVE"
    # the scheduler remembers failures of a content for a while, so each attempt is another content
    broken = cluster.get(f"{URL}/2", peer)
    broken.check_failed(str(path), "it needs the module nothing_like_this, which is not installed")
    assert running(peer)["d7yfs"]["state"] == "FAILED"
    listed = cluster.run("plugin", "list", "--running", "--socket", str(peer.socket))
    assert listed.returncode == 1
    assert "state: FAILED, reason: line 1: it needs the module nothing_like_this" in listed.stdout
    install(folder)
    cluster.get(f"{URL}/3", peer).check(HELLO)
    assert running(peer)["d7yfs"]["identity"] == "d7y@d7yfs"
    listed = cluster.run("plugin", "list", "--running", "--socket", str(peer.socket))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert f'location: {path}, attribute: {{"buildCommit":"unknown"' in listed.stdout
    assert re.search(r"^resource plugin d7yfs, .*, state: ACTIVE$", listed.stdout, re.MULTILINE)
    assert "plugin loaded" in peer.log


def test_without_any_daemon(cluster: Cluster) -> None:
    folder = cluster.folder / "plugins"
    path = install(folder)
    cluster.get(URL, environ=plugins_at(folder)).check(HELLO)
    elsewhere = cluster.folder / "none"
    cluster.get(f"{URL}/2", environ=plugins_at(elsewhere)).check_failed(
        "cannot read d7yfs://", "http, https", str(elsewhere), "dragonet.sources"
    )
    path.write_text(PLUGIN + "\nx = = 3\n")
    line = PLUGIN.count("\n") + 2
    cluster.get(f"{URL}/3", environ=plugins_at(folder)).check_failed(
        str(path), f"line {line}: invalid syntax"
    )
    path.write_text("import time\ntime.sleep(1000)\n")
    cluster.get(
        f"{URL}/4", None, "--set", "source.plugin_timeout=0.2s", environ=plugins_at(folder)
    ).check_failed(str(path), "its import did not end within 0.2 s")


def test_the_listing(cluster: Cluster) -> None:
    folder = cluster.folder / "plugins"
    empty = cluster.run("plugin", environ=plugins_at(folder))
    assert empty.returncode == 0
    assert empty.stderr.splitlines() == [f"search plugin in {folder}", "no plugin found"]
    assert "resource plugin https, location: in-tree, attribute: {" in empty.stdout
    install(folder, "print('I say something')\n" + PLUGIN)
    good = cluster.run("plugin", environ=plugins_at(folder))
    assert good.returncode == 0
    assert good.stdout.splitlines()[0] == (
        'resource plugin d7yfs, location: d7y-resource-plugin-d7yfs.py, attribute: {"buildCommit":"unknown",'
        '"buildTime":"unknown","name":"d7yfs","scheme":"d7yfs","type":"resource","vendor":"d7y"}'
    )
    assert good.stderr.splitlines() == [f"search plugin in {folder}", "I say something"]
    install(folder, "while True: pass", "d7y-resource-plugin-busy.py")
    install(folder, "import time; time.sleep(1000)", "d7y-resource-plugin-slow.py")
    install(folder, PLUGIN, "d7y-resource-plugin-other.py")
    install(folder, PLUGIN, "d7y-resource-plugin-http.py")
    install(folder, "", "d7y-resource-plugin-old.so")
    install(folder, "", "README")
    bad = cluster.run(
        "plugin", "list", "--json", "--set", "source.plugin_timeout=1", environ=plugins_at(folder)
    )
    assert bad.returncode == 1
    records = {record["name"]: record for record in json.loads(bad.stdout) if record["name"] != "http"}
    assert {name: record["state"] for name, record in records.items() if not record["in_tree"]} == {
        "busy": "FAILED",
        "d7yfs": "ACTIVE",
        "other": "FAILED",
        "slow": "FAILED",
    }
    assert records["d7yfs"]["identity"] == "d7y@d7yfs"
    late = "its import did not end within 1 s (source.plugin_timeout)"
    assert bad.stderr.splitlines() == [
        f"search plugin in {folder}",
        "I say something",
        f"not valid plugin d7y-resource-plugin-busy.py: {late}",
        "not valid plugin d7y-resource-plugin-http.py: http:// is built in: remove the plugin, or give it "
        "another scheme",
        "not valid plugin d7y-resource-plugin-other.py: its attribute 'name' is 'd7yfs', expected 'other'",
        f"not valid plugin d7y-resource-plugin-slow.py: {late}",
        "not valid plugin name: README",
        "not valid plugin name: d7y-resource-plugin-old.so",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("extension", "x"), "no template for 'extension' plugins: there is one for source"),
        (("source", "s3"), "s3:// is built in"),
        (("source", "9fs"), "cannot be a scheme"),
    ],
)
def test_what_is_not_written(cluster: Cluster, arguments: tuple[str, ...], words: str) -> None:
    done = cluster.run("plugin", "init", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert list((cluster.folder / "run").iterdir()) == []


def test_a_written_plugin_works_and_is_not_overwritten(cluster: Cluster) -> None:
    place, root = cluster.folder / "new", cluster.folder / "root"
    told = cluster.run("plugin", "init", "source", "My+fs", "--dir", str(place))
    assert told.returncode == 0, told.stderr
    assert f"wrote {place}/d7y-resource-plugin-my+fs.py\nwrote {place}/test_my_fs.py" in told.stdout
    again = cluster.run("plugin", "init", "source", "my+fs", "--dir", str(place))
    assert again.returncode == 1
    assert f"{place}/d7y-resource-plugin-my+fs.py is there already" in again.stderr
    root.mkdir()
    (root / "a file").write_bytes(HELLO)
    settings = [word for line in told.stdout.splitlines() if "dragonet get" in line for word in line.split()]
    settings = [word.replace("FOLDER", str(root)) for word in settings[settings.index("--set") :]]
    cluster.get("my+fs://host/a%20file", None, *settings).check(HELLO)
    cluster.get("my+fs://host/other", None, *settings).check_failed("other cannot be read: No such file")
