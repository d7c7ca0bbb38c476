"""A real S3 server (moto's) on loopback, for tests and benchmarks. It takes any credentials."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from tests.integration.net import free_port, request, wait_until
from tests.integration.processes import bound_to_us


class Moto:
    """moto's server in a process of its own; a context manager. ``log`` is its access log.

    Objects that are put with ``public`` can be read without credentials.
    """

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.endpoint = f"http://{self.address}"
        self._log = tempfile.NamedTemporaryFile(prefix="moto-", suffix=".log")  # noqa: SIM115 - closed at the end
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Moto:
        host, _, port = self.address.partition(":")
        self._process = subprocess.Popen(
            [*bound_to_us(), sys.executable, "-m", "moto.server", "-H", host, "-p", port],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        wait_until(self._answers, "moto's server answers", 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"moto's server ended:\n{self.log[-2000:]}"
        try:
            return request(self.address, "/moto-api/").status == 200
        except OSError:
            return False

    @property
    def log(self) -> str:
        """A line for each request."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def requests(self, path: str) -> int:
        """How often ``path`` was asked for (GET)."""
        return self.log.count(f"GET {path} ") + self.log.count(f"GET {path}?")

    def make_bucket(self, name: str) -> None:
        """A new bucket."""
        answer = request(self.address, f"/{name}", "PUT")
        assert answer.status == 200, answer.text

    def put(self, bucket: str, key: str, content: bytes, *, public: bool = False) -> str:
        """Put an object; its s3:// URL."""
        headers = {"x-amz-acl": "public-read"} if public else {}
        answer = request(self.address, f"/{bucket}/{key}", "PUT", content, headers, timeout=60)
        assert answer.status == 200, answer.text
        return f"s3://{bucket}/{key}"

    def put_file(self, bucket: str, key: str, path: Path) -> str:
        """Put a file of any size for everybody; its s3:// URL."""
        connection = http.client.HTTPConnection(self.address, timeout=600)
        with path.open("rb") as file:
            connection.request(
                "PUT",
                f"/{bucket}/{key}",
                body=file,
                headers={"Content-Length": str(path.stat().st_size), "x-amz-acl": "public-read"},
            )
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
        connection.close()
        return f"s3://{bucket}/{key}"
