"""Credentials of a command's user become headers of the request, and are never shown."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from peer.cli import main
from peer.cli.credentials import Credentials, request_headers
from peer.cli.execution import UsageError
from peer.cli.tasks import Identity, query_of
from shared.task.identity import make_spec

SECRET = "hush/+=="
AWS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/x"}
FROM_AWS = {"x-dragonet-source-access-key-id": "me", "x-dragonet-source-secret-access-key": SECRET}


def options(*written: str, plain: bool = False) -> Credentials:
    return Credentials(source_option=written, no_env_credentials=plain)


def test_options_become_headers() -> None:
    assert request_headers("d7yfs://h/x", ("A: b",), options(f"api_key={SECRET}", "User = me "), {}) == {
        "a": "b",
        "x-dragonet-source-api-key": SECRET,
        "x-dragonet-source-user": "me",
    }


def test_the_environment_has_credentials_for_schemes_that_are_built_in() -> None:
    assert request_headers("s3://b/k", (), None, AWS) == FROM_AWS
    assert request_headers(" S3://b/k", (), options(), AWS) == FROM_AWS
    assert request_headers("hf://o/r/f", (), None, AWS) == {}
    assert request_headers("d7yfs://h/x", (), None, AWS) == {}
    assert request_headers("http://h/x", (), None, AWS) == {}
    assert request_headers("s3://b/k", (), options(plain=True), AWS) == {}


@pytest.mark.parametrize(
    ("lines", "credentials"),
    [
        (("Authorization: Bearer x",), None),
        (("X-Dragonet-Source-Token: x",), None),
        ((), options("token=x")),
    ],
)
def test_what_is_given_by_hand_takes_the_place_of_the_environment(
    lines: tuple[str, ...], credentials: Credentials | None
) -> None:
    headers = request_headers("s3://b/k", lines, credentials, AWS)
    assert len(headers) == 1
    assert SECRET not in headers.values()


def test_a_key_file_of_several_lines_is_a_header() -> None:
    key = json.dumps({"type": "service_account", "private_key": "-----\nabc\n"}, indent=2)
    headers = request_headers("gs://b/k", (), None, {"GOOGLE_SERVICE_ACCOUNT_KEY": key})
    make_spec("gs://b/k", headers=headers)
    assert json.loads(headers["x-dragonet-source-service-account-key"]) == json.loads(key)


@pytest.mark.parametrize("written", [SECRET.strip("="), f"={SECRET}", f"a b={SECRET}", f"a:b={SECRET}", ""])
def test_a_wrong_option_is_not_repeated(written: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE") as caught:
        request_headers("s3://b/k", (), options(written), {})
    assert "hush" not in str(caught.value)


def test_an_option_without_a_value_and_one_for_a_source_that_has_none() -> None:
    with pytest.raises(UsageError, match="token has no value"):
        request_headers("s3://b/k", (), options("token="), {})
    with pytest.raises(UsageError, match="https:// takes no --source-option"):
        request_headers("https://h/x", (), options(f"token={SECRET}"), {})


def test_the_same_credentials_mean_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    assert query_of("s3://b/k", None).headers == FROM_AWS
    assert query_of("s3://b/k", Identity(no_env_credentials=True)).headers == {}
    assert query_of("ab" * 32, None).headers == {}
    given = query_of("s3://b/k", Identity(source_option=("token=x",)))
    assert given.headers == {"x-dragonet-source-token": "x"}
    assert SECRET not in repr(Identity(source_option=(f"token={SECRET}",)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "s3://b/k", "-o", "/", "--source-option", SECRET],
        ["get", "s3://b/k", "-o", "/", "--source-options", f"token={SECRET}"],
        ["get", "s3://b/k", "-o", "/", f"--source-options=token={SECRET}"],
        ["get", "s3://b/k", "-o", "/", f"--source_option=token{SECRET}", "--no-env-credential"],
        ["stat", "s3://b/k", f"--source-option={SECRET}"],
        ["get", "s3://b/k", "-o", "/", f"--set=token={SECRET}"],
        ["get", "s3://b/k", "-o", "/", "--set", f"source.options.s3={SECRET}"],
        ["get", "s3://b/k", "-o", "/", "--set", f"source.option.s3.token={SECRET}"],
        ["get", "s3://b/k", "-o", "/", "--set", f"source.options=s3={SECRET}"],
        ["get", "s3://b/k", "-o", "/", "--set", f"source.options.s3.a.b={SECRET}"],
    ],
)
def test_wrong_usage_shows_no_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err
    assert "hush" not in shown.err + shown.out


def test_credentials_cost_no_start_up_time() -> None:
    script = (
        "import sys\nfrom peer.cli import main\n"
        "code = main(['get', 's3://h/x', '-o', '/', '--source-option', 'token=x'])\n"
        "unwanted = {'httpx', 'structlog', 'obstore', 'prometheus_client', 'cdn.reader'}\n"
        "print(code, sorted(unwanted & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
