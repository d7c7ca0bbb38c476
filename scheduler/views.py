"""What the scheduler shows to people and tools. Pure. URLs are redacted, no header or scope is shown.

Of the id of a private task only the beginning is shown; where its content lies is not listed, either: that is for
those who know the id.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from scheduler.cluster import Cluster
from scheduler.tasks import Task
from shared.task.identity import redact_url

SHOWN = 12
"""Digits of a private task's id."""


def host_views(cluster: Cluster) -> list[dict[str, Any]]:
    """All hosts with a lease."""
    return [
        {
            "host": host.lease.host,
            "role": host.lease.role,
            "address": host.lease.address,
            "location": host.lease.location,
            "live": host.live,
            "listening": host.stream is not None,
            "draining": host.lease.draining,
            "upload_slots": host.lease.upload_slots,
            "uploads": host.lease.uploads,
            "children": cluster.children[host.lease.host],
            "origin_reads": cluster.reads[host.lease.host],
            "corrupt_reports": host.corrupt_reports,
        }
        for host in cluster.leases.hosts()
    ]


def listed_task(task: Task) -> dict[str, Any]:
    """A task as everybody may see it, in short."""
    shown = task_view(task)
    if task.spec.scope:
        parts = urlsplit(task.spec.url)
        host = parts.netloc.rpartition("@")[2]
        shown |= {"url": f"{parts.scheme}://{host}", "version": None, "failure": None}
    return shown


def task_view(task: Task) -> dict[str, Any]:
    """A task in short, for those who know its id."""
    meta = task.meta
    return {
        "task_id": task.id[:SHOWN] if task.spec.scope else task.id,
        "url": redact_url(task.spec.url),
        "tag": task.spec.tag,
        "application": task.spec.application,
        "range": task.spec.range,
        "private": bool(task.spec.scope),
        "version": meta.version if meta is not None else None,
        "length": meta.length if meta is not None else None,
        "piece_length": meta.piece_length if meta is not None else None,
        "pieces": task.count,
        "content_type": meta.content_type if meta is not None else "",
        "digests": len(task.digests),
        "holders": len(task.holders),
        "complete": sum(task.complete(peer) for peer in task.holders.values()),
        "waiting": len(task.waiting),
        "asking": len(task.freshness.asking),
        "generation": task.spec.generation,
        "readers": [grant.host for grant in task.grants.values()],
        "failure": task.failure.words if task.failure is not None else None,
        "failure_status": task.failure.status if task.failure is not None else None,
    }


def task_detail(task: Task) -> dict[str, Any]:
    """A task with its peers."""
    return task_view(task) | {
        "peers": [
            {
                "host": peer.host,
                "state": peer.state.value,
                "held": len(peer.held),
                "complete": task.complete(peer),
                "reading": task.reading(peer.host),
                "parents": [parent.host for parent in peer.parents or ()],
            }
            for peer in task.peers.values()
        ]
    }
