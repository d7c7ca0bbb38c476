"""Hosts without a scheduler that know each other's addresses: a ring, as multicast would make it, on loopback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.swarm import ring
from tests.integration.cluster import Cluster, Peer, Scheduler, task_id_of
from tests.integration.net import free_port, get_json, wait_until
from tests.integration.origins import Origin


class Ring:
    """``dragonet up`` on several machines of a network on which nobody announces anything.

    ``places`` are where its hosts listen; ``scheduler_at`` is where the hosts look for a scheduler that may come.
    """

    def __init__(self, cluster: Cluster, count: int, *, environ: Mapping[str, str] | None = None) -> None:
        self.cluster = cluster
        self.places = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        self.scheduler_at = f"127.0.0.1:{free_port()}"
        self.hosts: list[Peer] = []
        self.schedulers_of: dict[str, str] = {}
        """By name of a host, where the scheduler inside it answers in full."""
        self._environ = dict(environ or {})

    def start(self) -> Ring:
        """Start all, and wait until each one knows all the others. Gives itself back."""
        for place in self.places:
            self.add(place, wait=False)
        for host in self.hosts:
            host.wait_ready()
        self.wait_whole()
        return self

    def add(self, place: str = "", *, wait: bool = True, environ: Mapping[str, str] | None = None) -> Peer:
        """One more host; those that were there before hear of it from itself, if it is not at one of ``places``."""
        host, scheduler = self.cluster.start_up(
            name=f"host{len(self.hosts) + 1}",
            listen=place,
            wait=wait,
            environ={**self.settings(), **self._environ, **(environ or {})},
        )
        self.hosts.append(host)
        self.schedulers_of[host.name] = scheduler
        return host

    def settings(self) -> dict[str, str]:
        """The environment of a host that looks for the others."""
        return {
            "DRAGONET_HOST_SCHEDULER": "",
            "DRAGONET_LAN_DISCOVERY": "on",
            "DRAGONET_LAN_MDNS": "false",
            "DRAGONET_LAN_PEERS": ",".join([*self.places, self.scheduler_at]),
        }

    def start_scheduler(self) -> Scheduler:
        """A scheduler that the hosts find."""
        scheduler = Scheduler(
            "scheduler",
            ["scheduler", "--listen", self.scheduler_at, "--data-dir", str(self.cluster.folder / "sched")],
            address=self.scheduler_at,
            folder=self.cluster.folder,
            environ=self.cluster.environment({**self.settings(), "DRAGONET_LAN_PEERS": ""}),
        )
        self.cluster.scheduler = scheduler
        self.cluster.daemons.append(scheduler)
        scheduler.start()
        return scheduler

    # --- what the hosts see -----------------------------------------------------------------------

    def view(self, host: Peer) -> dict[str, Any]:
        """The LAN as a host sees it."""
        told = get_json(str(host.socket), "/v1/lan")
        assert isinstance(told, dict)
        return told

    def id_of(self, host: Peer) -> str:
        """The id of a host."""
        return str(self.view(host)["here"]["id"])

    def members(self, host: Peer) -> set[str]:
        """The ids of those that decide, as a host sees it."""
        told = self.view(host)
        own = {told["here"]["id"]} if told["mode"] in ("ring", "alone") else set()
        return own | {other["id"] for other in told["hosts"] if other["member"]}

    def wait_whole(self, hosts: Sequence[Peer] | None = None, timeout: float = 30) -> None:
        """Wait until each of these (default: all that run) sees them all, and no one else, as the ring."""
        running = [host for host in self.hosts if host.running] if hosts is None else hosts
        ids = {self.id_of(host) for host in running}
        for host in running:
            wait_until(
                lambda host=host: self.view(host)["mode"] in ("ring", "alone") and self.members(host) == ids,
                f"{host.name} sees a ring of {len(ids)}",
                timeout,
            )

    def wait_mode(self, mode: str, timeout: float = 30) -> None:
        """Wait until all hosts that run are in this mode."""
        for host in self.hosts:
            if host.running:
                wait_until(
                    lambda host=host: self.view(host)["mode"] == mode,
                    f"{host.name} is in mode {mode}",
                    timeout,
                )

    # --- who decides ------------------------------------------------------------------------------

    def owner(self, url: str) -> Peer:
        """The host that decides for a URL while all are there."""
        ids = {self.id_of(host): host for host in self.hosts}
        return ids[ring.owner(ids, task_id_of(url))]

    def add_owned(self, origin: Origin, owner: Peer, content: bytes, **options: Any) -> str:
        """A new file at the origin for which this host decides; its URL."""
        ids = {self.id_of(host): host for host in self.hosts}
        number = 0
        while True:
            path = f"/owned-{number}.bin"
            url = f"http://{origin.address}{path}"
            if ids[ring.owner(ids, task_id_of(url))] is owner:
                assert origin.add(path, content, **options) == url
                return url
            number += 1
