"""Images of every kind, pulled by every runtime through dragonet: ``make lab``, as root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cluster import ImageLab
from tests.lab.images import Form, Image, put_image, put_index
from tests.lab.layers import MIB, Packing

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

RUNTIMES = ("containerd", "podman", "skopeo")


@pytest.fixture(scope="module")
def lab() -> Iterator[ImageLab]:
    """Two hosts, each with every runtime. Each test has a repository and content of its own."""
    with ImageLab(hosts=2, runtimes=RUNTIMES) as running:
        yield running


def pull_with_every_runtime(lab: ImageLab, image: Image) -> None:
    """Each runtime pulls on both hosts; the registry is read once for all of them."""
    for runtime in RUNTIMES:
        lab.pull_all(image, runtime)
        for host in lab.hosts:
            host.runtimes[runtime].forget()
    lab.read_once(image)


@pytest.mark.parametrize(
    ("form", "packing", "seed"),
    [
        ("oci", "gzip", 10),
        ("oci", "tar", 11),
        ("oci", "zstd", 12),
        ("docker", "gzip", 13),
        ("docker", "tar", 14),
    ],
)
def test_forms_and_packings(lab: ImageLab, form: Form, packing: Packing, seed: int) -> None:
    repository = f"kinds/{form}-{packing}"
    image = put_image(lab.registry, repository, [3 * MIB, 5, MIB], seed=seed, form=form, packing=packing)
    pull_with_every_runtime(lab, image)


def test_forty_small_layers(lab: ImageLab) -> None:
    image = put_image(lab.registry, "kinds/forty", [30_000 + 1000 * n for n in range(40)], seed=20)
    pull_with_every_runtime(lab, image)


def test_empty_layers_beside_others(lab: ImageLab) -> None:
    image = put_image(lab.registry, "kinds/empty", [0, MIB, 0, 0, MIB], seed=21)
    assert len({layer.digest for layer in image.layers}) == 3
    pull_with_every_runtime(lab, image)


def test_an_image_of_nothing_but_empty_layers(lab: ImageLab) -> None:
    # packed in another way than those above, which the cluster holds already
    image = put_image(lab.registry, "kinds/nothing", [0, 0], seed=22, packing="tar")
    pull_with_every_runtime(lab, image)


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_index_of_several_architectures(lab: ImageLab, form: Form) -> None:
    repository = f"kinds/index-{form}"
    images = {
        architecture: put_image(
            lab.registry,
            repository,
            [2 * MIB, MIB],
            tag=architecture,
            seed=30 + number + 2 * (form == "docker"),
            form=form,
            architecture=architecture,
        )
        for number, architecture in enumerate(("amd64", "arm64"))
    }
    index = put_index(lab.registry, repository, "v1", images, form)
    ours = images["amd64"]
    image = Image(repository, "v1", ours.manifest, ours.config, ours.layers)
    pull_with_every_runtime(lab, image)
    assert lab.blob_egress(images["arm64"]).keys() == lab.blob_egress(image).keys(), "another one was read"
    host = lab.hosts[0]
    answer = host.ask(
        f"/v2/{repository}/manifests/v1?ns={lab.registry.name}", headers={"Accept": f"{index.kind}, */*"}
    )
    assert (answer.status, answer.body) == (200, index.content)
    assert answer.headers["content-type"] == index.kind
    assert answer.headers["docker-content-digest"] == index.digest


def test_by_digest(lab: ImageLab) -> None:
    image = put_image(lab.registry, "kinds/digest", [MIB], seed=40)
    reference = lab.reference(image, digest=True)
    for runtime in RUNTIMES:
        for host in lab.hosts:
            host.runtimes[runtime].pull(reference).check()
            host.runtimes[runtime].check_image(reference, image)
            host.runtimes[runtime].forget()
    lab.read_once(image)


def test_layers_that_two_repositories_share_are_read_once(lab: ImageLab) -> None:
    first = put_image(lab.registry, "kinds/one", [2 * MIB, MIB], seed=41)
    second = put_image(lab.registry, "kinds/two", [2 * MIB, MIB], seed=41)
    assert first.layers == second.layers
    lab.pull_all(first, "containerd")
    lab.pull_all(second, "podman")
    lab.read_once(first)
    assert set(lab.blob_egress(second)) <= {second.config.digest}


def test_a_layer_of_two_gibibytes() -> None:
    with ImageLab(hosts=2, runtimes=("containerd", "podman")) as lab:
        image = put_image(lab.registry, "team/large", [2048 * MIB, MIB], seed=50, packing="tar")
        chosen = {"containerd": lab.hosts[0], "podman": lab.hosts[1]}
        pulls = [pull for runtime, host in chosen.items() for pull in lab.pull(image, runtime, [host])]
        for pull in pulls:
            pull.check(220)
        for runtime, host in chosen.items():
            host.runtimes[runtime].check_image(lab.reference(image), image)
        lab.read_once(image)
