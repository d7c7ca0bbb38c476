"""The sending half of a connection: bodies of every kind, errors, hand-over to another protocol."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import h11
import structlog
import trio

from shared.http.errors import ClientGone, told_error
from shared.http.heads import BODYLESS, ResponseFrame, frame_response
from shared.http.messages import FileBody, Push, PushedBody, Request, Response, failure_response
from shared.http.upgrade import HandedOverStream
from shared.http.wire import Wire
from shared.task.identity import redact_url

log = structlog.get_logger()

COALESCE_BYTES = 64 * 1024
"""A body up to here is sent in one piece with its head."""
HALF_CLOSED_PATIENCE = 2.0
"""Seconds without a chunk after which a client that has closed its side is taken to be gone: over TCP a
client that only sends no more looks the same until something is sent to it."""

# What h11 is told of a response, to keep its state; the bytes are made by frame_response.
_BEGUN = h11.Response(status_code=400, headers=[(b"content-length", b"0")])
_BEGUN_LAST = h11.Response(status_code=400, headers=[(b"content-length", b"0"), (b"connection", b"close")])
_OVER = h11.EndOfMessage()

Hangup = Callable[[], Awaitable[None]]


class Sender:
    """Sends the responses of one connection, one at a time."""

    def __init__(self, wire: Wire, protocol: h11.Connection) -> None:
        self._wire = wire
        self._protocol = protocol
        self._endless: trio.CancelScope | None = None
        self._rest = b""  # of a pushed chunk, of which the socket took a part only
        self.unfinished = False
        """Whether a response was begun and not completed: the connection must break."""

    async def send(
        self,
        request: Request,
        response: Response,
        *,
        date: bytes,
        close: bool,
        hangup: Hangup | None,
        draining: bool,
    ) -> int:
        """Send a response whole, and give back its status.

        ``hangup``, given when the request's body has been read, returns when the client has gone; it is
        watched while an iterator body is sent. A response that cannot be sent (a bug of its handler) becomes
        a 500, one that fails after its head was sent leaves ``unfinished`` set. Raises ClientGone.
        """
        if response.upgrade is not None or (request.method == "CONNECT" and 200 <= response.status < 300):
            return await self._hand_over(request, response, date, body_read=hangup is not None)
        bare = request.method == "HEAD" or response.status in BODYLESS
        old = request.http_version == "1.0"
        body = response.body
        try:
            if isinstance(body, FileBody):
                return await self._send_file(body, request, response, date, close, bare, old)
            length = response.length if isinstance(body, AsyncIterator) else _measure(body)
            frame = frame_response(response, length, date=date, close=close, bare=bare, old=old)
        except (OSError, ValueError, TypeError) as error:
            if self.unfinished:
                raise
            report(request, "a response could not be sent", error)
            await self.send_error(
                500, "something went wrong inside dragonet: its log says what", date=date, bare=bare
            )
            return 500
        self._begin(frame)
        if bare or body is None:
            await self._wire.send(frame.head)
        elif isinstance(body, AsyncIterator):
            await self._wire.send(frame.head)
            if not await self._send_iterator(request, response, body, frame, hangup, draining):
                return response.status
        elif len(body) <= COALESCE_BYTES:
            await self._wire.send(frame.head + body)
        else:
            await self._wire.send(frame.head, more=True)
            await self._wire.send(body)
        self._end()
        return response.status

    async def send_continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 §10.1.1)."""
        told = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
        await self._wire.send(self._protocol.send(told) or b"")

    async def send_error(self, status: int, words: str, *, date: bytes, bare: bool) -> None:
        """Answer what cannot be served, saying that the connection ends. Raises ClientGone.

        ``bare``: without a body, as the answer to HEAD.
        """
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        response = failure_response(status, words)
        body = cast(bytes, response.body)
        frame = frame_response(response, len(body), date=date, close=True, bare=bare, old=False)
        self._begin(frame)
        await self._wire.send(frame.head if bare else frame.head + body)
        self._end()

    def end_endless(self) -> None:
        """End the iterator body that is being sent, if it is one that never ends by itself."""
        if self._endless is not None:
            self._endless.cancel()

    async def close_body(self, response: Response) -> None:
        """Close an iterator body, so that its own cleaning up is done before ``release``."""
        aclose = getattr(response.body, "aclose", None)
        if aclose is None:
            return
        try:
            with trio.move_on_after(self._wire.write_timeout):
                await aclose()
        except Exception as error:  # noqa: BLE001 – the response is over; what is left is to tell
            log.error("a response body could not be closed", error=repr(error))

    def _begin(self, frame: ResponseFrame) -> None:
        self._protocol.send(_BEGUN_LAST if frame.close else _BEGUN)
        self.unfinished = True

    def _end(self) -> None:
        self._protocol.send(_OVER)
        self.unfinished = False

    # --- bodies -----------------------------------------------------------------------------------

    async def _send_file(
        self,
        body: FileBody,
        request: Request,
        response: Response,
        date: bytes,
        close: bool,
        bare: bool,
        old: bool,
    ) -> int:
        owned = not isinstance(body.file, int)
        fd = body.file if isinstance(body.file, int) else os.open(body.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = body.measure(fd)
            frame = frame_response(response, length, date=date, close=close, bare=bare, old=old)
            self._begin(frame)
            await self._wire.send(frame.head, more=not bare and length > 0)
            if not bare:
                try:
                    await self._wire.send_file(fd, body.offset, length)
                except (EOFError, OSError) as error:
                    report(request, "a response broke off", error)
                    return response.status
            self._end()
        finally:
            if owned:
                os.close(fd)
        return response.status

    async def _send_iterator(
        self,
        request: Request,
        response: Response,
        body: AsyncIterator[bytes] | AsyncIterator[memoryview],
        frame: ResponseFrame,
        hangup: Hangup | None,
        draining: bool,
    ) -> bool:
        """Send chunk by chunk; whether the response is complete. Raises ClientGone."""
        complete = gone = in_chunk = False
        sent = 0
        failure: Exception | None = None
        left = frame.length

        async def watch(scope: trio.CancelScope, hangup: Hangup) -> None:
            nonlocal gone
            await hangup()
            seen = -1
            while not response.endless and (in_chunk or seen != sent):
                seen = sent
                await trio.sleep(HALF_CLOSED_PATIENCE)
            gone = True
            scope.cancel()

        def push(chunk: bytes) -> bool:
            return not in_chunk and self._push(chunk, frame.chunked)

        attach: Callable[[Push | None], None] | None = None
        if left is None and isinstance(body, PushedBody):
            attach = body.attach
            attach(push)
        try:
            async with trio.open_nursery() as nursery:
                if response.endless:
                    self._endless = nursery.cancel_scope
                    if draining:
                        nursery.cancel_scope.cancel()
                if hangup is not None:
                    nursery.start_soon(watch, nursery.cancel_scope, hangup)
                try:
                    async for chunk in body:
                        if not chunk:
                            continue
                        if left is not None:
                            left -= len(chunk)
                            if left < 0:
                                raise ValueError(f"the body is longer than its {frame.length} bytes")
                        in_chunk = True
                        await self._send_chunk(chunk, frame.chunked)
                        in_chunk = False
                        sent += 1
                    complete = True
                except Exception as error:  # noqa: BLE001 – looked at below, outside the nursery
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            if attach is not None:
                attach(None)
            ended, self._endless = self._endless is not None and not gone, None
        if complete and left:
            failure = ValueError(f"the body is {left} bytes shorter than its {frame.length} bytes")
        if isinstance(failure, ClientGone):
            raise failure
        if failure is not None:
            report(request, "a response broke off", failure)
            return False
        if gone and not complete:
            raise ClientGone("the client hung up while its response was sent")
        complete = complete or (ended and not in_chunk and not left)
        if complete and (frame.chunked or self._rest):
            await self._wire.send(self._take_rest() + (b"0\r\n\r\n" if frame.chunked else b""))
        return complete

    def _push(self, chunk: bytes, chunked: bool) -> bool:
        """Send a small chunk now, while nothing else is being sent; whether the socket took it."""
        whole = self._rest + (b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        taken = self._wire.send_now(whole)
        if not taken:
            return False
        self._rest = whole[taken:]
        return True

    def _take_rest(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    async def _send_chunk(self, chunk: bytes | memoryview, chunked: bool) -> None:
        wire = self._wire
        if self._rest:
            await wire.send(self._take_rest(), more=True)
        if not chunked:
            await wire.send(chunk)
        elif len(chunk) <= COALESCE_BYTES:
            await wire.send(b"".join((b"%x\r\n" % len(chunk), chunk, b"\r\n")))
        else:
            await wire.send(b"%x\r\n" % len(chunk), more=True)
            await wire.send(chunk, more=True)
            await wire.send(b"\r\n")

    # --- other protocols --------------------------------------------------------------------------

    async def _hand_over(self, request: Request, response: Response, date: bytes, *, body_read: bool) -> int:
        protocol, connect = self._protocol, request.method == "CONNECT"
        wanted = connect or bool(request.headers.get_list("upgrade"))
        if response.upgrade is None or not (wanted and body_read) or (response.status == 101) == connect:
            log.error("a response cannot be handed over", method=request.method, status=response.status)
            await self.send_error(
                501,
                "this request cannot be handed over to another protocol",
                date=date,
                bare=request.method == "HEAD",
            )
            return 501
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.headers]
        head: h11.InformationalResponse | h11.Response
        if response.status == 101:
            fields.append((b"connection", b"upgrade"))
            head = h11.InformationalResponse(status_code=101, headers=fields, reason=b"Switching Protocols")
        else:
            head = h11.Response(status_code=response.status, headers=fields, reason=b"Connection Established")
        await self._wire.send(protocol.send(head) or b"")
        stream = HandedOverStream(self._wire.stream, protocol.trailing_data[0])
        try:
            await response.upgrade(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # either end may leave at any time
        except Exception as error:  # noqa: BLE001 – the connection ends with it in any case
            report(request, "a handed-over connection broke off", error)
        return response.status


def _measure(body: bytes | bytearray | memoryview | None) -> int:
    if isinstance(body, memoryview) and (body.itemsize != 1 or body.ndim != 1 or not body.c_contiguous):
        raise TypeError("a memoryview body must be one of bytes, in one piece")
    return 0 if body is None else len(body)


def report(request: Request, what: str, error: Exception) -> None:
    """Log a response's failure: in one line where it is one of ours, with its place where it is a bug."""
    told = told_error(error)
    where = {"method": request.method, "target": redact_url(request.target)}
    if told is not None:
        log.warning(what, **where, error=str(told))
    else:
        log.error(what, **where, error=repr(error))
        log.debug("where the bug is", exc_info=error)
