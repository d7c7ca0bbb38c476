"""mDNS itself: python-zeroconf's threaded API behind one seam. All of it blocks; for a thread, except where it says.

zeroconf runs an event loop of its own in a thread. Instead of its ServiceBrowser, whose queue and schedule have no
bound, an ear of our own (``peer.lan.ear``) listens to the records there, and questions are asked by ourselves. Whatever
goes wrong comes out as OSError.

This module imports zeroconf (a quarter of a second): import it only where mDNS is really used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import structlog
from zeroconf import Error, ServiceInfo, Zeroconf, current_time_millis
from zeroconf._dns import DNSQuestion
from zeroconf._protocol.outgoing import DNSOutgoing

from peer.lan.addresses import Interface, own_addresses
from peer.lan.ear import IN, PTR, Ear
from peer.lan.hearing import Hearing
from peer.lan.records import SERVICE, Announcement, encode, instance, label, server

log = structlog.get_logger()

_QUERY = 0
POINTER_TTL: Final = 1200
"""Seconds that others keep our pointer for, when we vanish without a goodbye; zeroconf takes none below 1125."""
MAX_ADDRESSES: Final = 8
_KNOWN_ANSWERS: Final = 400
_ASKED_AT_ONCE: Final = 16


class Responder:
    """Sockets on the chosen interfaces, and what is announced there.

    Raises OSError where no multicast is possible. ``whole`` is False if some of the interfaces could not be used.
    """

    def __init__(self, interfaces: Sequence[Interface], hearing: Hearing) -> None:
        _hush()
        chosen = _choice(interfaces)
        if not chosen:
            raise OSError("no interface has an address that can be used")
        try:
            self._zeroconf = Zeroconf(interfaces=chosen, use_asyncio=False)
        except (Error, RuntimeError) as error:
            raise OSError(str(error)) from error
        loop = self._zeroconf.loop
        assert loop is not None
        loop.call_soon_threadsafe(loop.set_exception_handler, _relay_loop)
        senders = len(self._zeroconf.engine.senders)
        self.whole = senders == len(chosen)
        self._info: ServiceInfo | None = None
        self._ear = Ear(hearing)
        if not senders:
            self._zeroconf.close()
            raise OSError("no interface can send to a multicast group")
        self._zeroconf.add_listener(self._ear, None)

    @property
    def wants(self) -> bool:
        """Whether instances are known whose records have not all come. Does not block."""
        return bool(self._ear.wanted)

    def probe(self, announcement: Announcement, number: int) -> None:
        """Ask whether somebody has our name. Does not block."""
        info = ServiceInfo(SERVICE, instance(label(announcement, number)), port=announcement.port)
        self._send(self._zeroconf.generate_service_query(info))

    def announce(self, announcement: Announcement, number: int, interfaces: Sequence[Interface]) -> None:
        """Announce, and answer from now on; takes half a second. OSError."""
        addresses = [text.partition("%")[0] for text in own_addresses(interfaces)[:MAX_ADDRESSES]]
        name = label(announcement, number)
        info = ServiceInfo(
            SERVICE,
            instance(name),
            port=announcement.port,
            properties=encode(announcement),
            server=server(name),
            parsed_addresses=addresses,
            other_ttl=POINTER_TTL,
        )
        self._info = info
        try:
            self._zeroconf.register_service(info, cooperating_responders=True)
        except (Error, RuntimeError) as error:
            raise OSError(f"not announced: {error!r}") from error

    def repeat(self) -> None:
        """Announce once more. Does not block."""
        if self._info is not None:
            self._send(self._zeroconf.generate_service_broadcast(self._info, None))

    def ask(self, *, browse: bool, unicast: bool = False) -> None:
        """Ask who is there, and for what is missing of those who are known. Does not block."""
        if browse:
            query = DNSOutgoing(_QUERY)
            question = DNSQuestion(SERVICE, PTR, IN)
            question.unicast = unicast
            query.add_question(question)
            now = current_time_millis()
            known = [
                record
                for record in self._zeroconf.cache.get_all_by_details(SERVICE, PTR, IN)
                if not record.is_stale(now)
            ]
            for record in known[:_KNOWN_ANSWERS]:
                query.add_answer_at_time(record, now)
            self._send(query)
        try:
            questions = [
                question
                for name in list(self._ear.wanted)[:_ASKED_AT_ONCE]
                for question in self._ear.questions(self._zeroconf, name)
            ]
        except RuntimeError as error:  # its loop has ended
            log.debug("mdns message not sent", error=str(error))
            return
        if questions:
            missing = DNSOutgoing(_QUERY)
            for question in questions:
                missing.add_question(question)
            self._send(missing)

    def _send(self, message: DNSOutgoing) -> None:
        try:
            self._zeroconf.send(message)
        except RuntimeError as error:  # its loop has ended
            log.debug("mdns message not sent", error=str(error))

    def close(self, *, goodbye: bool) -> None:
        """End it, with a goodbye (a quarter of a second) or without; may be called again."""
        loop = self._zeroconf.loop
        try:
            if not goodbye and self._info is not None and loop is not None and loop.is_running():
                loop.call_soon_threadsafe(self._zeroconf.registry.async_remove, self._info)
            self._info = None
            self._zeroconf.close()
        except (Error, RuntimeError, OSError, TimeoutError) as error:
            log.debug("mdns not closed", error=repr(error))


def _choice(interfaces: Sequence[Interface]) -> list[str | int]:
    """What zeroconf is told: of each interface one IPv4 address, and one for IPv6, or its number where another
    interface has the same."""
    links = [
        str(own.ip)
        for interface in interfaces
        for own in interface.addresses
        if own.version == 6 and own.ip.is_link_local
    ]
    chosen: list[str | int] = []
    for interface in interfaces:
        four = [str(own.ip) for own in interface.addresses if own.version == 4]
        six = [own.ip for own in interface.addresses if own.version == 6]
        chosen += four[:1]
        link = next((str(ip) for ip in six if ip.is_link_local), "")
        if link and links.count(link) == 1:
            chosen.append(link)
        elif six:
            chosen.append(interface.index)
    return list(dict.fromkeys(chosen))


class _Relay(logging.Handler):
    """What zeroconf logs, at our debug level, shortened: its words hold what strangers sent."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            said = str(record.msg)
        log.debug("zeroconf", said=said[:300])


def _relay_loop(_loop: object, context: dict[str, Any]) -> None:
    log.debug("zeroconf", said=str(context.get("message"))[:300], error=repr(context.get("exception"))[:300])


def _hush() -> None:
    logger = logging.getLogger("zeroconf")
    if not any(isinstance(handler, _Relay) for handler in logger.handlers):
        logger.handlers = [_Relay()]
        logger.propagate = False
