"""One connection of the server: requests one after the other, each answered before the next is read.

A connection is one task and one cancel scope (the wire's). While it waits for a request it says in
``expires`` until when, and the server looks at that about once a second: moving a scope's deadline twice
for each request would cost a tenth of a small request's time. The sending half is in ``sending.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import h11
import structlog
import trio

from shared.errors import InvalidRequest
from shared.http.errors import ClientGone, RequestTimeout, told_error
from shared.http.heads import DateField, Refusal, check_request, refusal_of
from shared.http.limits import ServerLimits
from shared.http.messages import Handler, Request, Response, error_response, failure_response
from shared.http.sending import Sender, report
from shared.http.wire import Wire

log = structlog.get_logger()

SLOWEST_BODY = 4096
"""Bytes per second that a request body must come at in the mean, after ``body_timeout`` seconds of grace."""
DISCARD_BYTES = 256 * 1024
"""A request body that nobody read is read and dropped up to here, so that the connection can go on."""


class Shared:
    """What a server shares with its connections: settings, counters, whether it is draining."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        name: str,
        on_error: Callable[[Request, Exception], Response | None] | None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.name = name
        self.on_error = on_error
        self.date = DateField()
        self.draining = False
        self.accepted = self.refused = self.unwelcome = self.requests = self.malformed = self.active = 0
        self.responses = [0, 0, 0, 0, 0]


class Connection:
    """Serves one client until either side ends the connection."""

    def __init__(self, wire: Wire, shared: Shared) -> None:
        self._wire = wire
        self._shared = shared
        self._limits = shared.limits
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=shared.limits.max_header_bytes)
        self._sender = Sender(wire, self._protocol)
        self.expires = math.inf
        """Until when it may wait for a request or the rest of its head, on trio's clock."""
        self._idle = True
        self._in_head = False
        self._shut = False
        self._received = 0  # bytes since the last request
        self._ended = False  # the client has told the end of its bytes
        self._body_read = True
        self._early: bytes = b""  # the body's first bytes, which came along with the head
        self._announced: int | None = 0
        self._body_began, self._body_bytes = 0.0, 0
        self._keep_alive = True
        self._linger = False
        self._bare = False  # whether the request's answer must not have a body
        wire.write_timeout = shared.limits.write_timeout

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self._idle

    @property
    def closing(self) -> bool:
        """Whether it has been told to end."""
        return self._shut

    def shut(self) -> None:
        """End it now, whatever it does."""
        self._shut = True
        self._wire.scope.cancel()

    def expire(self) -> None:
        """The wait for a request has lasted too long: end it, with 408 when its head has begun."""
        self.expires = math.inf
        self._wire.scope.cancel()

    def drain(self) -> None:
        """End it as soon as no response is cut by that; the server does not take new requests."""
        if self._idle or self._in_head:
            self.shut()
        else:
            self._sender.end_endless()

    async def run(self) -> None:
        """Serve until the end, and close the stream. Raises nothing but cancellation."""
        scope = self._wire.scope
        try:
            with scope:
                await self._serve()
            if scope.cancelled_caught and self._in_head and not self._shut:
                await self._answer_late()
        except ClientGone:
            pass  # nobody is there to hear anything
        except Exception as error:  # a bug ends its own connection, not the server
            log.error("a connection ended by a bug", server=self._shared.name, error=repr(error))
            log.debug("where the bug is", exc_info=error)
        finally:
            await self._wire.close(
                linger=self._limits.linger if self._linger and not self._ended else 0.0,
                abort=self._sender.unfinished,
            )

    async def _serve(self) -> None:
        protocol = self._protocol
        self.expires = trio.current_time() + self._limits.header_timeout
        await self._wire.prepare()
        while True:
            try:
                head = await self._next_head()
                if head is None:
                    return
                await self._exchange(head)
            except Refusal as refusal:
                await self._refuse(refusal)
                return
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            if self._shared.draining or self._sender.unfinished:
                return
            protocol.start_next_cycle()

    async def _next_head(self) -> h11.Request | None:
        """The next request's head; None when the client has ended. Raises Refusal, ClientGone."""
        protocol, wire, limits = self._protocol, self._wire, self._limits
        if self._received:  # pipelined: perhaps it is here already; others get their turn all the same
            await trio.lowlevel.checkpoint()
        self._idle = not self._received
        while True:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError as error:
                self._idle = False
                raise refusal_of(error, protocol.trailing_data[0], limits) from None
            if type(event) is h11.Request:
                break
            if event is not h11.NEED_DATA:
                return None
            if self._idle:
                self.expires = trio.current_time() + limits.idle_timeout
            elif not self._in_head:
                self._in_head = True
                self.expires = trio.current_time() + limits.header_timeout
            data = await wire.receive()
            if self._idle and data[:1] in (b"\r", b"\n"):
                # "a server ... SHOULD ignore at least one empty line" (RFC 9112 §2.2)
                data = data.lstrip(b"\r\n")
                if not data:
                    continue
            self._feed(data)
            if data:
                self._idle = False
        self._idle = self._in_head = False
        self.expires = math.inf
        return event

    def _feed(self, data: bytes) -> None:
        self._received += len(data)
        self._ended = not data
        self._protocol.receive_data(data)

    # --- one request ----------------------------------------------------------------------------

    async def _exchange(self, head: h11.Request) -> None:
        shared = self._shared
        self._bare = head.method == b"HEAD"
        frame = check_request(head, self._limits, self._received)
        self._announced, self._keep_alive = frame.length, frame.keep_alive
        self._begin_body()
        request = Request(
            head.method.decode("ascii"),
            head.target.decode("ascii"),
            head.headers,
            self,
            peer=self._wire.peer,
            http_version=head.http_version.decode("ascii"),
            tls=self._wire.tls,
        )
        shared.requests += 1
        shared.active += 1
        try:
            response = await self._handle(request)
            try:
                await self._respond(request, response)
            finally:
                try:
                    await self._sender.close_body(response)
                finally:
                    response.finish()
        finally:
            shared.active -= 1
            request.finish()
            for fd in self._wire.take_fds():
                os.close(fd)
        if not self._body_read:
            await self._discard_body()
        self._received = len(self._protocol.trailing_data[0])

    async def _handle(self, request: Request) -> Response:
        try:
            response = await self._shared.handler(request)
            if not isinstance(response, Response):
                raise TypeError(f"the handler gave {type(response).__name__}, not a Response")
        except Exception as error:  # noqa: BLE001 – whatever a handler raises is answered
            return self._answer_to(request, error)
        return response

    def _answer_to(self, request: Request, error: Exception) -> Response:
        told = told_error(error)
        if told is None:
            report(request, "a request ended by a bug", error)
        if self._shared.on_error is not None:
            try:
                response = self._shared.on_error(request, error)
            except Exception as second:  # noqa: BLE001 – the first error is answered, the second logged
                log.error("an error answer could not be made", error=repr(second))
            else:
                if response is not None:
                    return response
        if told is None:
            return failure_response(500, "something went wrong inside dragonet: its log says what")
        return error_response(told)

    async def _respond(self, request: Request, response: Response) -> None:
        close = (
            self._shared.draining
            or not self._keep_alive
            or self._protocol.their_state is h11.ERROR
            or not (self._body_read or self._can_discard())
        )
        status = await self._sender.send(
            request,
            response,
            date=self._shared.date.now(),
            close=close,
            hangup=self.hangup if self._body_read else None,
            draining=self._shared.draining,
        )
        self._shared.responses[min(max(status // 100, 1), 5) - 1] += 1

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer what is not a request that can be served, and end."""
        self._shared.malformed += 1
        self._linger = True
        self._idle = self._in_head = False
        log.debug("a request was refused", server=self._shared.name, status=refusal.status, why=str(refusal))
        await self._sender.send_error(
            refusal.status, str(refusal), date=self._shared.date.now(), bare=self._bare
        )
        self._shared.responses[refusal.status // 100 - 1] += 1

    async def _answer_late(self) -> None:
        with trio.move_on_after(1.0):
            await self._refuse(Refusal(408, "the request's headers did not come in time"))

    # --- the request's body (RequestSource) -------------------------------------------------------

    def announced_length(self) -> int | None:
        return self._announced

    def body_limit(self) -> int:
        return self._limits.max_body_bytes

    def take_fds(self) -> list[int]:
        return self._wire.take_fds()

    async def receive_body(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        protocol = self._protocol
        while not self._body_read:
            try:
                event = protocol.next_event()
            except h11.RemoteProtocolError:
                if self._ended:
                    raise ClientGone("the client cut its request body short") from None
                raise InvalidRequest("the request body is not valid HTTP/1.1") from None
            if type(event) is h11.Data:
                return bytes(event.data)
            if type(event) is h11.EndOfMessage:
                self._body_read = True
            elif event is h11.NEED_DATA:
                await self._receive_more()
            else:
                raise ClientGone("the client cut its request body short")
        return b""

    async def hangup(self) -> None:
        """Wait for the end of the client's bytes; what it pipelines meanwhile is kept, up to a limit."""
        if not self._body_read:
            raise RuntimeError("the request body must be read before waiting for the client to hang up")
        while not self._ended:
            if self._received > 2 * self._limits.max_header_bytes:
                await trio.sleep_forever()  # the next requests are waiting: their end cannot be seen now
            try:
                self._feed(await self._wire.receive())
            except ClientGone:
                return

    def _begin_body(self) -> None:
        self._early = b""
        self._body_began, self._body_bytes = trio.current_time(), 0
        self._body_read = False
        try:
            event = self._protocol.next_event()
        except h11.RemoteProtocolError:
            raise Refusal(400, "the request body is not valid HTTP/1.1") from None
        if type(event) is h11.EndOfMessage:
            self._body_read = True
        elif type(event) is h11.Data:
            self._early = bytes(event.data)

    async def _receive_more(self) -> None:
        if self._protocol.they_are_waiting_for_100_continue:
            await self._sender.send_continue()
        timeout = self._limits.body_timeout
        with trio.move_on_after(timeout) as scope:
            before = self._received
            self._feed(await self._wire.receive())
            self._body_bytes += self._received - before
        if scope.cancelled_caught:
            raise RequestTimeout(f"no byte of the request body came for {timeout:g} s")
        if trio.current_time() - self._body_began > timeout + self._body_bytes / SLOWEST_BODY:
            raise RequestTimeout(f"the request body came at less than {SLOWEST_BODY} bytes per second")

    def _can_discard(self) -> bool:
        """Whether the unread rest of the body is short enough to be read and dropped."""
        return (
            self._announced is not None
            and self._announced <= DISCARD_BYTES
            and not self._protocol.they_are_waiting_for_100_continue
        )

    async def _discard_body(self) -> None:
        self._linger = True
        if not self._can_discard() or self._protocol.our_state is not h11.DONE:
            return
        with trio.move_on_after(self._limits.linger) as scope:
            try:
                while await self.receive_body():
                    pass
            except InvalidRequest:
                return
        self._linger = scope.cancelled_caught
