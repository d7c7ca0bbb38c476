"""Preheats as Harbor orders them, and as other programs do that were written for Dragonfly. Pure.

Harbor speaks to a Dragonfly manager in one of two ways, and to no other API:

* since Harbor 2.12 (``provider/dragonfly.go``, driver version 2.1.59): ``POST /oapi/v1/jobs``, ``GET
  /oapi/v1/jobs/{id}`` with a numeric ``id``, ``GET /healthy``. A job whose state is none of PENDING, SUCCESS and
  FAILURE counts as failed there, so a job is PENDING until it is over.
* before that (driver version 0.10.1): ``POST /preheats``, ``GET /preheats/{id}`` with a textual ``ID``, ``GET
  /_ping``; WAITING, RUNNING, SUCCESS, FAILED.

Images are named by the URL of their manifest. Fields that mean nothing here are ignored.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from scheduler.cluster import Cluster
from scheduler.preheat_orders import image_order, url_order
from scheduler.preheat_views import failures
from scheduler.preheats import Job, PreheatOrder, Targets
from shared.errors import InvalidRequest
from shared.task.identity import redact_url

NANOSECONDS = 1_000_000_000
"""Go's durations, as JSON has them, are in nanoseconds."""
MAX_URLS = 1000
MAX_TOLD = 1000
"""Contents that are told one by one when a job is over."""
ERRORS_TOLD = 10

_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")
_SCOPES = {
    "": "one",
    "single_peer": "one",
    "single_seed_peer": "one",
    "all_seed_peers": "seeders",
    "all_peers": "all",
}


class JobArgs(msgspec.Struct, frozen=True):
    """``args`` of a job: what is to be brought where."""

    type: str = ""
    url: str = ""
    urls: list[str] | None = None
    tag: str = ""
    application: str = ""
    filter: str = ""
    filtered_query_params: str = ""
    headers: dict[str, Any] | None = None
    username: str = ""
    password: str = ""
    platform: str = ""
    scope: str = ""
    percentage: int | None = None
    count: int | None = None
    timeout: int | None = None

    def __repr__(self) -> str:
        return f"<JobArgs {self.type} {redact_url(self.url)}>"


class JobAsked(msgspec.Struct, frozen=True):
    """The body of ``POST /oapi/v1/jobs``."""

    type: str
    args: JobArgs = JobArgs()
    bio: str = ""


class ImageAsked(msgspec.Struct, frozen=True):
    """The body of ``POST /preheats``."""

    type: str
    url: str
    headers: dict[str, Any] | None = None
    filter: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return f"<ImageAsked {self.type} {redact_url(self.url)}>"


# --- orders ------------------------------------------------------------------------------------------


def job_order(asked: JobAsked) -> PreheatOrder:
    """The order of a job. Raises InvalidRequest."""
    if asked.type != "preheat":
        raise InvalidRequest(f"{asked.type[:64]!r} is not a job of dragonet: it takes jobs of type 'preheat'")
    args = asked.args
    headers = _texts(args.headers)
    if args.username or args.password:
        shown = base64.b64encode(f"{args.username}:{args.password}".encode()).decode()
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        headers["Authorization"] = f"Basic {shown}"
    targets = _targets(args.scope, args.percentage, args.count)
    timeout = args.timeout / NANOSECONDS if args.timeout and args.timeout > 0 else None
    if args.type == "image":
        return _image_order(args.url, args.platform, targets, headers, timeout)
    if args.type == "file":
        urls = tuple(dict.fromkeys(url for url in (args.url, *(args.urls or ())) if url))
        if not 0 < len(urls) <= MAX_URLS:
            raise InvalidRequest(f"a preheat of files takes 1 to {MAX_URLS} URLs")
        dropped = tuple(n for n in (args.filtered_query_params or args.filter).split("&") if n)
        return url_order(
            urls,
            targets,
            headers,
            timeout,
            tag=args.tag,
            application=args.application,
            filtered=dropped,
        )
    raise InvalidRequest(f"{args.type[:64]!r} cannot be preheated: args.type is 'image' or 'file'")


def old_order(asked: ImageAsked) -> PreheatOrder:
    """The order of ``POST /preheats``. Raises InvalidRequest."""
    args = JobArgs(
        type=asked.type, url=asked.url, headers=asked.headers, filter=asked.filter, scope=asked.scope
    )
    return job_order(JobAsked("preheat", args))


def image_name(url: str) -> str:
    """The image whose manifest has this URL, by its name. Raises InvalidRequest."""
    try:
        parts = urlsplit(url.strip())
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    match = _MANIFEST.fullmatch(unquote(parts.path)) if host else None
    if match is None or parts.scheme.lower() not in ("http", "https"):
        raise InvalidRequest(
            f"{redact_url(url)[:256]!r} is not the URL of an image: it is that of its manifest, as in "
            "https://registry.example.com/v2/library/nginx/manifests/1.27"
        )
    reference = match["reference"]
    return f"oci://{host}/{match['repository']}{'@' if ':' in reference else ':'}{reference}"


def _image_order(
    url: str, platform: str, targets: Targets, headers: dict[str, str], timeout: float | None
) -> PreheatOrder:
    platforms = tuple(part for part in re.split(r"[,\s]+", platform) if part)
    return image_order(image_name(url), platforms, targets, headers, timeout)


def _targets(scope: str, percentage: int | None, count: int | None) -> Targets:
    among = _SCOPES.get(scope)
    if among is None:
        raise InvalidRequest(
            f"{scope[:64]!r} is not a scope: it is single_seed_peer, all_seed_peers or all_peers"
        )
    if percentage is not None and not 1 <= percentage <= 100:
        raise InvalidRequest("args.percentage is 1 to 100")
    if count is not None and count < 1:
        raise InvalidRequest("args.count is 1 or more")
    if among == "one":
        return Targets("seeders", count=1)
    percent = percentage if count is None else None
    return Targets("all" if among == "all" else "seeders", percent, count)


def _texts(headers: dict[str, Any] | None) -> dict[str, str]:
    return {name: value for name, value in (headers or {}).items() if isinstance(value, str)}


# --- answers -----------------------------------------------------------------------------------------


def job_answer(cluster: Cluster, job: Job, now: float) -> dict[str, Any]:
    """A job as Dragonfly's manager shows it."""
    state = _state(job)
    answer: dict[str, Any] = {
        "id": job.id,
        "created_at": _time(cluster, job.created),
        "updated_at": _time(cluster, job.ended if job.ended is not None else now),
        "is_del": 0,
        "task_id": f"group_{job.id}",
        "bio": "",
        "type": "preheat",
        "state": state,
        "args": {
            "type": "image" if job.image else "file",
            "url": job.shown,
            "platform": ",".join(job.platforms),
        },
        "user_id": 0,
        "scheduler_clusters": [],
    }
    if job.over:
        done, failed = _results(cluster, job)
        results = {"success_tasks": done, "failure_tasks": failed, "scheduler_cluster_id": 1}
        answer["result"] = {
            "group_uuid": answer["task_id"],
            "state": state,
            "job_states": [
                {
                    "task_uuid": f"task_{job.id}",
                    "task_name": "preheat",
                    "state": state,
                    "error": _error(job),
                    "results": [results],
                }
            ],
        }
    return answer


def old_answer(cluster: Cluster, job: Job) -> dict[str, Any]:
    """A preheat as Dragonfly's first generation showed it."""
    return {
        "ID": str(job.id),
        "startTime": _time(cluster, job.created),
        "finishTime": _time(cluster, job.ended) if job.ended is not None else "",
        "errorMsg": _error(job),
        "status": _old_status(job),
    }


def _state(job: Job) -> str:
    if not job.over:
        return "PENDING"
    return "SUCCESS" if job.state == "succeeded" else "FAILURE"


def _old_status(job: Job) -> str:
    if not job.over:
        return "WAITING" if job.state == "queued" else "RUNNING"
    return "SUCCESS" if job.state == "succeeded" else "FAILED"


def _error(job: Job) -> str:
    """Why it failed, with the contents that could not be brought; "" when it did not."""
    if not job.over or job.state == "succeeded":
        return ""
    if job.state == "cancelled":
        return "the preheat was cancelled"
    told = [
        f"{failure['what']} at {_hosts(failure['hosts'], failure['count'])}: {failure['words']}"
        for failure in failures(job)
    ]
    if not told:
        return job.failure.words if job.failure is not None else "the preheat failed"
    more = [f"and {len(told) - ERRORS_TOLD} more"] if len(told) > ERRORS_TOLD else []
    return "; ".join(told[:ERRORS_TOLD] + more)


def _hosts(named: list[str], count: int) -> str:
    return named[0] if count == 1 else f"{count} hosts"


def _results(cluster: Cluster, job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What was brought and what was not, by content and host: the first of each."""
    missed = {(failure.item, failure.host) for failure in job.failures}
    failed = [
        {
            "url": redact_url(job.items[failure.item].spec.url),
            "hostname": failure.host,
            "ip": _ip(cluster, failure.host),
            "description": failure.failure.words,
        }
        for failure in job.failures
    ]
    done: list[dict[str, Any]] = []
    if job.state == "cancelled" or job.failed.total() > len(job.failures):
        return done, failed
    for number, item in enumerate(job.items):
        for host in job.left:
            if (number, host) not in missed and len(done) < MAX_TOLD:
                done.append({"url": redact_url(item.spec.url), "hostname": host, "ip": _ip(cluster, host)})
    return done, failed


def _ip(cluster: Cluster, host: str) -> str:
    present = cluster.present(host)
    return present.lease.address.rpartition(":")[0] if present is not None else ""


def _time(cluster: Cluster, when: float) -> str:
    return datetime.fromtimestamp(cluster.wall(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
