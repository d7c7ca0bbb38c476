"""A real HDFS as a child process (see MiniHdfs.java): start it, fill it, hurt it, end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests.integration.net import wait_until
from tests.integration.processes import ROOT, bound_to_us
from tests.programs import require_file, require_program

JARS = ROOT / ".cache/hadoop"
BLOCK = 1024 * 1024
"""Bytes of a block in these clusters."""

START_TIMEOUT = 90.0


class Hdfs:
    """``kind`` "plain": two name nodes, the user is whoever one says; "kerberos": one, tokens are needed.

    Use as a context manager. ``namenodes`` are their HTTP addresses, the active one first or not.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.namenodes: list[str] = []
        self.active = 0
        self.rpc = 0
        self.token = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        java = require_program("javac").removesuffix("c")
        require_file(JARS / "complete", "run .ci/hadoop")
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "log4j.properties"
        settings.write_text(
            "log4j.rootLogger=INFO,err\nlog4j.appender.err=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.err.Target=System.err\nlog4j.appender.err.layout=org.apache.log4j.SimpleLayout\n"
        )
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *bound_to_us(),
                    java,
                    *("--add-opens", "java.base/java.lang=ALL-UNNAMED"),
                    *("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
                    f"-Dlog4j.configuration={settings.as_uri()}",
                    *("-cp", f"{JARS}/*", str(ROOT / "tests/integration/hdfs/MiniHdfs.java")),
                    *(str(self.folder / "data"), self.kind),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if "HADOOP" not in name},
            )
        try:
            self._told()
            if self.kind == "kerberos":
                self.token = self.say("token hdfs/localhost")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; its log stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._process = None
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def say(self, command: str) -> str:
        """Have the cluster do something; gives what it answers."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        out, line = self._process.stdout, bytearray()
        os.set_blocking(out.fileno(), False)

        def whole() -> bool:
            assert self._process is not None
            line.extend(out.read() or b"")
            ended = self._process.poll() is not None
            assert not ended, f"HDFS ended; its log ends with:\n{self.log[-3000:]}"
            return line.endswith(b"}\n")

        wait_until(whole, "HDFS answers", START_TIMEOUT)
        told = json.loads(line.splitlines()[-1])
        self.namenodes, self.active, self.rpc = told["namenodes"], told["active"], told["rpc"]
        answer: str = told["answer"]
        return answer

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text("utf-8", "replace")

    # --- content --------------------------------------------------------------------------------------

    def put(self, path: str, content: bytes) -> None:
        """Write a file, over any that is there."""
        location = self._call("PUT", path, "CREATE", overwrite="true", expected=307)
        assert isinstance(location, str)
        self._send("PUT", location, content, 201)

    def append(self, path: str, content: bytes) -> None:
        """Write at a file's end."""
        location = self._call("POST", path, "APPEND", expected=307)
        assert isinstance(location, str)
        self._send("POST", location, content, 200)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        assert self._call("PUT", path, "MKDIRS") == {"boolean": True}

    def replace(self, path: str, content: bytes) -> None:
        """Have another file, written beside it, take a file's place."""
        self.put(f"{path}.new", content)
        self._call("DELETE", path, "DELETE")
        assert self._call("PUT", f"{path}.new", "RENAME", destination=path) == {"boolean": True}

    def allow(self, path: str, permission: str) -> None:
        """Set a file's permission, as in "600"."""
        self._call("PUT", path, "SETPERMISSION", permission=permission)

    def _call(self, method: str, path: str, op: str, *, expected: int = 200, **parameters: str) -> Any:
        who = {"delegation": self.token} if self.token else {"user.name": "root"}
        query = urlencode({"op": op, **parameters, **who})
        url = f"http://{self.namenodes[self.active]}/webhdfs/v1{quote(path)}?{query}"
        return self._send(method, url, b"", expected)

    def _send(self, method: str, url: str, content: bytes, expected: int) -> Any:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            connection.request(
                method, f"{parts.path}?{parts.query}", content, {"Content-Type": "application/octet-stream"}
            )
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == expected, f"{method} {parts.path}: {answer.status} {body[:500]!r}"
            if expected == 307:
                return answer.headers["Location"]
            return json.loads(body) if body else None
        finally:
            connection.close()


@contextlib.contextmanager
def running(kind: str, factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A cluster for a fixture."""
    with Hdfs(kind, factory.mktemp(f"hdfs-{kind}")) as hdfs:
        yield hdfs
