"""The client that reads object stores through obstore.

obstore's asynchronous half needs asyncio, so its synchronous one is called, in worker threads of a number
of its own. A call that does not end in time is left to its thread, which obstore's own deadlines end.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import obstore
import trio

from cdn.config import SourceConfig
from cdn.sources.context import SourceContext
from cdn.sources.interface import (
    AsyncResourceClient,
    ExpireInfo,
    RangeNotSatisfiable,
    SourceEntry,
    SourceRequest,
    SourceResponse,
)
from cdn.sources.objectstore.azure import AzureService
from cdn.sources.objectstore.body import ObjectResponse, validators
from cdn.sources.objectstore.credentials import Credentials
from cdn.sources.objectstore.google import GoogleService
from cdn.sources.objectstore.names import ObjectName, parse_name
from cdn.sources.objectstore.s3 import OssService, S3Service
from cdn.sources.objectstore.service import Place, Service, Store
from cdn.sources.objectstore.troubles import (
    FOREIGN,
    Asked,
    RangeIgnored,
    RangeRefused,
    VersionChanged,
    mapped,
    opening_error,
)
from shared.errors import SourceError
from shared.task.identity import redact_url

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta

T = TypeVar("T")

_SERVICES: dict[str, type[Service]] = {
    "s3": S3Service,
    "oss": OssService,
    "gs": GoogleService,
    "az": AzureService,
}
_THREADS = 128
"""Worker threads of one scheme. Each waits for one answer or for its next bytes."""

_STORES = 32
"""Stores kept open with their connections, by bucket and credentials."""

_LISTING = 10
"""How many times the patience for one answer a listing may take, which is one answer per thousand names."""


class ObjectStoreSource(AsyncResourceClient):
    """Reads the objects of one kind of store."""

    def __init__(self, service: Service, config: SourceConfig) -> None:
        self.service = service
        self._config = config
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._stores: OrderedDict[tuple[str, str, Credentials], Store] = OrderedDict()

    @classmethod
    def of(cls, context: SourceContext) -> Self:
        """The client for the scheme of the context. Raises ConfigError when an option is wrong."""
        return cls(_SERVICES[context.scheme](context), context.config)

    async def get_content_length(self, request: SourceRequest) -> int:
        """The object's size."""
        return (await self._head(request))["size"]

    async def is_support_range(self, request: SourceRequest) -> bool:
        """Always, for an object that can be read."""
        await self._head(request)
        return True

    async def is_expired(self, request: SourceRequest, info: ExpireInfo) -> bool:
        """By ETag; by date where no ETag is given."""
        etag, last_modified = validators(await self._head(request))
        return etag != info.etag if info.etag else last_modified != info.last_modified

    async def get_last_modified(self, request: SourceRequest) -> int:
        """As the store tells it, which is to the second."""
        moment = (await self._head(request))["last_modified"].timestamp()
        return int(moment * 1000) if moment > 0 else -1

    def is_immutable(self, request: SourceRequest) -> bool:
        """What names a version is that version for ever."""
        try:
            return self._name(request).immutable
        except SourceError:
            return False

    async def download(self, request: SourceRequest) -> SourceResponse:
        """The object or its range; the whole where the range is of another version."""
        name, asked = self._ask(request)
        if not name.key:
            raise SourceError(
                f"{asked.shown} names no object: write {name.scheme}://{name.bucket}/NAME", fault="request"
            )
        result = await self._part(request, name, asked)
        part = result is not None
        if result is None:
            result = await self._get(name, asked, {})
        return ObjectResponse(
            result, request.url, asked, self._limiter, part=part, idle=self._config.idle_timeout
        )

    async def _part(self, request: SourceRequest, name: ObjectName, asked: Asked) -> GetResult | None:
        """The part that is asked for; None where the whole is to be given instead."""
        if request.range is None:
            return None
        first, last = request.range
        options: GetOptions = {"range": {"offset": first} if last is None else (first, last + 1)}
        if request.if_range:
            options["if_match"] = request.if_range
        try:
            result = await self._get(name, asked, options)
        except (VersionChanged, RangeIgnored):
            return None
        except RangeRefused as refused:
            meta = await self._head(request)
            etag, last_modified = validators(meta)
            raise RangeNotSatisfiable(
                f"{asked.shown} has {meta['size']} bytes, none from {first} on",
                total=meta["size"],
                etag=etag,
                last_modified=last_modified,
            ) from refused
        # There are stores that do not know If-Match.
        return result if request.if_range in ("", validators(result.meta)[0]) else None

    async def list(self, request: SourceRequest) -> list[SourceEntry]:
        """What lies below a prefix, up to the next "/"; all of it, however many answers that takes."""
        name, asked = self._ask(request)
        prefix = name.key.removesuffix("/")
        if name.version or (name.key and "" in prefix.split("/")):
            raise SourceError(
                f"{asked.shown} cannot be listed: write it without version and '//'", fault="request"
            )
        place = self.service.place(dataclasses.replace(name, key="any"))  # one that all keys share
        store = await self._store(place, asked)
        find = partial(obstore.list_with_delimiter, store, prefix or None)
        found = await self._call(find, asked, self._config.header_timeout * _LISTING)
        folders, objects = found["common_prefixes"], found["objects"]
        if not folders and not objects and prefix:
            raise SourceError(f"nothing lies below {asked.shown} at {self.service.host}", origin_status=404)
        if "" in folders:
            raise SourceError(f"{asked.shown} cannot be listed: a name in it begins with '/'")
        entries = [SourceEntry(name.url(folder + "/"), is_folder=True) for folder in folders]
        entries += [
            SourceEntry(name.url(meta["path"]), size=meta["size"], version=validators(meta)[0])
            for meta in objects
            if meta["path"] != prefix  # what a console puts there to have a folder without anything in it
        ]
        return sorted(entries, key=lambda entry: entry.url)

    async def close(self) -> None:
        """Let go of all stores, and of their connections with them."""
        self._stores.clear()
        await trio.lowlevel.checkpoint()

    # --- requests -----------------------------------------------------------------------------------

    def _name(self, request: SourceRequest) -> ObjectName:
        return parse_name(request.url, self.service.buckets, self.service.version_parameter)

    def _ask(self, request: SourceRequest) -> tuple[ObjectName, Asked]:
        name = self._name(request)
        credentials = self.service.credentials_for(request)
        return name, Asked(self.service, credentials, redact_url(request.url), name.bucket)

    async def _head(self, request: SourceRequest) -> ObjectMeta:
        name, asked = self._ask(request)
        return (await self._get(name, asked, {"head": True})).meta

    async def _get(self, name: ObjectName, asked: Asked, options: GetOptions) -> GetResult:
        if name.version:
            options["version"] = name.version
        place = self.service.place(name)
        store = await self._store(place, asked)
        get = partial(obstore.get, store, place.path, options=options)
        return await self._call(get, asked, self._config.header_timeout)

    async def _store(self, place: Place, asked: Asked) -> Store:
        key = (place.base, place.bucket, asked.credentials)
        if key not in self._stores:
            try:
                store = await trio.to_thread.run_sync(
                    self.service.open, place, asked.credentials, limiter=self._limiter
                )
            except FOREIGN:
                raise opening_error(asked) from None
            self._stores[key] = store
            while len(self._stores) > _STORES:
                self._stores.popitem(last=False)
        self._stores.move_to_end(key)
        return self._stores[key]

    async def _call(self, function: Callable[[], T], asked: Asked, seconds: float) -> T:
        """Run one of obstore's functions in a thread, with a deadline and in our words."""
        with trio.move_on_after(seconds):
            try:
                return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._limiter)
            except FOREIGN as error:
                raise mapped(error, asked) from None  # obstore's words may hold signatures
        raise asked.timed_out(seconds)

    def __repr__(self) -> str:
        return f"<ObjectStoreSource {self.service.scheme} at {self.service.host}, {len(self._stores)} stores>"
