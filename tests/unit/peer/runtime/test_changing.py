"""Configure and restore on real folders: what is there afterwards, whatever was there before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.runtime.configuring import configure
from peer.runtime.errors import BrokenFile, ChangedSince, Conflict, NotPermitted, SetupError
from peer.runtime.machine import Machine
from peer.runtime.plan import diff
from peer.runtime.restoring import restore
from peer.runtime.watching import look
from tests.unit.peer.runtime.trees import GATEWAY, asked, machine, snapshot

CERTS = "/etc/containerd/certs.d"
MAIN = "/etc/containerd/config.toml"
DROP_IN = "/etc/containers/registries.conf.d/50-dragonet.conf"
FILES = {
    MAIN: "version = 2  # by hand\n",
    f"{CERTS}/quay.io/hosts.toml": (
        '[host."https://m"]\n  [host."https://m".header]\n    authorization = "Basic c2VjcmV0"\n'
    ),
    "/etc/containers/registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
    "/etc/docker/daemon.json": '{"debug":true}',
}
ALL = ("containerd", "podman", "crio", "docker")


def test_there_and_back(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    os.chmod(tmp_path / "etc/docker/daemon.json", 0o600)
    first = snapshot(tmp_path)
    for name in ALL:
        outcome = configure(there, asked(name))
        assert {change.action for change in outcome.changes} <= {"created", "changed"}
        again = configure(there, asked(name))
        assert (again.changes, again.commands) == ((), ())
    assert stat.S_IMODE((tmp_path / "etc/docker/daemon.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data/runtime").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data/runtime/journal.json").stat().st_mode) == 0o600
    outcome = restore(there)
    assert snapshot(tmp_path, journal=True) == first
    assert outcome.commands == (
        "systemctl restart containerd",
        "systemctl reload crio",
        "systemctl reload docker",
    )
    assert restore(there).changes == ()


def test_what_has_to_be_run(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    assert configure(there, asked("containerd")).commands == ("systemctl restart containerd",)
    assert configure(there, asked("containerd", "ghcr.io")).commands == (), "hosts.toml is read at every pull"
    assert configure(there, asked("podman")).commands == ()
    outcome = configure(there, asked("crio"))
    assert outcome.changes == ()
    assert outcome.commands == ("systemctl reload crio",), "it has not read yet what podman's already made"
    assert configure(there, asked("docker")).commands == ("systemctl reload docker",)


def test_more_registries_later(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    configure(there, asked("podman", "quay.io"))
    configure(there, asked("podman", "ghcr.io"))
    assert (tmp_path / DROP_IN[1:]).read_text().count("[[registry]]") == 2
    configure(there, asked("crio", "docker.io"))
    assert (tmp_path / DROP_IN[1:]).read_text().count("[[registry]]") == 3
    configure(there, asked("containerd", "quay.io"))
    configure(there, asked("containerd", "ghcr.io"))
    assert sorted(os.listdir(tmp_path / CERTS[1:])) == ["ghcr.io", "quay.io"]
    configure(there, asked("containerd"))
    assert sorted(os.listdir(tmp_path / CERTS[1:])) == ["_default", "quay.io"], (
        "_default has what ghcr.io's had"
    )
    restore(there)
    assert snapshot(tmp_path, journal=True) == first


def test_another_gateway_takes_the_place_of_the_first(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    for name in ALL:
        configure(there, asked(name))
        configure(there, asked(name, gateway="http://127.0.0.1:7000"))
    texts = [content for _, content, *_ in snapshot(tmp_path).values()]
    assert not any(b"65001" in text for text in texts)
    assert sum(b"127.0.0.1:7000" in text for text in texts) == 4
    restore(there)
    assert snapshot(tmp_path, journal=True) == first


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path, journal=True)
    shown = "".join(diff(change) for change in configure(there, asked("containerd"), dry_run=True).changes)
    assert snapshot(tmp_path, journal=True) == first
    assert f'+  config_path = "{CERTS}"' in shown
    assert "c2VjcmV0" not in shown
    assert "authorization = ***" in shown
    configure(there, asked("containerd"))
    second = snapshot(tmp_path, journal=True)
    shown = "".join(diff(change) for change in restore(there, dry_run=True).changes)
    assert snapshot(tmp_path, journal=True) == second
    assert f'-  config_path = "{CERTS}"' in shown


def test_one_of_two_that_share_a_file(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    configure(there, asked("podman"))
    configure(there, asked("crio"))
    outcome = restore(there, ["podman"])
    assert outcome.changes == ()
    assert outcome.notes == (f"{DROP_IN} stays, since CRI-O uses it too",)
    assert not look(there)["podman"].configured
    assert restore(there, ["podman", "crio"]).notes == ("podman is not configured: nothing to put back",)
    assert snapshot(tmp_path, journal=True) == first


def test_what_somebody_else_changed_is_not_lost(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    configure(there, asked("containerd"))
    configure(there, asked("docker"))
    hosts = tmp_path / CERTS[1:] / "quay.io/hosts.toml"
    theirs = hosts.read_text() + "# theirs\n"
    hosts.write_text(theirs)
    before = snapshot(tmp_path, journal=True)
    with pytest.raises(
        ChangedSince, match=r"quay\.io/hosts\.toml was changed by somebody else.*127\.0\.0\.1.*--force"
    ):
        restore(there)
    assert snapshot(tmp_path, journal=True) == before
    outcome = restore(there, dry_run=True)
    assert outcome.changed_since == (f"{CERTS}/quay.io/hosts.toml",)
    assert "-# theirs" in "".join(diff(change) for change in outcome.changes)
    assert restore(there, ["docker"]).changes, "the others are not held up"
    outcome = restore(there, force=True)
    assert outcome.saved == (f"{CERTS}/quay.io/hosts.toml.dragonet-saved",)
    assert hosts.read_text() == FILES[f"{CERTS}/quay.io/hosts.toml"]
    assert hosts.with_name("hosts.toml.dragonet-saved").read_text() == theirs
    assert not (tmp_path / "data").exists()


def test_a_changed_file_stays_changed_when_it_is_configured_again(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    configure(there, asked("docker"))
    daemon = tmp_path / "etc/docker/daemon.json"
    daemon.write_text('{"registry-mirrors": ["https://theirs"]}')
    outcome = configure(there, asked("docker"))
    assert [change.path for change in outcome.changes] == ["/etc/docker/daemon.json"]
    assert daemon.read_text() == f'{{"registry-mirrors": ["{GATEWAY}", "https://theirs"]}}'
    assert configure(there, asked("docker")).changes == ()
    with pytest.raises(ChangedSince):
        restore(there)
    restore(there, force=True)
    assert daemon.read_text() == '{"debug":true}'


def test_what_somebody_put_back_is_fine(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    configure(there, asked("docker"))
    (tmp_path / "etc/docker/daemon.json").write_text('{"debug":true}')
    assert look(there)["docker"].files[0].state == "put back"
    assert restore(there).changes == ()
    assert snapshot(tmp_path, journal=True) == first


def test_a_removed_file_comes_back_by_force_only(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    first = snapshot(tmp_path)
    configure(there, asked("docker"))
    (tmp_path / "etc/docker/daemon.json").unlink()
    with pytest.raises(ChangedSince):
        restore(there)
    assert restore(there, force=True).saved == ()
    assert snapshot(tmp_path, journal=True) == first


def test_folders_with_something_else_in_them_stay(tmp_path: Path) -> None:
    there = machine(tmp_path)
    configure(there, asked("containerd", "quay.io"))
    (tmp_path / CERTS[1:] / "theirs.txt").write_text("x")
    assert restore(there).notes == tuple(
        f"the folder {path} stays, since there is something else in it"
        for path in (CERTS, "/etc/containerd", "/etc")
    )
    assert sorted(snapshot(tmp_path, journal=True)) == [
        "etc",
        "etc/containerd",
        "etc/containerd/certs.d",
        "etc/containerd/certs.d/theirs.txt",
    ]


def test_links_stay_links(tmp_path: Path) -> None:
    there = machine(
        tmp_path, {"/srv/daemon.json": "{}", "/srv/hosts/": "", "/etc/docker/": "", "/etc/containerd/": ""}
    )
    (tmp_path / "etc/docker/daemon.json").symlink_to("/srv/daemon.json")  # absolute: from the root on
    (tmp_path / "etc/containerd/certs.d").symlink_to("../../srv/hosts")
    first = snapshot(tmp_path)
    outcome = configure(there, asked("docker"))
    assert [change.path for change in outcome.changes] == ["/srv/daemon.json"]
    configure(there, asked("containerd"))
    assert (tmp_path / "etc/docker/daemon.json").is_symlink()
    assert (tmp_path / "srv/hosts/_default/hosts.toml").exists()
    restore(there)
    assert snapshot(tmp_path, journal=True) == first
    (tmp_path / "etc/docker/daemon.json").unlink()
    (tmp_path / "etc/docker/daemon.json").symlink_to("daemon.json")
    with pytest.raises(SetupError, match="circle"):
        configure(there, asked("docker"))


def test_nothing_is_changed_when_one_file_is_broken(tmp_path: Path) -> None:
    there = machine(tmp_path, {**FILES, f"{CERTS}/quay.io/hosts.toml": "server = \n"})
    first = snapshot(tmp_path, journal=True)
    with pytest.raises(BrokenFile, match="line 1"):
        configure(there, asked("containerd"))
    assert snapshot(tmp_path, journal=True) == first


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/etc/docker/daemon.json/x", "is a folder, where"),
        ("/etc/docker", "is no folder"),
        ("/data", "is no folder"),
    ],
)
def test_folders_and_files_in_each_others_place(tmp_path: Path, place: str, words: str) -> None:
    there = machine(tmp_path, {place: "x"})
    first = snapshot(tmp_path, journal=True)
    with pytest.raises(SetupError, match=words):
        configure(there, asked("docker"))
    assert snapshot(tmp_path, journal=True) == first


def test_a_pipe_is_no_file_and_nobody_is_waited_for(tmp_path: Path) -> None:
    there = machine(tmp_path, {"/etc/docker/": ""})
    os.mkfifo(tmp_path / "etc/docker/daemon.json")
    with pytest.raises(SetupError, match="not a file that dragonet could edit"):
        configure(there, asked("docker"))


def test_two_registries_in_one_file(tmp_path: Path) -> None:
    there = machine(tmp_path, {f"{CERTS}/docker.io/": ""})
    (tmp_path / CERTS[1:] / "quay.io").symlink_to("docker.io")
    with pytest.raises(Conflict, match=r"quay\.io/hosts\.toml leads to .*docker\.io/hosts\.toml"):
        configure(there, asked("containerd", "docker.io", "quay.io"))
    (tmp_path / CERTS[1:] / "docker.io/hosts.toml").write_text('[host."http://m"]\n')
    outcome = configure(there, asked("containerd", "docker.io", "quay.io"))
    assert [change.path for change in outcome.changes] == [MAIN, f"{CERTS}/docker.io/hosts.toml"]


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    configure(there, asked("docker"))
    journal = tmp_path / "data/runtime/journal.json"
    text = journal.read_text()
    journal.write_text(text.replace('"version": 1', '"version": 9'))
    with pytest.raises(SetupError, match="another version"):
        restore(there)
    journal.write_text(text[:50])
    with pytest.raises(SetupError, match="is damaged"):
        configure(there, asked("docker"))
    journal.write_text(text)
    restore(there)


def test_two_at_once(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    configure(there, asked("docker"))
    with there.journal_file.locked(), pytest.raises(SetupError, match="at work"):
        restore(there)


def test_what_is_kept_is_not_shown(tmp_path: Path) -> None:
    there = machine(tmp_path, FILES)
    configure(there, asked("containerd"))
    assert "c2VjcmV0" not in repr(there.journal_file.load())
    assert "c2VjcmV0" not in repr(configure(there, asked("containerd", gateway="http://x:1"), dry_run=True))


def test_without_the_right_nothing_is_changed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with TemporaryDirectory() as name:
        root = Path(name)
        os.chmod(root, 0o755)
        there = machine(root, FILES)
        first = snapshot(root, journal=True)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            code = 1
            try:
                configure(Machine(root, Path("/data")), asked("docker"))
            except NotPermitted as error:
                code = 0 if "run this as root" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert snapshot(root, journal=True) == first
        assert there.journal_file.load().files == ()


REGISTRIES = st.lists(st.sampled_from(["docker.io", "quay.io", "reg.example:5000"]), max_size=2, unique=True)
STEPS = st.lists(
    st.tuples(st.sampled_from(ALL), REGISTRIES, st.sampled_from([GATEWAY, "https://g.example"])),
    min_size=1,
    max_size=4,
)
HOSTS = st.sampled_from(
    ["", "server = 'https://s'\n", '[host."http://m"]\n', '[host."http://m"]\nca = "x.crt"\n']
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        MAIN: st.sampled_from(["version = 2\n", "version = 3\n", "# nothing\n", FILES[MAIN]]),
        f"{CERTS}/_default/hosts.toml": HOSTS,
        f"{CERTS}/quay.io/hosts.toml": HOSTS,
        f"{CERTS}/quay.io/ca.crt": st.just("x"),
        f"{CERTS}/reg.example_5000_/": st.just(""),
        "/etc/containers/registries.conf": st.sampled_from(
            [
                "",
                '[[registry]]\nlocation = "quay.io"\n',
                '[[registry]]\nprefix = "*.example"\ninsecure = true\n',
            ]
        ),
        "/etc/containers/registries.conf.d/99-x.conf": st.just('[[registry]]\nlocation = "docker.io"\n'),
        "/etc/docker/daemon.json": st.sampled_from(["", "{}", '{"registry-mirrors": ["https://m"]}']),
    },
)


@settings(max_examples=60)
@given(TREES, STEPS)
def test_any_machine_is_as_it_was(files: dict[str, str], steps: list[tuple[str, list[str], str]]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        there = machine(root, files)
        first = snapshot(root)
        for runtime, registries, gateway in steps:
            chosen = [] if runtime == "docker" else registries
            order = asked(runtime, *chosen, gateway=gateway)
            configure(there, order)
            assert configure(there, order).changes == ()
        assert all(file.state == "as written" for state in look(there).values() for file in state.files)
        restore(there)
        assert snapshot(root, journal=True) == first


def test_nothing_heavy_is_loaded_for_it() -> None:
    script = (
        "import sys\nimport peer.cli.app\n"
        "print(sorted(m for m in sys.modules if m.startswith(('peer.runtime', 'peer.gateway', 'trio', 'httpx'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
