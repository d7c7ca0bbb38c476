"""What parents hold, as they tell it: one event stream per parent and task.

The child's side is :func:`follow`; the parent's side is :func:`events`. The stream is HTTP/1.1 with a
chunked body of frames; a beat every few seconds tells a quiet parent from a dead one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import h11
import trio

from shared.errors import InvalidRequest, ParentGone, ParentStalled, PieceMissing
from shared.http.frames import FrameDecoder, frame
from shared.protocol import (
    KEY_HEADER,
    VERSION_HEADER,
    Availability,
    AvailabilityEnded,
    AvailabilityEvent,
    Beat,
    PiecesAdded,
    decode_availability,
    encode,
)
from shared.swarm.task import HostTask
from shared.task.bitmap import Bitmap

BEAT_INTERVAL = 3.0
"""Seconds between signs of life on a quiet stream."""
SILENCE = 10.0
"""Seconds without a byte after which a parent counts as stalled."""
SETTLE_SHARE, SHORTEST_SETTLE, LONGEST_SETTLE = 1 / 8, 0.02, 0.5
"""Newly held pieces are gathered into one event, after one was sent: for a small share of the seconds that the
child has been following, which is next to nothing of what its download takes anyway."""


async def events(task: HostTask, version: str) -> AsyncGenerator[bytes, None]:
    """The frames of an availability stream of ``task``, until its version is no longer current."""
    began = trio.current_time()
    told = task.held.copy()
    yield frame(encode(Availability(version, told.to_bytes())))
    while task.meta is not None and task.meta.version == version:
        new = task.held - told
        if new:
            told = told | new
            yield frame(encode(PiecesAdded(list(new))))
            await trio.sleep(_settle(trio.current_time() - began))
            continue
        with trio.move_on_after(BEAT_INTERVAL) as scope:
            await task.pulse.wait()
        if scope.cancelled_caught:
            yield frame(encode(Beat()))
    yield frame(encode(AvailabilityEnded()))


def _settle(age: float) -> float:
    return max(SHORTEST_SETTLE, min(LONGEST_SETTLE, SETTLE_SHARE * age))


async def follow(
    stream: trio.abc.Stream, address: str, task_id: str, version: str, on_change: OnChange, key: str = ""
) -> None:
    """Read a parent's availability until the stream ends; each event updates and passes on the bitmap.

    ``key`` is that of the task (``TaskSpec.piece_key``). Closes ``stream``. Raises PieceMissing when the
    parent holds nothing (or another version), ParentGone or ParentStalled when the stream breaks.
    """
    try:
        async with stream:
            await _follow(stream, address, task_id, version, on_change, key)
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise ParentGone(f"{address} broke its availability stream: {error}") from None
    except h11.ProtocolError as error:
        raise ParentGone(f"{address} does not speak HTTP/1.1: {error}") from None
    except (InvalidRequest, ValueError, RecursionError) as error:
        raise ParentGone(f"{address} sent an availability event that cannot be read: {error}") from None


OnChange = Callable[[Bitmap], None]


async def _follow(
    stream: trio.abc.Stream, address: str, task_id: str, version: str, on_change: OnChange, key: str
) -> None:
    http = h11.Connection(h11.CLIENT)
    shown = [(KEY_HEADER, key)] if key else []
    request = h11.Request(
        method="GET",
        target=f"/v1/tasks/{task_id}/availability",
        headers=[("Host", address), (VERSION_HEADER, version), *shown, ("Connection", "close")],
    )
    await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    frames = FrameDecoder()
    held = Bitmap()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(SILENCE) as scope:
                http.receive_data(bytes(await stream.receive_some(64 * 1024)))
            if scope.cancelled_caught:
                raise ParentStalled(f"{address} was silent for {SILENCE:.0f} s")
        elif isinstance(event, h11.Response):
            if event.status_code in (404, 409, 410):
                raise PieceMissing(f"{address} holds nothing of this version")
            if event.status_code != 200:
                raise ParentGone(f"{address} answered {event.status_code} to an availability request")
        elif isinstance(event, h11.Data):
            for payload in frames.feed(event.data):
                message: AvailabilityEvent = decode_availability(payload)
                if isinstance(message, Availability):
                    if message.version != version:
                        raise PieceMissing(f"{address} holds another version")
                    held = Bitmap.from_bytes(message.held)
                elif isinstance(message, PiecesAdded):
                    for number in message.pieces:
                        held.add(number)
                elif isinstance(message, AvailabilityEnded):
                    raise PieceMissing(f"{address} no longer holds this version")
                else:
                    continue
                on_change(held.copy())
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
            raise ParentGone(f"{address} ended its availability stream")
