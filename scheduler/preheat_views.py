"""Preheats as people and tools see them. Pure. URLs are redacted; no header and no scope is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scheduler.cluster import Cluster
from scheduler.preheats import Job
from shared.task.identity import redact_url

HOSTS_SHOWN = 10
"""Hosts that are named where the same failed on many."""


def job_view(cluster: Cluster, job: Job, now: float) -> dict[str, Any]:
    """A preheat in short. Times are Unix seconds; ``contents`` counts each content once for each host."""
    done, failed = sum(job.done.values()), sum(job.failed.values())
    held, running = _under_way(cluster, job)
    return {
        "id": job.id,
        "state": job.state,
        "what": job.shown,
        "platforms": list(job.platforms),
        "to": str(job.targets),
        "private": job.private,
        "created": _wall(cluster, job.created),
        "began": _wall(cluster, job.began),
        "ended": _wall(cluster, job.ended),
        "seconds": round((job.ended if job.ended is not None else now) - job.created, 3),
        "items": len(job.items),
        "hosts": len(job.left),
        "contents": {
            "total": len(job.items) * len(job.left),
            "done": done,
            "failed": failed,
            "running": running,
        },
        "bytes": {
            "total": sum(item.length or 0 for item in job.items) * len(job.left),
            "done": job.done_bytes + held,
            "by_source": dict(job.bytes),
        },
        "notes": job.notes,
        "failure": job.failure.words if job.failure is not None else None,
    }


def job_detail(cluster: Cluster, job: Job, now: float) -> dict[str, Any]:
    """A preheat with its contents, its hosts, and all that failed."""
    missed: dict[str, int] = {}
    for failure in job.failures:
        missed[failure.host] = missed.get(failure.host, 0) + 1
    return job_view(cluster, job, now) | {
        "content": [
            {
                "what": item.what,
                "task_id": item.spec.task_id,
                "url": redact_url(item.spec.url),
                "length": item.length,
                "done": job.done[number],
                "failed": job.failed[number],
            }
            for number, item in enumerate(job.items)
        ],
        "at": [
            {"host": host, "left": len(left), "failed": missed.get(host, 0)}
            for host, left in job.left.items()
        ],
        "failures": list(failures(job)),
    }


def failures(job: Job) -> Iterator[dict[str, Any]]:
    """What failed, the same failure of a content on several hosts as one."""
    grouped: dict[tuple[int, str, int | None], list[str]] = {}
    for failure in job.failures:
        key = (failure.item, failure.failure.words, failure.failure.status)
        grouped.setdefault(key, []).append(failure.host)
    for (number, words, status), hosts in grouped.items():
        yield {
            "what": job.items[number].what,
            "url": redact_url(job.items[number].spec.url),
            "words": words,
            "status": status,
            "hosts": hosts[:HOSTS_SHOWN],
            "count": len(hosts),
        }


def _under_way(cluster: Cluster, job: Job) -> tuple[int, int]:
    """Bytes that hosts hold of what they have yet to bring, and how many contents are being brought."""
    held = running = 0
    for number, item in enumerate(job.items):
        task = cluster.tasks.get(item.spec.task_id)
        if task is None or task.meta is None:
            continue
        for host, peer in task.peers.items():
            if number in job.left.get(host, ()):
                held += len(peer.held) * task.meta.piece_length
                running += host in task.waiting
    return held, running


def _wall(cluster: Cluster, when: float | None) -> float | None:
    return None if when is None else round(cluster.wall(when), 3)
