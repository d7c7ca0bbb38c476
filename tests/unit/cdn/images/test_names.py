from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.images.names import parse_image
from cdn.sources.oci.names import parse_reference
from shared.errors import InvalidRequest

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        (" alpine:3.20 ", "docker.io/library/alpine:3.20"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1"),
        ("quay.io/team/app:1", "quay.io/team/app:1"),
        ("reg:5000/a/b:tag", "reg:5000/a/b:tag"),
        ("localhost/a", "localhost/a:latest"),
        ("LOCALHOST:5000/a", "localhost:5000/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b"),
        (f"alpine@sha256:{HEX}", f"docker.io/library/alpine@sha256:{HEX}"),
        (f"reg:5000/a/b:tag@sha256:{HEX.upper()}", f"reg:5000/a/b@sha256:{HEX}"),
        ("oci://registry/name:1", "registry/name:1"),
        ("docker://docker.io/library/alpine", "docker.io/library/alpine:latest"),
        (f"oci://r.test/a@sha256:{HEX}", f"r.test/a@sha256:{HEX}"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert str(parse_image(text)) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names are of"),
        ("Alpine", "names are of"),
        ("a:b:c", "is not a tag"),
        ("a/b:", "is not a tag"),
        ("a:-", "is not a tag"),
        ("a@sha256:12", "hexadecimal"),
        ("a@", "no algorithm"),
        ("https://r.test/a", "no scheme but oci://"),
        ("oci://UP_PER/a", "is not a registry"),
        ("r.test/", "names are of"),
        ("r.test:port/a", "is not a registry"),
        ("a b", "names are of"),
        ("-r.test/a", "is not a registry"),
    ],
)
def test_what_is_no_name(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_image(text)


@given(st.text(alphabet=st.sampled_from("aA1.:/@-_[]%? \0é"), max_size=30))
def test_what_is_taken_is_a_reference_of_the_oci_source(text: str) -> None:
    try:
        reference = parse_image(text)
    except InvalidRequest:
        return
    assert str(parse_reference(f"oci://{reference}")) == str(reference)
