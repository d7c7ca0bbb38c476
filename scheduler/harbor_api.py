"""The routes that Harbor's Dragonfly provider calls, in both of its generations (see ``scheduler.harbor``).

=======================================  =====================================================
``POST /oapi/v1/jobs``                   a preheat; also as ``/api/v1/jobs``
``GET /oapi/v1/jobs``, ``…/jobs/{id}``   preheats
``GET /healthy``                         200 when the token is right
``POST /preheats``, ``GET …/{id}``       the same for Harbor before 2.12
``GET /_ping``                           200 when the token is right
=======================================  =====================================================

All want ``scheduler.preheat_token``, as a bearer's token or as the password of a user; the health checks too, so
that Harbor's «Test connection» finds a wrong one. Without a token set they are closed.
"""

from __future__ import annotations

import trio

from scheduler.harbor import ImageAsked, JobAsked, job_answer, job_order, old_answer, old_order
from scheduler.preheat_api import MAX_BODY, Doorkeeper, Preheater, decode_json, find_job
from scheduler.preheats import Job
from shared.http.messages import Request, Response
from shared.http.router import Router


class HarborApi:
    """The handlers."""

    def __init__(self, preheater: Preheater, doorkeeper: Doorkeeper) -> None:
        self._preheater = preheater
        self._doorkeeper = doorkeeper

    def add_routes(self, router: Router) -> None:
        """Mount them."""
        routes = [
            ("POST", "/preheats", self.old_begin),
            ("GET", "/preheats/{id}", self.old_show),
            ("GET", "/_ping", self.health),
            ("GET", "/healthy", self.health),
        ]
        for prefix in ("/oapi/v1", "/api/v1"):
            routes += [
                ("POST", f"{prefix}/jobs", self.begin),
                ("GET", f"{prefix}/jobs", self.listing),
                ("GET", f"{prefix}/jobs/{{id}}", self.show),
            ]
        for method, path, handler in routes:
            router.add(method, path, self._doorkeeper.guard(handler, always=True))

    async def begin(self, request: Request) -> Response:
        """``POST /oapi/v1/jobs``. Raises InvalidRequest, TooManyPreheats."""
        asked = decode_json(await request.body(MAX_BODY), JobAsked)
        order = await trio.to_thread.run_sync(job_order, asked)
        return Response.json(self._answer(self._preheater.preheat(order)))

    async def listing(self, request: Request) -> Response:
        """``GET /oapi/v1/jobs``: the latest first."""
        return Response.json([self._answer(job) for job in self._preheater.state.cluster.preheats])

    async def show(self, request: Request) -> Response:
        """``GET /oapi/v1/jobs/{id}``. Raises UnknownPreheat."""
        return Response.json(self._answer(find_job(self._preheater, request.params["id"])))

    async def old_begin(self, request: Request) -> Response:
        """``POST /preheats``. Raises InvalidRequest, TooManyPreheats."""
        asked = decode_json(await request.body(MAX_BODY), ImageAsked)
        order = await trio.to_thread.run_sync(old_order, asked)
        return Response.json({"ID": str(self._preheater.preheat(order).id)})

    async def old_show(self, request: Request) -> Response:
        """``GET /preheats/{id}``. Raises UnknownPreheat."""
        job = find_job(self._preheater, request.params["id"])
        return Response.json(old_answer(self._preheater.state.cluster, job))

    async def health(self, request: Request) -> Response:
        """``GET /healthy``, ``GET /_ping``."""
        return Response.text("OK\n")

    def _answer(self, job: Job) -> dict[str, object]:
        return job_answer(self._preheater.state.cluster, job, trio.current_time())
