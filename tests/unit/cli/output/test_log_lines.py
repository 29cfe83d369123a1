"""The log: a flood of errors is a line a second."""

import json
import logging
from typing import Any

import pytest

from cospan.cli.output.log_lines import JsonFormatter, OnceASecond, log_warnings_to_stderr
from cospan.server.net.log_throttle import LogThrottle


def record(name: str, message: str, *arguments: Any, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, arguments, None)


def test_a_flood_of_errors_is_a_line_a_second_in_the_log() -> None:
    limit, now = OnceASecond(), 0.0
    limit._sparing = LogThrottle(clock=lambda: now)
    flood = [record("asyncio", f"socket.accept() out of system resource\nsocket: {number}") for number in range(99)]
    assert sum(map(limit.filter, flood)) == 1
    now = 1.0
    assert limit.filter(flood[0])
    assert json.loads(JsonFormatter().format(flood[0]))["suppressed"] == 98


def test_what_names_different_agents_is_not_held_back() -> None:
    limit = OnceASecond()
    assert all(limit.filter(record("cospan.client", "%s has failed", f"site-{number}")) for number in range(9))
    assert all(limit.filter(record("cospan", "joined", level=logging.INFO)) for _ in range(9))


def test_warnings_of_one_logger_are_shown_once_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("test_log_lines.members")
    log_warnings_to_stderr(logger.name)
    log_warnings_to_stderr(logger.name)
    logger.warning("round 3: the sum is over 4 processes from now on: site-7 left")
    logging.getLogger("test_log_lines").warning("of no interest")
    shown = capsys.readouterr().err
    assert shown.count("site-7 left") == 1
    assert "of no interest" not in shown
