"""Harbor's calls, as its Dragonfly driver makes them (goharbor/harbor, src/pkg/p2p/preheat/provider), and what
it makes of the answers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from scheduler.harbor import ImageAsked, JobArgs, JobAsked, image_name, job_order, old_order
from scheduler.preheats import Targets
from shared.errors import DragonetError, InvalidRequest
from shared.http.messages import error_response
from shared.protocol import Failure, Preheated, PreheatItem, Resolved
from shared.task.identity import TaskSpec
from tests.unit.scheduler.test_service import Fixture

TOKEN = "t0ken"
MANIFEST = "https://harbor.test/v2/library/busybox/manifests/1.36"
BEARER = {"Authorization": "Bearer eyJhbGciOi.J9.x"}
JOB = {
    "type": "preheat",
    "args": {
        "type": "image",
        "url": MANIFEST,
        "tag": "",
        "filtered_query_params": "",
        "headers": BEARER,
        "scope": "single_peer",
        "concurrent_count": 0,
        "timeout": 0,
    },
    "scheduler_cluster_ids": None,
}
OLD = {
    "type": "image",
    "url": MANIFEST,
    "headers": BEARER,
    "image": "library/busybox",
    "tag": "1.36",
    "digest": "sha256:f3c97e3bd1e27393eb853a5c90b1132f2cda84336d5ba5d100c720dc98524c82",
}
ITEMS = [PreheatItem(TaskSpec(url=f"oci://harbor.test/b@sha256:{n}"), f"layer {n}", 10) for n in range(2)]


class Harbor(Fixture):
    """A scheduler as Harbor sees it."""

    async def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"accept": "application/json", "content_type": "application/json"}
        headers["authorization"] = f"Bearer {token}"
        try:
            data = b"" if body is None else json.dumps(body).encode()
            answer = await self.call(method, path, data, **headers)
        except DragonetError as error:
            answer = error_response(error)
        assert isinstance(answer.body, bytes)
        told = json.loads(answer.body) if answer.content_type == "application/json" else answer.body
        return answer.status, told


@pytest.fixture
async def harbor() -> Harbor:
    made = Harbor(preheat_token=TOKEN)
    await made.renew("seeder1", role="seeder", address="10.0.0.9:65002", preheats=True)
    await made.stream("seeder1")
    return made


# --- since Harbor 2.12 -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/oapi/v1", "/api/v1"])
async def test_a_job_that_succeeds(harbor: Harbor, prefix: str) -> None:
    assert (await harbor.ask("GET", "/healthy"))[0] == 200
    status, job = await harbor.ask("POST", f"{prefix}/jobs", JOB)
    assert status == 200
    assert isinstance(job["id"], int)
    for name in ("created_at", "updated_at"):
        datetime.strptime(job[name], "%Y-%m-%dT%H:%M:%SZ")
    assert job["state"] == "PENDING"
    assert "eyJ" not in json.dumps(job)
    await harbor.report("seeder1", Resolved(job["id"], "harbor.test/library/busybox:1.36", ITEMS))
    status, job = await harbor.ask("GET", f"{prefix}/jobs/{job['id']}")
    assert job["state"] == "PENDING", "Harbor takes every state that it does not know for a failure"
    for item in ITEMS:
        await harbor.report("seeder1", Preheated(job["id"], item.spec.task_id, 10))
    status, job = await harbor.ask("GET", f"{prefix}/jobs/{job['id']}")
    assert (status, job["state"]) == (200, "SUCCESS")
    [state] = job["result"]["job_states"]
    [results] = state["results"]
    assert (state["error"], results["failure_tasks"], results["scheduler_cluster_id"]) == ("", [], 1)
    assert results["success_tasks"] == [
        {"url": item.spec.url, "hostname": "seeder1", "ip": "10.0.0.9"} for item in ITEMS
    ]
    listed = (await harbor.ask("GET", f"{prefix}/jobs"))[1]
    assert [one["id"] for one in listed] == [job["id"]]


async def test_a_job_that_fails_in_part_says_where(harbor: Harbor) -> None:
    _, job = await harbor.ask("POST", "/oapi/v1/jobs", JOB)
    await harbor.report("seeder1", Resolved(job["id"], "x", ITEMS))
    await harbor.report(
        "seeder1",
        Preheated(job["id"], ITEMS[0].spec.task_id, 10),
        Preheated(job["id"], ITEMS[1].spec.task_id, failure=Failure("it is not there", 404)),
    )
    _, job = await harbor.ask("GET", f"/oapi/v1/jobs/{job['id']}")
    assert job["state"] == "FAILURE"
    [state] = job["result"]["job_states"]
    assert state["error"] == "layer 1 at seeder1: it is not there"
    [failed] = state["results"][0]["failure_tasks"]
    assert (failed["hostname"], failed["description"]) == ("seeder1", "it is not there")
    assert len(state["results"][0]["success_tasks"]) == 1


async def test_a_job_whose_image_is_not_there(harbor: Harbor) -> None:
    _, job = await harbor.ask("POST", "/oapi/v1/jobs", JOB)
    await harbor.report("seeder1", Resolved(job["id"], failure=Failure("there is no such image", 404)))
    _, job = await harbor.ask("GET", f"/oapi/v1/jobs/{job['id']}")
    assert (job["state"], job["result"]["job_states"][0]["error"]) == ("FAILURE", "there is no such image")


@pytest.mark.parametrize("path", ["/oapi/v1/jobs/7", "/api/v1/jobs/7", "/preheats/7", "/preheats/x"])
async def test_a_job_that_is_not_known(harbor: Harbor, path: str) -> None:
    assert (await harbor.ask("GET", path))[0] == 404


# --- before ------------------------------------------------------------------------------------------


async def test_an_old_preheat(harbor: Harbor) -> None:
    assert (await harbor.ask("GET", "/_ping"))[0] == 200
    status, told = await harbor.ask("POST", "/preheats", OLD)
    assert status == 200
    number = told["ID"]
    assert isinstance(number, str)
    _, told = await harbor.ask("GET", f"/preheats/{number}")
    assert (told["ID"], told["status"], told["finishTime"]) == (number, "RUNNING", "")
    await harbor.report("seeder1", Resolved(int(number), "x", ITEMS))
    for item in ITEMS:
        await harbor.report("seeder1", Preheated(int(number), item.spec.task_id, 10))
    _, told = await harbor.ask("GET", f"/preheats/{number}")
    assert (told["status"], told["errorMsg"]) == ("SUCCESS", "")
    datetime.strptime(told["finishTime"], "%Y-%m-%dT%H:%M:%SZ")


async def test_an_old_preheat_that_fails_or_waits() -> None:
    harbor = Harbor(preheat_token=TOKEN, preheat_jobs=1)
    await harbor.renew("seeder1", role="seeder", preheats=True)
    await harbor.stream("seeder1")
    first, second = [(await harbor.ask("POST", "/preheats", OLD))[1]["ID"] for _ in range(2)]
    assert (await harbor.ask("GET", f"/preheats/{second}"))[1]["status"] == "WAITING"
    await harbor.report("seeder1", Resolved(int(first), failure=Failure("no")))
    told = (await harbor.ask("GET", f"/preheats/{first}"))[1]
    assert (told["status"], told["errorMsg"]) == ("FAILED", "no")


# --- who may -----------------------------------------------------------------------------------------

CALLS = [
    ("POST", "/oapi/v1/jobs"),
    ("GET", "/oapi/v1/jobs"),
    ("GET", "/oapi/v1/jobs/1"),
    ("POST", "/api/v1/jobs"),
    ("POST", "/preheats"),
    ("GET", "/preheats/1"),
    ("GET", "/healthy"),
    ("GET", "/_ping"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_nobody_without_the_token(harbor: Harbor, method: str, path: str) -> None:
    assert (await harbor.ask(method, path, JOB, token="wrong"))[0] == 401
    assert list(harbor.service.state.cluster.preheats) == []


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_nobody_where_no_token_is_set(method: str, path: str) -> None:
    status, told = await Harbor().ask(method, path, JOB, token="")
    assert status == 403
    assert "scheduler.preheat_token" in told["error"]["message"]


# --- what is made of what is asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (MANIFEST, "oci://harbor.test/library/busybox:1.36"),
        ("http://h.test:8080/v2/a/b/c/manifests/v1", "oci://h.test:8080/a/b/c:v1"),
        (
            "https://index.docker.io/v2/library/alpine/manifests/3.19",
            "oci://index.docker.io/library/alpine:3.19",
        ),
        (
            "https://h.test/v2/a/manifests/sha256:" + "a" * 64,
            "oci://h.test/a@sha256:" + "a" * 64,
        ),
        ("https://h.test/v2/a/manifests/sha256%3A" + "a" * 64, "oci://h.test/a@sha256:" + "a" * 64),
        ("https://user:password@h.test/v2/a/manifests/1", "oci://h.test/a:1"),
    ],
)
def test_the_image_of_a_manifest(url: str, name: str) -> None:
    assert image_name(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "",
        "busybox",
        "https://harbor.test",
        "ftp://h/v2/a/manifests/1",
        "https:///v2/a/manifests/1",
        "https://[/v2/",
    ],
)
def test_what_is_not_the_url_of_a_manifest(url: str) -> None:
    with pytest.raises(InvalidRequest, match="manifest"):
        image_name(url)


@pytest.mark.parametrize(
    ("args", "targets"),
    [
        ({}, Targets("seeders", count=1)),
        ({"scope": "single_peer"}, Targets("seeders", count=1)),
        ({"scope": "single_seed_peer", "count": 7}, Targets("seeders", count=1)),
        ({"scope": "all_seed_peers"}, Targets("seeders")),
        ({"scope": "all_seed_peers", "percentage": 50}, Targets("seeders", percent=50)),
        ({"scope": "all_peers"}, Targets("all")),
        ({"scope": "all_peers", "percentage": 25, "count": 3}, Targets("all", count=3)),
    ],
)
def test_scopes(args: dict[str, Any], targets: Targets) -> None:
    assert job_order(JobAsked("preheat", JobArgs(type="image", url=MANIFEST, **args))).targets == targets


def test_credentials_platforms_and_time() -> None:
    args = JobArgs(
        type="image",
        url=MANIFEST,
        headers={"authorization": "Bearer x", "X-Number": 7},
        username="u",
        password="p",
        platform="linux/amd64, linux/arm64",
        timeout=90_000_000_000,
    )
    order = job_order(JobAsked("preheat", args))
    assert order.headers == {"authorization": "Basic dTpw"}
    assert order.platforms == ("linux/amd64", "linux/arm64")
    assert order.timeout == 90.0
    assert "Bearer x" not in repr(args) + repr(order)


def test_files() -> None:
    args = JobArgs(
        type="file",
        url="https://h/1?Expires=2",
        urls=["https://h/2", "https://h/1?Expires=2"],
        filtered_query_params="Expires&Signature",
    )
    order = job_order(JobAsked("preheat", args))
    assert [spec.url for spec in order.specs] == ["https://h/1?Expires=2", "https://h/2"]
    assert order.specs[0].filtered == ("Expires", "Signature")
    assert order.shown == "https://h/1?Expires=2 and 1 more"
    old = old_order(ImageAsked("file", "https://h/1", filter="Expires"))
    assert old.specs[0].filtered == ("Expires",)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (JobAsked("gc"), "jobs of type 'preheat'"),
        (JobAsked("preheat"), "'image' or 'file'"),
        (JobAsked("preheat", JobArgs(type="file")), "1 to 1000 URLs"),
        (JobAsked("preheat", JobArgs(type="image", url=MANIFEST, scope="moon")), "not a scope"),
        (
            JobAsked("preheat", JobArgs(type="image", url=MANIFEST, scope="all_peers", percentage=0)),
            "1 to 100",
        ),
        (JobAsked("preheat", JobArgs(type="image", url=MANIFEST, scope="all_peers", count=0)), "1 or more"),
        (JobAsked("preheat", JobArgs(type="image", url="busybox")), "manifest"),
        (
            JobAsked("preheat", JobArgs(type="file", url="https://u:p@h/1", urls=["https://h/2"])),
            "a preheat of its own",
        ),
    ],
)
def test_what_is_refused(asked: JobAsked, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        job_order(asked)
