"""Private repositories: who may read them upstream gets them from the cluster, nobody else gets anything of them.
``make lab``, as root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cluster import Host, ImageLab
from tests.lab.doors import DOORS, PRIVATE, PUBLIC, STRANGER, Door
from tests.lab.images import Image, put_image
from tests.lab.layers import MIB
from tests.registry import PASSWORD, USER, basic

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

RUNTIMES = ("containerd", "podman", "skopeo")
LOGIN = f"{USER}:{PASSWORD}"
REFUSED = {
    "nobody": "",
    "a stranger": f"{STRANGER}:{PASSWORD}",
    "a wrong password": f"{USER}:wrong",
}


class Guarded:
    """A lab whose registry has a door, with a private and a public image."""

    def __init__(self, lab: ImageLab, door: Door) -> None:
        self.lab = lab
        self.door = door
        self.private = put_image(lab.registry, PRIVATE, [4 * MIB, MIB], seed=1)
        self.public = put_image(lab.registry, PUBLIC, [2 * MIB], seed=2)
        for host in lab.hosts:
            for runtime in host.runtimes.values():
                runtime.configure(door.name)

    def pull(self, host: Host, runtime: str, image: Image, login: str, *, digest: bool = False) -> None:
        """Pull, which must succeed and bring the right content."""
        reference = self.lab.reference(image, registry=self.door.name, digest=digest)
        host.runtimes[runtime].pull(reference, login=login).check()
        host.runtimes[runtime].check_image(reference, image)

    def refuse(self, host: Host, runtime: str, login: str) -> None:
        """Try to pull the private image, by tag and by digest, which must be refused."""
        for digest in (False, True):
            reference = self.lab.reference(self.private, registry=self.door.name, digest=digest)
            host.runtimes[runtime].pull(reference, login=login).check_refused()

    def ask_for_all(self, host: Host, repository: str, login: str) -> None:
        """Ask the gateway for every part of the private image, under the name of a repository: refused."""
        user, _, password = login.partition(":")
        headers = {"Authorization": basic(user, password)} if login else {}
        private = self.private
        paths = [f"manifests/{private.manifest.digest}", f"blobs/{private.config.digest}"]
        paths += [f"blobs/{layer.digest}" for layer in private.layers]
        if repository == private.repository:
            paths += [f"manifests/{private.tag}", "tags/list"]
        for path in paths:
            for prefix, query in (
                ("", f"?ns={self.door.name}"),
                (f"{self.door.name.replace(':', '_')}/", ""),
            ):
                answer = host.ask(f"/v2/{prefix}{repository}/{path}{query}", headers=headers)
                assert answer.status in (401, 403, 404), answer.text
                assert private.config.content not in answer.body
                assert len(answer.body) < 2000, "this is no refusal"


@pytest.fixture(scope="module", params=DOORS)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with ImageLab(hosts=3, runtimes=RUNTIMES) as lab, DOORS[request.param](lab) as door:
        yield Guarded(lab, door)


def test_who_may_read_it_gets_it_from_the_cluster_and_nobody_else(guarded: Guarded) -> None:
    lab, (first, second, third) = guarded.lab, guarded.lab.hosts
    guarded.refuse(third, "containerd", "")  # before anybody had it
    guarded.pull(first, "containerd", guarded.private, LOGIN)
    guarded.pull(second, "podman", guarded.private, LOGIN)
    guarded.pull(third, "skopeo", guarded.private, LOGIN, digest=True)
    for runtime in RUNTIMES:
        for host in lab.hosts:
            host.runtimes[runtime].forget()
    # now every host holds all of it
    for host, (who, login) in zip(lab.hosts, REFUSED.items(), strict=True):
        for runtime in RUNTIMES:
            if not (who == "a wrong password" and runtime == "skopeo"):
                guarded.refuse(host, runtime, login)
        for repository in (PRIVATE, PUBLIC, "team/other"):
            guarded.ask_for_all(host, repository, login)
    for host in lab.hosts:
        guarded.pull(host, "containerd", guarded.private, LOGIN)


def test_public_ones_beside_it_are_for_everybody(guarded: Guarded) -> None:
    for host, runtime, login in zip(guarded.lab.hosts, RUNTIMES, REFUSED.values(), strict=True):
        guarded.pull(host, runtime, guarded.public, login if login != f"{USER}:wrong" else "")


def test_credentials_are_nowhere_to_be_seen(guarded: Guarded) -> None:
    guarded.pull(guarded.lab.hosts[0], "containerd", guarded.private, LOGIN)
    secrets = (PASSWORD, *(basic(user).partition(" ")[2] for user in (USER, STRANGER)))
    for daemon in guarded.lab.daemons:
        for secret in secrets:
            assert secret not in daemon.log
            assert secret not in daemon.metrics().text()
