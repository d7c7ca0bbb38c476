"""A cluster of the lab that pulls images: a registry, a centre with scheduler and seeder, and hosts with runtimes.

Each stands on a machine (a network namespace) of its own. The registry speaks plain HTTP.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.integration.net import Answer, wait_until
from tests.integration.processes import Daemon, clean_environment
from tests.lab.images import Image
from tests.lab.network import Machine, Network, Traffic
from tests.lab.runtimes import GATEWAY, RUNTIMES, Containerd, Podman, Pull, Skopeo
from tests.programs import require_program
from tests.registry import DockerRegistry

_LOGGED = re.compile(r'^(\S+) - - \[[^]]*\] "(\S+) (\S+) [^"]*" (\d+) (\d+) ', re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """A request that the registry has answered; ``body`` is how many bytes of a body it sent."""

    machine: str
    method: str
    path: str
    status: int
    body: int


class Host:
    """A machine with a peer, whose gateway is on its loopback, and a runtime."""

    def __init__(self, machine: Machine, peer: Daemon, folder: Path) -> None:
        self.machine = machine
        self.peer = peer
        self.folder = folder
        self.data = folder / "data"
        self.runtimes: dict[str, Containerd | Podman | Skopeo] = {}

    def __repr__(self) -> str:
        return f"<Host {self.machine.address}>"

    @property
    def containerd(self) -> Containerd:
        """Its containerd."""
        found = self.runtimes["containerd"]
        assert isinstance(found, Containerd)
        return found

    def ask(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        """One request from this machine to its own gateway, without any runtime."""
        given = [word for name, value in (headers or {}).items() for word in ("--header", f"{name}: {value}")]
        verb = ["--head"] if method == "HEAD" else ["--request", method]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            head, body = Path(folder) / "head", Path(folder) / "body"
            done = subprocess.run(
                [
                    *self.machine.prefix,
                    require_program("curl"),
                    *("--silent", "--show-error", "--max-time", "60", *verb, *given),
                    *("--dump-header", str(head), "--output", str(body), f"http://{GATEWAY}{path}"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            lines = head.read_text("latin-1").rstrip().rpartition("\r\n\r\n")[2].splitlines()
            content = body.read_bytes() if body.exists() and method != "HEAD" else b""
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        return Answer(int(lines[0].split()[1]), fields, content)

    def given(self) -> dict[str, Counter[str]]:
        """By digest (or tag), the bytes by source of what the gateway has given out, from the log of the peer."""
        found: dict[str, Counter[str]] = {}
        for line in self.peer.log.splitlines():
            if '"registry request"' in line:
                told = json.loads(line)
                found.setdefault(told["reference"], Counter()).update(told["sources"])
        return found


class ImageLab:
    """Use as a context manager. Every process must end in good order, with nothing strange in its log."""

    def __init__(
        self,
        *,
        hosts: int,
        runtimes: Sequence[str] = ("containerd",),
        environ: Mapping[str, str] | None = None,
        rate: int = 0,
        direct: bool = False,
    ) -> None:
        """``rate`` in bytes per second is what each cable lets through, both ways; 0: all. ``direct`` lets the
        runtimes pull from the registry, without dragonet."""
        # a short path of our own: names of unix sockets have at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="dnl-"))
        self.network = Network()
        self.hosts: list[Host] = []
        self.daemons: list[Daemon] = []
        self._count = hosts
        self._runtimes = runtimes
        self._environ = environ or {}
        self._rate = rate
        self._direct = direct
        self._stack = ExitStack()

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._print_logs()
            self._clean()
            raise
        return self

    def _start(self) -> None:
        program = require_program("docker-registry")
        self._stack.enter_context(self.network)
        self.store = self._machine()
        self.registry = DockerRegistry(
            self._folder("registry"), program, address=f"{self.store.address}:5000", prefix=self.store.prefix
        )
        self._stack.enter_context(self.registry)
        self.centre = self._machine()
        address = f"{self.centre.address}:8002"
        self.scheduler = self._daemon("scheduler", self.centre, address, "--listen", "0.0.0.0:8002")
        self.scheduler.start()
        pieces = f"{self.centre.address}:65002"
        self.seeder = self._daemon("seeder", self.centre, pieces, *self._listen())
        self.seeder.start(wait=False)
        for _ in range(self._count):
            self._add_host()
        for daemon in self.daemons:
            daemon.wait_ready()

    def _machine(self) -> Machine:
        machine = self.network.machine()
        if self._rate:
            machine.limit(self._rate)
        return machine

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _listen(self) -> tuple[str, ...]:
        return "--listen", "0.0.0.0:65002", "--scheduler", f"http://{self.centre.address}:8002"

    def _daemon(
        self, name: str, machine: Machine, address: str, *flags: str, folder: Path | None = None
    ) -> Daemon:
        folder = folder or self._folder(name)
        plain = f"source.options.oci.insecure={self.store.address},{self.network.gateway}"
        flags += ("--data-dir", str(folder / "data"), "--set", plain)
        daemon = Daemon(
            name,
            [name.rstrip("0123456789"), *flags],
            address=address,
            folder=folder,
            environ=self.environ(folder),
            prefix=machine.prefix,
        )
        self.daemons.append(daemon)
        return daemon

    def environ(self, folder: Path) -> dict[str, str]:
        """The environment of every dragonet process."""
        own = {
            "DRAGONET_CONFIG": "",
            "DRAGONET_LOG_LEVEL": "debug",
            "DRAGONET_LOG_FORMAT": "json",
            "DRAGONET_REGISTRY_ALLOW": f"{self.store.address}:*",
        }
        return clean_environment(folder, {**own, **self._environ})

    def _add_host(self) -> None:
        number = len(self.hosts) + 1
        machine, folder = self._machine(), self._folder(f"h{number}")
        flags = (*self._listen(), "--gateway", GATEWAY, "--socket", str(folder / "s"))
        peer = self._daemon(f"peer{number}", machine, f"{machine.address}:65002", *flags, folder=folder)
        peer.start(wait=False)
        host = Host(machine, peer, folder)
        for name in self._runtimes:
            runtime = RUNTIMES[name](machine, self._folder(f"h{number}/{name}"))
            self._stack.enter_context(runtime)
            host.runtimes[name] = runtime
            if self._direct:
                runtime.configure_direct(self.registry.name)
            else:
                runtime.configure(self.registry.name)
        self.hosts.append(host)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        problems: list[str] = []
        try:
            for daemon in self.daemons:
                if daemon.running and not daemon.terminated:
                    daemon.terminate()
            problems = [problem for daemon in self.daemons for problem in daemon.close()]
            if problems or kind is not None:
                self._print_logs()
        finally:
            self._clean()
        if kind is None and problems:
            raise AssertionError("\n\n".join(problems))

    def _print_logs(self, last: int = 4000) -> None:
        for daemon in self.daemons:
            print(f"--- the log of {daemon.name} ends with ---\n{daemon.log[-last:]}")

    def _clean(self) -> None:
        for daemon in self.daemons:
            if daemon.running:
                daemon.kill()
        try:
            self._stack.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- pulls ------------------------------------------------------------------------------------

    def reference(self, image: Image, *, digest: bool = False, registry: str = "") -> str:
        """What the image is called by a runtime; ``registry`` where it is had from another one."""
        held = f"@{image.manifest.digest}" if digest else f":{image.tag}"
        return f"{registry or self.registry.name}/{image.repository}{held}"

    def pull(self, image: Image, runtime: str, hosts: Iterable[Host] | None = None) -> list[Pull]:
        """Begin to pull on some hosts (default: all) at the same time."""
        reference = self.reference(image)
        return [host.runtimes[runtime].pull(reference) for host in hosts or self.hosts]

    def pull_all(self, image: Image, runtime: str, hosts: Iterable[Host] | None = None) -> None:
        """Pull on some hosts (default: all) at the same time, and see that the content is right."""
        chosen = list(hosts or self.hosts)
        for pull in self.pull(image, runtime, chosen):
            pull.check()
        for host in chosen:
            host.runtimes[runtime].check_image(self.reference(image), image)

    def stop_registry(self) -> None:
        """End the registry for good."""
        self.registry.__exit__()

    # --- what the registry saw --------------------------------------------------------------------

    def asked(self) -> list[Asked]:
        """All requests that the registry has answered."""
        return [
            Asked(machine, method, path, int(status), int(body))
            for machine, method, path, status, body in _LOGGED.findall(self.registry.log)
        ]

    def blob_egress(self, image: Image) -> Counter[str]:
        """Bytes that the registry has sent of each blob of an image, by digest."""
        sent: Counter[str] = Counter()
        place = f"/v2/{image.repository}/blobs/"
        for asked in self.asked():
            if asked.method == "GET" and asked.path.startswith(place):
                sent[asked.path.removeprefix(place)] += asked.body
        return sent

    def read_once(self, image: Image) -> None:
        """That each blob of the image has left the registry once, to the byte."""
        expected = {layer.digest: layer.size for layer in image.layers}
        expected[image.config.digest] = len(image.config.content)
        assert dict(self.blob_egress(image)) == expected

    def received(self, host: Host) -> int:
        """Piece bytes that a host has received by now."""
        return host.peer.metrics().received()

    def wait_received(self, hosts: Iterable[Host], amount: int, pulls: Iterable[Pull] = ()) -> None:
        """Wait until each of the hosts has received ``amount`` bytes; no pull may have ended by then."""
        running = list(pulls)

        def there() -> bool:
            for pull in running:
                assert pull.process.poll() is None, f"a pull ended too early:\n{pull.output[-2000:]}"
            return all(self.received(host) >= amount for host in hosts)

        wait_until(there, f"{amount} bytes have come", 60)


def traffic_during(machine: Machine, work: Callable[[], object]) -> Traffic:
    """What passes the cable of a machine while ``work`` is done."""
    before = machine.traffic
    work()
    after = machine.traffic
    return Traffic(after.to_machine - before.to_machine, after.from_machine - before.from_machine)
