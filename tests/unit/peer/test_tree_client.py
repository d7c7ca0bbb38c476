"""The stream of a folder out of the daemon, whatever the daemon says."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peer.orders import DownloadDone, DownloadOrder, DownloadProgress
from peer.tree_client import connect, receive_tree
from shared.errors import DeadlineExceeded, DragonetError, SourceError, Unavailable

HEAD = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
DONE = b'{"event":"done","task_id":"t","length":9,"sha256":"","seconds":1.5,"bytes":{"origin":9}}\n'
PROGRESS = b'{"event":"progress","length":null,"done":5,"bytes":{"origin":5},"parents":0}\n'
ORDER = DownloadOrder("http://host/", tree="v=1&level=5")


class Taker:
    """Keeps what came since the last beginning."""

    ended = True

    def __init__(self) -> None:
        self.content = b""
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1
        self.content = b""

    def feed(self, data: memoryview) -> None:
        self.content += data


Serve = Callable[[socket.socket, socket.socket], None]


@contextmanager
def daemon(path: Path, serve: Serve) -> Iterator[list[bytes]]:
    """A daemon that reads a request, and then does with it and the stream's socket what ``serve`` does; gives
    what it was asked."""
    asked: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            request, descriptors, _, _ = socket.recv_fds(sock, 65536, 2)
            asked.append(request)
            with socket.socket(fileno=descriptors[0]) as stream, contextlib.suppress(BrokenPipeError):
                serve(sock, stream)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        thread.join()
        listener.close()


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def received(
    path: Path, answer: bytes, stream: bytes = b"", step: int = 100_000
) -> tuple[Taker, list[DownloadProgress], DownloadDone]:
    def serve(sock: socket.socket, to: socket.socket) -> None:
        for start in range(0, len(stream), step):
            to.sendall(stream[start : start + step])
        to.shutdown(socket.SHUT_RDWR)
        for start in range(0, len(answer), step):
            sock.sendall(answer[start : start + step])

    taker, progress = Taker(), list[DownloadProgress]()
    with daemon(path, serve) as asked:
        sock = connect(path)
        assert sock is not None
        with sock:
            done = receive_tree(sock, ORDER, taker, progress.append, math.inf)
    assert asked[0].startswith(b"POST /v1/trees HTTP/1.0\r\n")
    assert b'"tree":"v=1&level=5"' in asked[0]
    return taker, progress, done


@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_events_and_data(tmp_path: Path, step: int) -> None:
    parts = [bytes(range(256)) * 8, b"x", b"\n\0\0\0\0"]
    taker, progress, done = received(tmp_path / "s", HEAD + PROGRESS * 2 + DONE, framed(*parts), step)
    assert taker.content == b"".join(parts)
    assert taker.begun == 1
    assert [event.done for event in progress] == [5, 5]
    assert done.bytes == {"origin": 9}


def test_more_than_the_buffer(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    assert received(tmp_path / "s", HEAD + DONE, framed(data, data))[0].content == data * 2


def test_again(tmp_path: Path) -> None:
    taker, _, _ = received(tmp_path / "s", HEAD + DONE, framed(b"x", b"", b"y"))
    assert (taker.content, taker.begun) == (b"y", 2)


def test_what_failed_there_is_raised_here(tmp_path: Path) -> None:
    answer = HEAD + b'{"event":"failed","message":"it answered 403","status":502,"origin_status":403}\n'
    with pytest.raises(SourceError, match="it answered 403") as caught:
        received(tmp_path / "s", answer)
    assert caught.value.origin_status == 403


def test_a_refusal(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 400 No\r\n\r\n{"error":{"message":"what is that?","status":400}}'
    with pytest.raises(DragonetError, match="what is that") as caught:
        received(tmp_path / "s", answer, step=7)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended in mid-download"),
        (HEAD, "ended in mid-download"),
        (HEAD + PROGRESS, "ended in mid-download"),
        (HEAD + b"what?\n", "not understood"),
        (HEAD + b'{"event":"other"}\n', "not understood"),
        (HEAD + b"x" * 300_000, "too long"),
        (b"x" * 300_000, "too long"),
    ],
)
def test_what_is_no_answer(tmp_path: Path, answer: bytes, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        received(tmp_path / "s", answer, framed(b"data"))


def test_a_daemon_that_says_nothing_in_time(tmp_path: Path) -> None:
    waiting = threading.Event()
    with daemon(tmp_path / "s", lambda sock, stream: waiting.wait(10) and None):
        sock = connect(tmp_path / "s")
        assert sock is not None
        with sock, pytest.raises(DeadlineExceeded):
            receive_tree(sock, ORDER, Taker(), lambda _: None, time.monotonic() + 0.05)
        waiting.set()


def test_no_daemon(tmp_path: Path) -> None:
    assert connect(tmp_path / "nothing") is None
