"""A LAN of dragonet hosts that find each other: real processes on machines of their own, with real multicast.

Each host keeps its data folder and its local API (a unix socket, which the test process reaches from outside) to
itself; nothing else is told to it unless a test does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.swarm.ring import owner
from shared.task.identity import make_spec
from tests.integration.cluster import GetResult, RunningGet
from tests.integration.net import get_json, request, wait_until
from tests.integration.origins import Origin
from tests.integration.processes import Daemon, clean_environment, dragonet_command
from tests.lab.network import Machine, Network

PATIENCE = 60.0
"""Seconds after which a test gives up; how long things take is told, and asserted nowhere."""

PORT = 65002


class LanHost(Daemon):
    """A daemon on a machine: ``dragonet up``, ``peer`` or ``seeder``, or a ``scheduler``."""

    def __init__(
        self,
        lab: LanLab,
        name: str,
        machine: Machine,
        role: str,
        flags: Sequence[str],
        environ: Mapping[str, str],
    ) -> None:
        folder = lab.folder / name
        folder.mkdir()
        self.lab = lab
        self.machine = machine
        self.role = role
        self.data = folder / "data"
        self.socket = folder / "s"
        self.frozen = False
        local = role in ("up", "peer")
        own = ["--data-dir", str(self.data), *(["--socket", str(self.socket)] if local else [])]
        port = 8002 if role == "scheduler" else PORT
        super().__init__(
            name,
            [role, *own, *flags],
            address=str(self.socket) if local else f"{machine.address}:{port}",
            folder=folder,
            environ=clean_environment(folder, {**lab.environ, **environ}),
            prefix=machine.prefix,
        )

    # --- what happens to it -----------------------------------------------------------------------

    def freeze(self) -> None:
        """SIGSTOP: it answers nothing, and its connections stay open."""
        self.frozen = True
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    # --- what it tells ----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id, which lies in its data folder."""
        folder = "seeder" if self.role == "seeder" else "peer"
        return (self.data / folder / "host-id").read_text().strip()

    def view(self, *, probe: bool = False) -> dict[str, Any]:
        """The LAN as it sees it; with ``probe`` everybody is asked first."""
        told = get_json(str(self.socket), f"/v1/lan{'?probe=1' if probe else ''}")
        assert isinstance(told, dict)
        return told

    def others(self) -> dict[str, dict[str, Any]]:
        """The others that it knows of, by id."""
        return {host["id"]: host for host in self.view()["hosts"]}

    def present(self) -> set[str]:
        """Ids of the others, schedulers not counted, that are there for it now."""
        there = (host for host in self.view()["hosts"] if host["state"] == "present")
        return {host["id"] for host in there if host["role"] != "scheduler"}

    def members(self) -> set[str]:
        """Ids of the others that it schedules with."""
        return {host["id"] for host in self.view()["hosts"] if host["member"]}

    def mode(self) -> str:
        """How it decides: "ring", "scheduler", …"""
        return str(self.view()["mode"])

    def held(self, url: str) -> int:
        """Bytes that it holds of the content at ``url``."""
        answer = request(str(self.socket), f"/v1/tasks/{make_spec(url)[0].task_id}")
        return int(answer.json()["held"]) if answer.status == 200 else 0

    def sent(self) -> int:
        """Bytes of pieces that it has given to others since its start."""
        return int(self.metrics().value("dragonet_sent_bytes_total"))

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event, oldest first; "at" is their time in Unix seconds."""
        lines = (json.loads(line) for line in self.log.splitlines() if f'"{event}"' in line)
        return [
            {**line, "at": datetime.fromisoformat(line["timestamp"]).timestamp()}
            for line in lines
            if line.get("event") == event
        ]

    # --- what it is told to do --------------------------------------------------------------------

    def start_get(self, url: str, *flags: str) -> RunningGet:
        """``dragonet get --json`` here."""
        return self.lab.start_get(self, url, *flags)

    def get(self, url: str, content: bytes) -> GetResult:
        """``dragonet get`` here, to its end; the content must be right."""
        return self.start_get(url).wait(PATIENCE).check(content)


class LanLab:
    """The networks, hosts, origins and downloads of a test; a context manager that ends and removes all of it."""

    def __init__(self) -> None:
        # a short path of our own: names of unix sockets have at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="dnl-"))
        self.environ: dict[str, str] = {"DRAGONET_CONFIG": "", "DRAGONET_LOG_LEVEL": "debug"}
        self.hosts: list[LanHost] = []
        self.daemons: list[LanHost] = []
        self._gets: list[RunningGet] = []
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> LanLab:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        problems = self.close(failed=kind is not None)
        if kind is None and problems:
            raise AssertionError("\n\n".join(problems))

    def close(self, *, failed: bool = False) -> list[str]:
        """End everything; what was wrong, as sentences. With ``failed`` the ends of all logs are printed."""
        problems: list[str] = []
        try:
            self.end_gets()
            for daemon in self.daemons:
                daemon.thaw()
                if daemon.running and not daemon.terminated:
                    daemon.terminate()
            problems = [problem for daemon in self.daemons for problem in daemon.close()]
            if problems or failed:
                self.print_logs()
        finally:
            for daemon in self.daemons:
                if daemon.running:
                    daemon.kill()
            self._stack.close()
        return problems

    def print_logs(self, last: int = 6000) -> None:
        """The end of every log on stdout, where pytest shows it with a failure."""
        for daemon in self.daemons:
            print(f"--- the log of {daemon.name} ends with ---\n{daemon.log[-last:]}")

    # --- what is there ----------------------------------------------------------------------------

    def network(self, *, ipv4: bool = True, ipv6: bool = False, beside: Network | None = None) -> Network:
        """One more network."""
        return self._stack.enter_context(Network(ipv4=ipv4, ipv6=ipv6, beside=beside))

    def origin(self, network: Network) -> Origin:
        """An origin outside, which every machine of ``network`` reaches in a way of its own; in an IPv6 network
        it stands at the gateway."""
        return self._stack.enter_context(Origin(network.outside if network.prefix else network.gateway6))

    def host(
        self,
        place: Network | Machine,
        role: str = "up",
        *flags: str,
        environ: Mapping[str, str] | None = None,
        wait: bool = False,
    ) -> LanHost:
        """Start a daemon on a machine, or on a new one in a network; it needs not be ready yet."""
        host = self.add(place, role, *flags, environ=environ)
        host.start(wait=wait)
        return host

    def add(
        self,
        place: Network | Machine,
        role: str = "up",
        *flags: str,
        environ: Mapping[str, str] | None = None,
    ) -> LanHost:
        """The same, without starting it."""
        machine = place.machine() if isinstance(place, Network) else place
        name = f"{role}{len(self.daemons) + 1}"
        host = LanHost(self, name, machine, role, flags, environ or {})
        self.daemons.append(host)
        if role in ("up", "peer"):
            self.hosts.append(host)
        return host

    # --- what they know of each other -------------------------------------------------------------

    def wait_found(self, hosts: Collection[LanHost], *, among: Collection[LanHost] | None = None) -> float:
        """Wait until each of ``hosts`` is ready and has exactly the others of ``among`` (default: the same) in its
        view; the seconds that it took."""
        wanted = hosts if among is None else among
        began = time.monotonic()
        for host in hosts:
            host.wait_ready()
        ids = {host.name: host.id for host in wanted}

        def found() -> bool:
            return all(host.present() == set(ids.values()) - {ids.get(host.name)} for host in hosts)

        try:
            wait_until(found, "all hosts have found each other", PATIENCE)
        except AssertionError:
            self.print_views(hosts)
            raise
        return time.monotonic() - began

    def wait_lost(self, lost: LanHost, by: Iterable[LanHost]) -> float:
        """Wait until each of ``by`` has ``lost`` neither as a member nor as present; the seconds until it was used
        no more."""
        began = time.monotonic()
        hosts = list(by)
        gone = lost.id
        wait_until(
            lambda: not any(gone in host.members() for host in hosts), f"nobody uses {lost.name}", PATIENCE
        )
        unused = time.monotonic() - began
        wait_until(
            lambda: not any(gone in host.present() for host in hosts), f"nobody sees {lost.name}", PATIENCE
        )
        return unused

    def wait_mode(self, mode: str, hosts: Iterable[LanHost]) -> float:
        """Wait until all of ``hosts`` decide in that way; the seconds that it took."""
        began = time.monotonic()
        chosen = list(hosts)
        for host in chosen:
            host.wait_ready()
        wait_until(lambda: {host.mode() for host in chosen} == {mode}, f"the mode is {mode}", PATIENCE)
        return time.monotonic() - began

    def print_views(self, hosts: Iterable[LanHost]) -> None:
        """What each of ``hosts`` sees, on stdout."""
        for host in hosts:
            if host.running and not host.frozen:
                view = host.view()
                seen = [
                    f"  {one['id']} {one['role']} {one['state']} member={one['member']} at {one['address']}"
                    f" of {one['addresses']}"
                    for one in view["hosts"]
                ]
                here = view["here"]["id"]
                print(f"{host.name} {here} mode={view['mode']} ignored={view['ignored']}", *seen, sep="\n")

    # --- downloads --------------------------------------------------------------------------------

    def start_get(self, host: LanHost, url: str, *flags: str) -> RunningGet:
        """``dragonet get --json`` on a host's machine."""
        place = Path(tempfile.mkdtemp(prefix="get-", dir=host.folder))
        output = place / "files" / "file"
        output.parent.mkdir()
        command = [*dragonet_command(), "get", url, "-o", str(output), "--socket", str(host.socket)]
        environ = clean_environment(host.folder, {**self.environ, "DRAGONET_LAN_DISCOVERY": "off"})
        running = RunningGet([*command, "--json", *flags], environ, output, place / "notes")
        self._gets.append(running)
        return running

    def get_all(self, url: str, hosts: Iterable[LanHost], content: bytes) -> list[GetResult]:
        """The same URL on several hosts at the same time; everywhere the content must be right."""
        return [running.wait(PATIENCE).check(content) for running in [host.start_get(url) for host in hosts]]

    def end_gets(self) -> None:
        """Kill what still runs of the commands that were started."""
        for running in self._gets:
            running.end()
        self._gets.clear()

    def run(self, host: LanHost, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``dragonet ARGUMENTS`` on the machine of a host, to its end."""
        done = subprocess.run(
            [*host.machine.prefix, *dragonet_command(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=host.environ,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done


def owner_of(url: str, hosts: Iterable[LanHost]) -> str:
    """The id of the host, of a ring of ``hosts``, that decides for the content at ``url``."""
    return owner([host.id for host in hosts], make_spec(url)[0].logical_id)
