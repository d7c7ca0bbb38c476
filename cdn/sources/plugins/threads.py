"""One plain call of a plugin in a worker thread, which can be given up and, in pure Python, be stopped.

A thread cannot be ended from outside. What can be done is to raise an exception in it, which arrives with
its next Python instruction: that ends a loop, but not a call that waits in the operating system or computes
in C. So the caller does not wait for the end of a call that it has given up; the thread goes on alone, may
put its result nowhere, and lets go of it.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from shared.errors import SourceError

T = TypeVar("T")

STOPS = 3
"""Times that a thread is stopped: a Stop is lost where Python only reports errors (in a finalizer, say), or to
code that catches even that; which is left alone afterwards."""


class Stop(BaseException):
    """Raised in a plugin's thread that has been given up. Not an Exception, so that few catch it."""


class Job(Generic[T]):
    """A call. ``run`` is for the worker thread, everything else for others.

    ``explain`` makes what the call raises a SourceError, in the thread, so that nothing holds on to the
    plugin's frames. ``discard`` gets the result (None for an error) of a call that was given up; ``ended``
    is the last thing that happens.
    """

    def __init__(
        self,
        call: Callable[[], T],
        explain: Callable[[BaseException], SourceError],
        *,
        discard: Callable[[T | None], None] = lambda _: None,
        ended: Callable[[Job[T]], None] = lambda _: None,
    ) -> None:
        self._call = call
        self._explain = explain
        self._discard = discard
        self._ended = ended
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._clock = 0
        self._cpu = 0.0
        self._stops = 0
        self.settled = False
        self.abandoned = False
        self.value: T | None = None
        self.error: SourceError | None = None
        self.succeeded = False

    def run(self) -> None:
        """Call, in the thread that this runs in. Raises nothing."""
        self._stoppable(STOPS)
        try:
            if self.abandoned:
                self._discard(self.value)
        finally:
            self._ended(self)

    def _stoppable(self, levels: int) -> None:
        # Every Stop that may come is caught by one level more than the one before it, wherever it arrives;
        # none is sent any more once the job is settled. So none ever gets out into the thread.
        try:
            if levels:
                self._stoppable(levels - 1)
            else:
                self._work()
        except Stop:
            self._settle()

    def _work(self) -> None:
        try:
            if self._begin():
                self.value = self._call()
                self.succeeded = True
        except Stop:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's SystemExit must not end anything else
            self.error = self._explain(error)
        finally:
            self._settle()

    def _begin(self) -> bool:
        with self._lock:
            if self.abandoned:
                return False
            self._thread = threading.get_ident()
            self._clock = time.pthread_getcpuclockid(self._thread)
            self._cpu = -time.thread_time()
            return True

    def _settle(self) -> None:
        with self._lock:
            if not self.settled:
                used = time.thread_time()
                self._cpu, self.settled = self._cpu + used, True
            if self._thread is not None:
                _raise_in(self._thread, None)

    def abandon(self) -> bool:
        """Do not wait for the call any more; False when it has ended already (its result is there)."""
        with self._lock:
            self.abandoned = not self.settled
            return self.abandoned

    def stop(self) -> bool:
        """Raise :class:`Stop` in the thread, unless the call has ended or that was tried often enough."""
        with self._lock:
            if self.settled or self._thread is None or self._stops >= STOPS:
                return False
            self._stops += 1
            _raise_in(self._thread, Stop)
            return True

    def cpu(self) -> float:
        """Seconds of processor time that the call has taken so far."""
        with self._lock:
            if self._thread is None:
                return 0.0
            return self._cpu if self.settled else self._cpu + time.clock_gettime(self._clock)

    def __repr__(self) -> str:
        state = "settled" if self.settled else "abandoned" if self.abandoned else "running"
        return f"<Job {state}>"


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise ``error`` in a thread with its next instruction; None takes back one that has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
