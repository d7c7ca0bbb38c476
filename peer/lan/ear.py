"""Which records of mDNS are about dragonet: heard in zeroconf's thread, where nothing may be raised.

What is not about dragonet, or is beyond the bounds, leaves zeroconf's cache at once. This module imports zeroconf.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import Any, Final

from zeroconf import RecordUpdate, RecordUpdateListener, Zeroconf, current_time_millis
from zeroconf._dns import DNSAddress, DNSPointer, DNSQuestion, DNSRecord, DNSService, DNSText

from peer.lan.hearing import Hearing
from peer.lan.records import SERVICE, is_instance

A, PTR, TXT, AAAA, SRV = 1, 12, 16, 28, 33
IN = 1
MAX_RECORDS: Final = 64
"""Records of one name that are believed; nobody has as many addresses."""
REPLACED: Final = 1
"""Seconds that a record lives on when others came in its place (RFC 6762, 10.2)."""
WANTED: Final = 64
"""Instances that are waited for at most, since not all of their records have come."""
ATTEMPTS: Final = 3


class Ear(RecordUpdateListener):
    """Hears all records, in zeroconf's thread, and tells what they say about dragonet."""

    def __init__(self, hearing: Hearing) -> None:
        self.wanted: dict[str, int] = {}
        """Instances that are not complete, and how often that was asked for."""
        self._hearing = hearing
        self._cache: Any = None
        self._touched: dict[str, None] = {}
        self._addresses: list[DNSRecord] = []
        self._spare: list[DNSRecord] = []

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """What a packet brought; it is not in the cache yet."""
        self._cache = zc.cache
        for update in records:
            record = update.new
            if record.type == PTR:
                self._pointer(record, gone=record.is_expired(now))
            elif record.type in (SRV, TXT) and is_instance(record.name):
                if not record.is_expired(now):
                    self._touched[record.name] = None
            elif record.type in (A, AAAA):
                if not record.is_expired(now):
                    self._addresses.append(record)
            else:
                self._spare.append(record)

    def _pointer(self, record: DNSRecord, *, gone: bool) -> None:
        alias = getattr(record, "alias", "")
        if record.key != SERVICE or not is_instance(alias):
            self._spare.append(record)
        elif gone:
            self.wanted.pop(alias, None)
            self._touched.pop(alias, None)
            self._hearing.gone(alias)
        else:
            self._touched[alias] = None

    def async_update_records_complete(self) -> None:
        """The cache has everything of the packet now."""
        for record in self._addresses:
            services = self._cache.service_cache.get(record.key, {}).values()
            names = [service.name for service in services if is_instance(service.name)]
            self._touched.update(dict.fromkeys(names[:MAX_RECORDS]))
            if not names:
                self._spare.append(record)
        spare, self._spare = self._spare, []
        self._addresses = []
        touched, self._touched = self._touched, {}
        for name in touched:
            spare += self._judge(name)
        self._forget(spare)

    def _judge(self, name: str) -> list[DNSRecord]:
        """Tell what is known of an instance; the records that need not be kept."""
        now = current_time_millis()
        records = self._of(name)
        service = max((r for r in records if isinstance(r, DNSService)), key=_age, default=None)
        text = max((r for r in records if isinstance(r, DNSText)), key=_age, default=None)
        hosts = self._of(service.server) if service is not None else []
        if len(records) > MAX_RECORDS or len(hosts) > MAX_RECORDS:
            self._hearing.malformed(name, time.monotonic())
            return [*records, *hosts, *self._pointers(name)]
        addresses = _texts(hosts, now)
        if service is None or text is None or not addresses:
            if name in self.wanted or len(self.wanted) < WANTED:
                self.wanted.setdefault(name, 0)
                self._hearing.wake()
                return []
            return [*records, *hosts, *self._pointers(name)]
        self.wanted.pop(name, None)
        if self._hearing.heard(name, text.text, service.port or 0, addresses, time.monotonic()):
            return []
        return [*records, *hosts, *self._pointers(name)]

    def drop(self, name: str) -> None:
        """Forget an instance that nobody tells more about; in zeroconf's thread."""
        if self.wanted.pop(name, None) is not None:
            self._forget([*self._of(name), *self._pointers(name)])

    def _forget(self, records: Sequence[DNSRecord]) -> None:
        for record in records:
            if record in self._cache.cache.get(record.key, ()):
                self._cache.async_remove_records((record,))

    def _of(self, name: str) -> list[DNSRecord]:
        return list(self._cache.cache.get(name.lower(), {}).values())

    def _pointers(self, name: str) -> list[DNSRecord]:
        return [DNSPointer(SERVICE, PTR, IN, 0, name)]

    def questions(self, zeroconf: Zeroconf, name: str) -> list[DNSQuestion]:
        """What to ask for an instance; nothing when that was done some times. In any thread."""
        asked = self.wanted.get(name, ATTEMPTS)
        if asked >= ATTEMPTS:
            if zeroconf.loop is not None:
                zeroconf.loop.call_soon_threadsafe(self.drop, name)
            return []
        self.wanted[name] = asked + 1
        service = zeroconf.cache.get_by_details(name, SRV, IN)
        found = [DNSQuestion(name, SRV, IN), DNSQuestion(name, TXT, IN)]
        if isinstance(service, DNSService):
            found += [DNSQuestion(service.server, A, IN), DNSQuestion(service.server, AAAA, IN)]
        return found


def _age(record: DNSRecord) -> tuple[float, float]:
    """The latest is the largest; of two at the same time, the one that replaces the other."""
    return (record.created, record.ttl)


def _texts(records: Sequence[DNSRecord], now: float) -> tuple[str, ...]:
    """The addresses in records; link-local IPv6 with the number of the interface, where that is known."""
    found: dict[str, None] = {}
    for record in records:
        if not isinstance(record, DNSAddress) or record.is_expired(now) or record.ttl <= REPLACED:
            continue
        try:
            ip = ipaddress.ip_address(record.address)
        except ValueError:
            continue
        scoped = ip.version == 6 and ip.is_link_local and record.scope_id
        found[f"{ip}%{record.scope_id}" if scoped else str(ip)] = None
    return tuple(found)
