"""From URLs and options to name nodes, and whose credentials go there."""

from __future__ import annotations

import re

import pytest

from cdn.sources.context import credential_header
from cdn.sources.interface import SourceRequest
from cdn.sources.webhdfs.credentials import HostCredentials
from cdn.sources.webhdfs.places import Places, Service
from shared.errors import ConfigError, SourceError


def service(url: str, **options: str) -> Service:
    return Places.from_options(url.partition(":")[0], options).service(url)


@pytest.mark.parametrize(
    ("url", "options", "authorities", "trusted"),
    [
        ("hdfs://nn/a", {}, ("nn:9870",), False),
        ("hdfs://NN:8020/a", {"http_port": "50070"}, ("nn:50070",), False),
        ("hdfs://nn:8020/a", {"tls": "true"}, ("nn:9871",), False),
        ("hdfs://[::1]:8020/a", {}, ("[::1]:9870",), False),
        ("webhdfs://nn:1234/a", {}, ("nn:1234",), False),
        ("webhdfs://nn/a", {"http_port": "1"}, ("nn:1",), False),
        ("swebhdfs://nn/a", {}, ("nn:9871",), False),
        ("hdfs://c/a", {"namenodes": "c=n1:1,n2 d=n3:3"}, ("n1:1", "n2:9870"), True),
        ("hdfs://C:8020/a", {"namenodes": "c=n1:1 C=n2:2"}, ("n1:1", "n2:2"), True),
        ("hdfs://n2/a", {"namenodes": "c=n1:1,n2"}, ("n2:9870",), True),
        ("hdfs://n1/a", {"namenodes": "c=n1:1,n2"}, ("n1:9870",), False),
        ("webhdfs://n1:1/a", {"namenodes": "c=n1:1,n2"}, ("n1:1",), True),
        ("webhdfs://c:7/a", {"namenodes": "c=n1:1"}, ("c:7",), False),
        ("hdfs://n1/a", {"namenodes": "n1:1 n2"}, ("n1:1",), True),
        ("hdfs:///a", {"default_namenode": "nn:7"}, ("nn:7",), True),
        ("hdfs:/a", {"default_namenode": "c", "namenodes": "c=n1,n2"}, ("n1:9870", "n2:9870"), True),
        ("hdfs://nn:8020/a", {"default_namenode": "nn"}, ("nn:9870",), True),
    ],
)
def test_name_nodes(
    url: str, options: dict[str, str], authorities: tuple[str, ...], *, trusted: bool
) -> None:
    found = service(url, **options)
    assert (found.authorities, found.trusted) == (authorities, trusted)


def test_urls_of_calls() -> None:
    plain = service("hdfs://nn/a")
    assert plain.url("nn:1", "/a b/ä;%?#+&=", {"op": "OPEN", "user.name": "a&b c"}) == (
        "http://nn:1/webhdfs/v1/a%20b/%C3%A4%3B%25%3F%23%2B%26%3D?op=OPEN&user.name=a%26b%20c"
    )
    gateway = service("swebhdfs://knox:8443/a", prefix="gateway/default/webhdfs/v1/")
    assert gateway.url("k:1", "/a", {"op": "X"}) == "https://k:1/gateway/default/webhdfs/v1/a?op=X"


@pytest.mark.parametrize(
    ("scheme", "options", "named"),
    [
        ("hdfs", {"tls": "yes"}, "source.options.hdfs.tls"),
        ("hdfs", {"http_port": "70000"}, "http_port"),
        ("webhdfs", {"http_port": "http"}, "source.options.webhdfs.http_port"),
        ("hdfs", {"namenodes": "c=n1:x"}, "namenodes"),
        ("hdfs", {"namenodes": "c="}, "namenodes"),
        ("hdfs", {"namenodes": "http://n1:9870"}, "namenodes"),
        ("hdfs", {"namenodes": "c=u:p@n1"}, "namenodes"),
        ("hdfs", {"default_namenode": "n1/path"}, "default_namenode"),
        ("swebhdfs", {"tls": "false"}, "swebhdfs.tls"),
    ],
)
def test_wrong_options_are_named(scheme: str, options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        Places.from_options(scheme, options)


def test_urls_without_a_place() -> None:
    with pytest.raises(SourceError, match="default_namenode") as caught:
        service("hdfs:///a")
    assert caught.value.fault == "reader"
    with pytest.raises(SourceError, match="wrong host") as caught:
        service("hdfs://nn:99999/a")
    assert caught.value.fault == "request"


TRUSTED, OTHER = service("hdfs://n/a", namenodes="n"), service("hdfs://o/a", namenodes="n")


def test_the_host_s_credentials_go_to_named_places_only() -> None:
    options = {"delegation_token": "SECRET", "authorization": "Basic SECRET2", "user": "u"}
    host = HostCredentials.of("hdfs", options, {"HADOOP_USER_NAME": "env", "HDFS_DELEGATION_TOKEN": "env"})
    shown = host.for_request(SourceRequest("hdfs://n/a", {"user-agent": "x"}), TRUSTED)
    assert (shown.holder, shown.parameters) == ("host", {"delegation": "SECRET"})
    assert shown.headers == {"user-agent": "x", "authorization": "Basic SECRET2"}
    kept = host.for_request(SourceRequest("hdfs://o/a", {"user-agent": "x"}), OTHER)
    assert (kept.holder, kept.parameters) == ("withheld", {"user.name": "u"})
    assert kept.headers == {"user-agent": "x"}
    assert "SECRET" not in repr(host) + repr(shown)
    assert shown.hidden("a SECRET, Basic SECRET2; SECRET2") == "a ***, ***; ***"


def test_the_environment_comes_after_the_options() -> None:
    environ = {"HADOOP_USER_NAME": "env", "HDFS_DELEGATION_TOKEN": ""}
    both = {**environ, "HDFS_DELEGATION_TOKEN": "env"}
    request = SourceRequest("hdfs://o/a")
    assert HostCredentials.of("hdfs", {}, environ).for_request(request, OTHER).parameters == {
        "user.name": "env"
    }
    given = HostCredentials.of("hdfs", {"user": "option"}, both).for_request(request, TRUSTED)
    assert (given.holder, given.parameters) == ("host", {"user.name": "option"})
    nobody = HostCredentials.of("hdfs", {}, {}).for_request(request, OTHER)
    assert (nobody.holder, nobody.parameters) == ("nobody", {})


def test_a_request_s_credentials_replace_all_others() -> None:
    host = HostCredentials.of("hdfs", {"delegation_token": "SECRET", "authorization": "Basic S"}, {})
    for headers, parameters, sent in (
        ({credential_header("user"): "me"}, {"user.name": "me"}, {}),
        ({credential_header("delegation_token"): "T", "X-Y": "z"}, {"delegation": "T"}, {"x-y": "z"}),
        ({"Authorization": "Basic mine"}, {}, {"authorization": "Basic mine"}),
    ):
        for place in (TRUSTED, OTHER):
            shown = host.for_request(SourceRequest("hdfs://n/a", headers), place)
            assert (shown.holder, shown.parameters, shown.headers) == ("request", parameters, sent)
    with pytest.raises(SourceError, match="'namenodes'") as caught:
        host.for_request(SourceRequest("hdfs://n/a", {credential_header("namenodes"): "x"}), TRUSTED)
    assert caught.value.fault == "request"
