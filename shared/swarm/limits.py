"""Bounds on what transfers take: bandwidth, upload slots and memory for piece buffers."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections import deque

import trio

from shared.errors import ParentBusy

SLOT_TIME, SLOW_LINE = 8.0, 256 * 1024
"""Seconds, and bytes per second beside them, for which an upload slot is had by one piece."""


class TokenBucket:
    """Lets ``rate`` bytes per second through, in order of asking; 0 means no limit.

    The burst is a quarter of a second's worth. A request larger than the burst is let through and paid
    off by those behind it, so pieces of any size pass at the right mean rate.
    """

    def __init__(self, rate: float) -> None:
        if rate < 0 or not math.isfinite(rate):
            raise ValueError(f"a rate must be a number of bytes per second, not {rate}")
        self.rate = rate
        self._balance = rate / 4
        self._updated: float | None = None
        self._lock = trio.Lock()

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may pass. Cancellation takes nothing."""
        if not self.rate:
            return
        async with self._lock:
            self._refill()
            while self._balance < -0.5:  # half a byte: below that only rounding is left
                await trio.sleep(-self._balance / self.rate)
                self._refill()
            self._balance -= count

    def _refill(self) -> None:
        now = trio.current_time()
        if self._updated is not None:
            self._balance = min(self.rate / 4, self._balance + (now - self._updated) * self.rate)
        self._updated = now

    def __repr__(self) -> str:
        return f"<TokenBucket {self.rate:.0f} B/s>"


class UploadSlot:
    """Leave to send one piece. Release it once; further calls do nothing."""

    __slots__ = ("_slots", "until")

    def __init__(self, slots: UploadSlots, until: float) -> None:
        self._slots: UploadSlots | None = slots
        self.until = until

    def release(self) -> None:
        """Give the slot back."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.freed(self)


class UploadSlots:
    """At most ``slots`` pieces are sent at once; ``queue`` more wait for up to ``patience`` seconds.

    Few slots send whole pieces sooner than many: what is sent can be passed on. Who finds the queue
    full, or waits too long, is told to ask elsewhere (ParentBusy with ``retry_after``). A slot is for a time that
    its piece takes on a slow line: those who do not take what they asked for, since they sleep, say, do not keep
    others out for longer.
    """

    def __init__(self, slots: int, *, queue: int = 64, patience: float = 1.0) -> None:
        if slots < 1:
            raise ValueError(f"upload slots must be at least 1, got {slots}")
        self.slots = slots
        self._semaphore = trio.Semaphore(slots, max_value=slots)
        self._taken: set[UploadSlot] = set()
        self._queue = queue
        self._patience = patience
        self._waiting = 0

    @property
    def used(self) -> int:
        """Slots in use now."""
        return self.slots - self._semaphore.value

    async def acquire(self, size: int) -> UploadSlot:
        """Take a slot for a piece of ``size`` bytes. Raises ParentBusy."""
        try:
            self._semaphore.acquire_nowait()
            return self._take(size)
        except trio.WouldBlock:
            self._take_back()
        if self._waiting >= self._queue:
            raise ParentBusy("all upload slots are taken: ask another parent", retry_after=0.5)
        self._waiting += 1
        try:
            with trio.move_on_after(self._patience):
                await self._semaphore.acquire()
                return self._take(size)
        finally:
            self._waiting -= 1
        raise ParentBusy("all upload slots are taken: ask another parent", retry_after=0.25)

    def freed(self, slot: UploadSlot) -> None:
        """A slot is given back, unless it was taken back before."""
        if slot in self._taken:
            self._taken.remove(slot)
            self._semaphore.release()

    def _take(self, size: int) -> UploadSlot:
        slot = UploadSlot(self, trio.current_time() + SLOT_TIME + size / SLOW_LINE)
        self._taken.add(slot)
        return slot

    def _take_back(self) -> None:
        """Free the slots whose time is over; what is sent under them is sent to its end all the same."""
        now = trio.current_time()
        for slot in [slot for slot in self._taken if slot.until <= now]:
            self.freed(slot)

    def __repr__(self) -> str:
        return f"<UploadSlots {self.used}/{self.slots}, {self._waiting} waiting>"


class PieceBuffer:
    """Memory for one piece; ``view`` is writable and exactly as long as asked. Release it once."""

    __slots__ = ("_charge", "_memory", "_pool", "view")

    def __init__(self, pool: BufferPool, memory: mmap.mmap, size: int, charge: int) -> None:
        self._pool: BufferPool | None = pool
        self._memory = memory
        self._charge = charge
        self.view = memoryview(memory)[:size]

    def release(self) -> None:
        """Give the memory back; the view must not be used any more. Further calls do nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self.view.release()
            pool.put_back(self._memory, self._charge)


class BufferPool:
    """Memory for pieces in transfer: ``capacity`` bytes for the whole process, in order of asking.

    Buffers are anonymous maps and are used again, so that the process neither grows nor fragments.
    A buffer larger than the capacity is handed out when nothing else is.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._kept: dict[int, list[mmap.mmap]] = {}

    async def acquire(self, size: int) -> PieceBuffer:
        """Memory for ``size`` bytes; waits while memory is short. Cancellation takes nothing."""
        charge = min(size, self.capacity)
        await self._reserve(charge)
        try:
            return PieceBuffer(self, self._map(size), size, charge)
        except BaseException:
            self._free += charge
            raise

    async def _reserve(self, charge: int) -> None:
        if not self._waiting and self._free >= charge:
            self._free -= charge
            return
        granted = trio.Event()
        entry = (charge, granted)
        self._waiting.append(entry)
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self._free += charge
            else:
                self._waiting.remove(entry)
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            charge, granted = self._waiting.popleft()
            self._free -= charge
            granted.set()

    def _map(self, size: int) -> mmap.mmap:
        length = max(mmap.PAGESIZE, 1 << max(size - 1, 0).bit_length())
        kept = self._kept.get(length)
        return kept.pop() if kept else mmap.mmap(-1, length)

    def put_back(self, memory: mmap.mmap, charge: int) -> None:
        """Called by PieceBuffer.release."""
        self._kept.setdefault(len(memory), []).append(memory)
        self._free += charge
        self._wake()

    def trim(self) -> None:
        """Give the memory of unused buffers back to the system. Call it when transfers are over."""
        for maps in self._kept.values():
            for memory in maps:
                with contextlib.suppress(BufferError):  # a traceback still shows it: freed with that
                    memory.close()
        self._kept.clear()

    def __repr__(self) -> str:
        return f"<BufferPool {self._free}/{self.capacity} free, {len(self._waiting)} waiting>"
