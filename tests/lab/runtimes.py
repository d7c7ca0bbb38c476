"""Container runtimes on machines of the lab: containerd, podman and skopeo, each with folders of its own.

What they read below /etc is theirs, too: a folder of the test is mounted there, where nobody else sees it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.net import wait_until
from tests.integration.processes import clean_environment
from tests.lab.images import Image
from tests.lab.network import Machine
from tests.programs import require_program

PULL_TIMEOUT = 120.0
GATEWAY = "127.0.0.1:65001"


class Pull:
    """A pull that was begun; ``output`` is what the runtime says."""

    def __init__(
        self, machine: Machine, command: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = machine.start(command, environ, output)

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._log.read_text("utf-8", "replace")

    def wait(self, timeout: float = PULL_TIMEOUT) -> int:
        """The exit code. Raises AssertionError (and kills it) after ``timeout`` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"no end of the pull within {timeout:g} s:\n{self.output[-2000:]}") from None

    def check(self, timeout: float = PULL_TIMEOUT) -> None:
        """Wait for its end, which must be a success."""
        code = self.wait(timeout)
        assert code == 0, f"the pull ended with {code}:\n{self.output[-2000:]}"

    def check_refused(self, timeout: float = PULL_TIMEOUT) -> None:
        """Wait for its end, which must be a failure because the user may not have it."""
        code = self.wait(timeout)
        said = self.output.lower()
        assert code != 0, f"the pull was to be refused:\n{self.output[-2000:]}"
        assert any(word in said for word in ("401", "403", "404", "unauthorized", "denied", "forbidden")), (
            said
        )

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait(10)


class Runtime(ABC):
    """A runtime on a machine that pulls through the gateway there; a context manager.

    ``etc`` is what it sees as /etc/containers or /etc/containerd. Nothing is configured in it before
    :meth:`configure` or :meth:`configure_direct`.
    """

    name: str
    etc_name: str

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.etc = folder / "etc" / self.etc_name
        self.etc.mkdir(parents=True)
        self.environ = clean_environment(folder)
        self._pulls: list[Pull] = []

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        for pull in self._pulls:
            pull.end()

    @abstractmethod
    def configure(self, registry: str) -> None:
        """Let pulls from the registry (HOST:PORT, plain HTTP) go through the gateway, and from there to it."""

    @abstractmethod
    def configure_direct(self, registry: str) -> None:
        """Let pulls go to the registry itself."""

    @abstractmethod
    def command(self, reference: str, login: str) -> list[str]:
        """The command that pulls REGISTRY/REPOSITORY:TAG, or …@DIGEST; ``login`` is USER:PASSWORD."""

    @abstractmethod
    def check_image(self, reference: str, image: Image) -> None:
        """That the image is here, and that its content is right, to the last byte."""

    @abstractmethod
    def forget(self) -> None:
        """Throw away all images and their content."""

    def pull(self, reference: str, *, login: str = "") -> Pull:
        """Begin to pull."""
        log = self.folder / f"pull-{len(self._pulls)}.log"
        pull = Pull(self.machine, self._within(self.command(reference, login)), self.environ, log)
        self._pulls.append(pull)
        return pull

    def run(self, *command: str) -> str:
        """Run a command of the runtime to its end, as it does itself; what it prints."""
        done = subprocess.run(
            [*self.machine.prefix, *self._within(command)],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def _within(self, command: Sequence[str]) -> list[str]:
        mount = f'mount --bind "$0" /etc/{self.etc_name} && exec "$@"'
        return ["sh", "-c", mount, str(self.etc), *command]


class Containerd(Runtime):
    """containerd with ``ctr`` and a hosts directory."""

    name = "containerd"
    etc_name = "containerd"

    def __init__(self, machine: Machine, folder: Path) -> None:
        super().__init__(machine, folder)
        self._ctr = require_program("ctr")
        self._program = require_program("containerd")
        require_program("runc")
        self.socket = folder / "containerd.sock"
        assert len(str(self.socket)) + len(".ttrpc") < 108, "names of unix sockets have at most 107 bytes"
        self.content = folder / "root" / "io.containerd.content.v1.content" / "blobs"
        self.log = folder / "containerd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Containerd:
        config = self.etc / "config.toml"
        config.write_text(
            f"""version = 2
root = "{self.folder}/root"
state = "{self.folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{self.socket}"
"""
        )
        self.start()
        return self

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = self.machine.start(
                self._within([self._program, "--config", "/etc/containerd/config.toml"]), self.environ, log
            )
        wait_until(self._answers, "containerd answers", 30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text("utf-8", "replace")[-3000:]
        return self.socket.exists() and "containerd successfully booted" in self.log.read_text()

    def restart(self) -> None:
        """Have its configuration read anew."""
        self._stop()
        self.log.unlink()
        self.start()

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._stop()

    def configure(self, registry: str) -> None:
        self._write_hosts(registry, f"http://{GATEWAY}")

    def configure_direct(self, registry: str) -> None:
        self._write_hosts(registry, f"http://{registry}")

    def _write_hosts(self, registry: str, first: str) -> None:
        hosts = self.etc / "certs.d" / registry / "hosts.toml"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(
            f'server = "http://{registry}"\n\n[host."{first}"]\n  capabilities = ["pull", "resolve"]\n'
        )

    def ctr(self, *arguments: str) -> str:
        """Run ``ctr``; what it prints."""
        return self.run(self._ctr, "--address", str(self.socket), *arguments)

    def command(self, reference: str, login: str) -> list[str]:
        flags = ["--hosts-dir", "/etc/containerd/certs.d", *(["--user", login] if login else [])]
        return [self._ctr, "--address", str(self.socket), "images", "pull", *flags, reference]

    def fetch(self, reference: str) -> Pull:
        """Begin to pull without unpacking what comes."""
        flags = ["--hosts-dir", "/etc/containerd/certs.d"]
        command = [self._ctr, "--address", str(self.socket), "content", "fetch", *flags, reference]
        log = self.folder / f"pull-{len(self._pulls)}.log"
        pull = Pull(self.machine, self._within(command), self.environ, log)
        self._pulls.append(pull)
        return pull

    def check_image(self, reference: str, image: Image) -> None:
        checked = self.ctr("images", "check", f"name=={reference}").splitlines()[1:]
        assert len(checked) == 1, f"{reference} is not among the images: {checked}"
        assert "complete" in checked[0], checked[0]
        assert "incomplete" not in checked[0], checked[0]
        assert checked[0].split()[-1] == "true", f"not unpacked: {checked[0]}"
        held = set(self.ctr("content", "ls", "-q").split())
        assert image.digests <= held, f"missing: {image.digests - held}"
        for digest in image.digests:
            assert file_digest(self.content / digest.replace(":", "/")) == digest

    def forget(self) -> None:
        names = self.ctr("images", "ls", "-q").split()
        if names:
            self.ctr("images", "rm", "--sync", *names)


class Podman(Runtime):
    """podman, which has no daemon."""

    name = "podman"
    etc_name = "containers"

    def __init__(self, machine: Machine, folder: Path) -> None:
        super().__init__(machine, folder)
        self._program = require_program("podman")
        self.root = folder / "root"
        (folder / "tmp").mkdir()
        self.environ |= {"TMPDIR": str(folder / "tmp")}
        write_policy(self.etc)

    def configure(self, registry: str) -> None:
        write_registries(self.etc, registry, mirror=True)

    def configure_direct(self, registry: str) -> None:
        write_registries(self.etc, registry, mirror=False)

    def _podman(self) -> list[str]:
        places = ("--root", str(self.root), "--runroot", str(self.folder / "run"))
        places += ("--tmpdir", str(self.folder / "libpod"), "--storage-driver", "overlay")
        return [self._program, *places, "--cgroup-manager", "cgroupfs", "--events-backend", "file"]

    def podman(self, *arguments: str) -> str:
        """Run ``podman``; what it prints."""
        return self.run(*self._podman(), *arguments)

    def command(self, reference: str, login: str) -> list[str]:
        return [*self._podman(), "pull", *(["--creds", login] if login else []), reference]

    def check_image(self, reference: str, image: Image) -> None:
        (told,) = json.loads(self.podman("image", "inspect", reference))
        assert told["Id"] == image.config.digest.removeprefix("sha256:")
        assert told["RootFS"]["Layers"] == [layer.diff_id for layer in image.layers]
        layers = json.loads((self.root / "overlay-layers" / "layers.json").read_text())
        folders = {layer["diff-digest"]: layer["id"] for layer in layers}
        for layer in image.layers:
            held = self.root / "overlay" / folders[layer.diff_id] / "diff"
            found = {path.name: file_digest(path) for path in held.iterdir()}
            expected = {layer.name: f"sha256:{layer.file_sha256}"} if layer.file_sha256 else {}
            assert found == expected

    def forget(self) -> None:
        self.podman("rmi", "--all", "--force")


class Skopeo(Runtime):
    """skopeo, which copies into a folder."""

    name = "skopeo"
    etc_name = "containers"

    def __init__(self, machine: Machine, folder: Path) -> None:
        super().__init__(machine, folder)
        self._program = require_program("skopeo")
        self.out = folder / "out"
        self.multi_arch = "system"
        write_policy(self.etc)

    def configure(self, registry: str) -> None:
        write_registries(self.etc, registry, mirror=True)

    def configure_direct(self, registry: str) -> None:
        write_registries(self.etc, registry, mirror=False)

    def command(self, reference: str, login: str) -> list[str]:
        flags = ["--multi-arch", self.multi_arch, *(["--src-creds", login] if login else [])]
        return [self._program, "copy", *flags, f"docker://{reference}", f"dir:{self.out}"]

    def check_image(self, reference: str, image: Image) -> None:
        for digest in image.digests - {image.manifest.digest}:
            assert file_digest(self.out / digest.removeprefix("sha256:")) == digest
        names = ["manifest.json", f"{image.manifest.digest.removeprefix('sha256:')}.manifest.json"]
        assert image.manifest.content in [
            (self.out / name).read_bytes() for name in names if (self.out / name).exists()
        ]

    def forget(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)


RUNTIMES: Mapping[str, type[Containerd] | type[Podman] | type[Skopeo]] = {
    kind.name: kind for kind in (Containerd, Podman, Skopeo)
}


def write_policy(etc: Path) -> None:
    """Let every image be had, as Debian's policy.json does."""
    (etc / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))


def write_registries(etc: Path, registry: str, *, mirror: bool) -> None:
    """Describe a registry (HOST:PORT, plain HTTP) in registries.conf.d, with the gateway as its mirror or not."""
    text = f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
    if mirror:
        # no colon may be in the path of a reference
        place = f"{GATEWAY}/{registry.replace(':', '_')}"
        text += f'\n[[registry.mirror]]\nlocation = "{place}"\ninsecure = true\n'
    (etc / "registries.conf.d").mkdir(exist_ok=True)
    (etc / "registries.conf.d" / f"{registry.replace(':', '-')}.conf").write_text(text)
    (etc / "registries.conf").write_text("unqualified-search-registries = []\n")


def file_digest(path: Path) -> str:
    """sha256:HEX of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
