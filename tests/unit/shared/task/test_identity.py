from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.task.identity import (
    TaskSpec,
    content_spec,
    filter_query,
    make_spec,
    normalize_url,
    parse_range,
    redact_url,
)


def task_id(url: str, **options: object) -> str:
    return make_spec(url, **options)[0].task_id  # type: ignore[arg-type]


def test_the_same_content_has_one_id() -> None:
    assert task_id("HTTP://Example.COM:80/a b#x") == task_id("http://example.com/a%20b")


@pytest.mark.parametrize(
    "options",
    [
        {"tag": "x"},
        {"application": "x"},
        {"byte_range": "0-9"},
        {"headers": {"Authorization": "Bearer a"}},
        {"headers": {"Cookie": "a"}},
        {"headers": {"Accept": "application/json"}},
    ],
)
def test_whatever_may_change_the_content_changes_the_id(options: dict[str, object]) -> None:
    assert task_id("http://h/a", **options) != task_id("http://h/a")


def test_fields_are_not_confused_with_each_other() -> None:
    assert TaskSpec("http://h/", tag="ab").task_id != TaskSpec("http://h/", tag="a", application="b").task_id
    assert TaskSpec("http://h/a", tag="b").task_id != TaskSpec("http://h/ab").task_id


def test_neutral_headers_travel_and_do_not_change_the_id() -> None:
    spec, private = make_spec("http://h/", headers={"User-Agent": "x", "Referer": "http://y/"})
    assert spec.headers == {"user-agent": "x", "referer": "http://y/"}
    assert not private
    assert not spec.scope
    assert spec.task_id == task_id("http://h/")


def test_credentials_stay_here_and_give_a_scope() -> None:
    spec, private = make_spec("http://user:p%40ss@h/a", headers={"X-Token": "t0p"})
    assert private == {"authorization": "Basic dXNlcjpwQHNz", "x-token": "t0p"}
    assert len(spec.scope) == 32
    text = repr(spec)
    assert "ser:" not in text
    assert "p%40ss" not in text
    assert "t0p" not in text


def test_other_credentials_have_another_scope() -> None:
    one, two = (make_spec("http://h/", headers={"Authorization": f"Bearer {t}"})[0] for t in "ab")
    assert one.scope != two.scope


def test_filtered_parameters_do_not_count_and_the_others_keep_their_order() -> None:
    assert filter_query("http://h/?b=1&Sig=x&a=2&a=1", ["sig"]) == "http://h/?b=1&a=2&a=1"
    assert task_id("http://h/?a=1&t=1", filtered=["t"]) == task_id("http://h/?a=1&t=2", filtered=["t"])
    assert task_id("http://h/?a=1&b=1") != task_id("http://h/?b=1&a=1")


def test_international_urls_have_their_ascii_form() -> None:
    assert normalize_url("https://Bücher.example/ü?q=ü")[0] == "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC"


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("OCI://Registry.Example:5000/Lib/app@sha256:AB", "oci://registry.example:5000/Lib/app@sha256:AB"),
        ("oci://[::1]:5000/lib/app:V1", "oci://[::1]:5000/lib/app:V1"),
        ("oci://user:secret@registry/app@sha256:ab", "oci://registry/app@sha256:ab"),
        ("hf://Owner/Name@v1/a b", "hf://Owner/Name@v1/a%20b"),
        ("hf://datasets/Owner/Name@refs%2Fpr%2F1/x", "hf://datasets/Owner/Name@refs%2Fpr%2F1/x"),
    ],
)
def test_what_follows_an_at_sign_in_the_path_is_no_host(url: str, normal: str) -> None:
    assert normalize_url(url)[0] == normal
    assert normalize_url(normal) == (normal, "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no scheme"),
        ("nothing", "no scheme"),
        ("http:///path", "no host"),
        ("http://h:99999/", "not a URL"),
        ("http://h/\x00", "control character"),
        ("http://h/" + "a" * 20_000, "characters"),
        ("http://[::1/", "not a URL"),
    ],
)
def test_what_is_no_url_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        normalize_url(url)


@pytest.mark.parametrize("text", ["5", "a-b", "9-1", "-5", "1-", "0-1,3-4", "٣-٤"])
def test_bad_ranges_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="range"):
        parse_range(text)


def test_ranges_have_one_form() -> None:
    assert parse_range("bytes=007-9") == "7-9"
    assert TaskSpec("http://h/", range="7-9").byte_range == (7, 9)


@pytest.mark.parametrize(
    ("name", "value"), [("Range", "bytes=0-1"), ("Bad Name", "x"), ("A", "x\r\nB: y"), ("Host", "h")]
)
def test_bad_headers_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        make_spec("http://h/", headers={name: value})


def test_redaction_hides_users_and_signatures() -> None:
    shown = redact_url("https://u:secret@h/p?X-Amz-Signature=abc&x=1&access_token=t&sig=s")
    assert shown == "https://h/p?X-Amz-Signature=***&x=1&access_token=***&sig=***"
    assert redact_url("s3://key:se@cr@et@bucket/a@b//c@d") == "s3://bucket/a@b//c@d"


@given(st.text(max_size=200))
def test_any_text_is_a_url_or_a_named_error(text: str) -> None:
    try:
        url, _ = normalize_url(text)
    except InvalidRequest:
        return
    assert url.isascii()
    assert normalize_url(url)[0] == url


# --- content known by its digest -----------------------------------------------------------------------

DIGEST = "sha256:" + "ab" * 32


def test_content_of_one_digest_is_one_task_wherever_it_is_read() -> None:
    one = content_spec("oci://one.example/a@" + DIGEST, DIGEST)
    other = content_spec("oci://other.example/b@" + DIGEST, DIGEST)
    assert one.task_id == other.task_id
    assert one.url != other.url


def test_content_of_one_digest_in_two_scopes_is_two_tasks() -> None:
    url = "oci://one.example/a@" + DIGEST
    assert content_spec(url, DIGEST).task_id != content_spec(url, DIGEST, scope="b").task_id


def test_a_digest_is_told_from_a_url_of_the_same_text() -> None:
    assert content_spec("oci://a/b", DIGEST).task_id != TaskSpec("oci://a/b").task_id
    assert content_spec("oci://a/b", DIGEST).task_id != TaskSpec("", generation=DIGEST).task_id


def test_a_digest_is_written_in_one_way() -> None:
    assert content_spec("oci://a/b", DIGEST.upper().replace("SHA", "sha")).digest == DIGEST
    with pytest.raises(InvalidRequest, match="sha256"):
        content_spec("oci://a/b", "sha256:12")


# --- keys ----------------------------------------------------------------------------------------------


def test_public_content_has_no_key() -> None:
    assert TaskSpec("https://a/b").piece_key == ""


def test_a_key_is_that_of_one_task() -> None:
    url = "oci://one.example/a@" + DIGEST
    specs = [
        content_spec(url, digest, scope=scope) for digest in (DIGEST, DIGEST[:-1] + "c") for scope in "ab"
    ]
    specs += [TaskSpec(url, scope="a"), TaskSpec(url, scope="a", generation="1")]
    keys = {spec.piece_key for spec in specs}
    assert len(keys) == len(specs)
    assert all(len(key) == 64 for key in keys)
    assert not keys & {spec.task_id for spec in specs}
