"""What a plugin says about itself."""

from __future__ import annotations

import pytest

from cdn.sources.plugins.attributes import WrongAttributes, check_attributes, is_scheme

SEED = {
    "scheme": "d7yfs",
    "type": "resource",
    "name": "d7yfs",
    "buildCommit": "bb65f13",
    "buildTime": "2021-12-13T08:53:04Z",
    "vendor": "d7y",
}


def test_the_attributes_of_the_seed() -> None:
    checked = check_attributes(SEED, "d7yfs")
    assert checked == SEED
    assert list(checked) == sorted(SEED)


def test_schemes_are_compared_in_lower_case_and_further_attributes_are_kept() -> None:
    given = {"type": "resource", "name": "D7yFS", "scheme": "d7yFS", "homepage": "x"}
    assert check_attributes(given, "D7YFS") == given


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (None, "attributes are None, expected a dict"),
        ([("type", "resource")], "of type list"),
        ({}, "lacks the attribute 'type', expected 'resource'"),
        ({**SEED, "type": "manager"}, "'type' is 'manager', expected 'resource'"),
        ({**SEED, "type": "Resource"}, "'type' is 'Resource'"),
        ({**SEED, "name": "other"}, "'name' is 'other', expected 'd7yfs'"),
        ({**SEED, "scheme": ""}, "'scheme' is '', expected 'd7yfs'"),
        ({k: v for k, v in SEED.items() if k != "scheme"}, "lacks the attribute 'scheme'"),
        ({**SEED, "vendor": None}, "'vendor' is None, expected a text"),
        ({**SEED, "buildTime": 3}, "'buildTime' is of type int, expected a text"),
        ({**SEED, 3: "x"}, "named 3, expected a text"),
        ({**SEED, "vendor": "x" * 2000}, "2000 characters, expected 1024 at most"),
    ],
)
def test_wrong_attributes_are_named_with_what_was_expected(attributes: object, words: str) -> None:
    with pytest.raises(WrongAttributes, match=words):
        check_attributes(attributes, "d7yfs")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("d7yfs", True),
        ("s3", True),
        ("A.b+c-d", True),
        ("", False),
        ("3s", False),
        ("a_b", False),
        ("a/b", False),
    ],
)
def test_schemes(text: str, valid: bool) -> None:
    assert is_scheme(text) is valid
