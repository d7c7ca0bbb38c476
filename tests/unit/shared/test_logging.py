import io
import json
import logging

import pytest
import structlog

from shared.logging import configure, redact


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_json_lines_without_secrets(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    structlog.get_logger().info(
        "reading",
        url="https://me:hunter2@host/a?X-Amz-Signature=hunter2&b=1",
        headers={"Authorization": "hunter2", "X-Custom": "hunter2", "User-Agent": "me"},
        token="hunter2",
        error=ValueError("no answer from http://me:hunter2@host/"),
        data=b"hunter2",
        parents=["http://me:hunter2@host/"],
    )
    text = stream.getvalue()
    assert "hunter2" not in text
    line = json.loads(text)
    assert line["event"] == "reading"
    assert line["level"] == "info"
    assert line["url"] == "https://host/a?X-Amz-Signature=***&b=1"
    assert line["headers"] == {"Authorization": "***", "X-Custom": "***", "User-Agent": "me"}
    assert line["data"] == "<7 bytes>"
    assert line["timestamp"].endswith("Z")


def test_levels(stream: io.StringIO) -> None:
    configure("warning", "json", stream)
    log = structlog.get_logger()
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_console_lines_hold_no_control_characters(stream: io.StringIO) -> None:
    configure("info", "auto", stream)  # not a terminal: json
    structlog.get_logger().info("a")
    assert json.loads(stream.getvalue())["event"] == "a"
    configure("info", "console", stream)
    structlog.get_logger().info("refused", path="/\x1b[31m\n2026 [info] forged")
    last = stream.getvalue().splitlines()[-1]
    assert "\x1b" not in last
    assert "forged" in last
    assert "refused" in last


def test_what_libraries_log_comes_out_the_same_way(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    logging.getLogger("httpx").info("HTTP Request: GET http://me:hunter2@host/")
    logging.getLogger("some.library").warning("trouble at %s", "http://me:hunter2@host/")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "trouble at http://host/"


def test_errors_with_their_place(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    try:
        raise ValueError("http://me:hunter2@host/")
    except ValueError:
        structlog.get_logger().error("broken", exc_info=True)
    line = json.loads(stream.getvalue())
    assert "Traceback" in line["exception"]
    assert "hunter2" not in stream.getvalue()


def test_a_reader_that_went_away_does_not_end_the_daemon(stream: io.StringIO) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure("info", "json", Broken())
    structlog.get_logger().info("said to nobody")
    logging.getLogger("x").warning("same")


def test_numbers_and_none_are_left_alone() -> None:
    event = {"event": "x", "count": 3, "share": 0.5, "none": None, "yes": True, "authorization": None}
    assert redact(None, "info", dict(event)) == event
