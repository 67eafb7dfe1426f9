"""The server's log: short where a library would repeat itself."""

from __future__ import annotations

import logging
import sys

from redis.exceptions import ConnectionError as Away

from ciserver.logging import OneLinePerAbsence


def record(fault: Exception) -> logging.LogRecord:
    """What the channel layer logs of a fault."""
    try:
        raise fault
    except Exception:
        text = "Unexpected exception in receive task"
        return logging.LogRecord("x", logging.ERROR, "", 1, text, None, sys.exc_info())


def test_an_absence_of_redis_is_one_line() -> None:
    now = 100.0
    absence = OneLinePerAbsence(lambda: now)
    first = record(Away("no"))
    assert absence.filter(first)
    assert first.exc_info is None
    assert first.levelname == "WARNING"
    assert first.getMessage().endswith("until it is back: no")

    for _ in range(100):
        now += 1.0
        assert not absence.filter(record(Away("no")))

    now += 60.0
    assert absence.filter(record(Away("no")))


def test_other_faults_keep_their_traceback() -> None:
    absence = OneLinePerAbsence()
    for _ in range(2):
        fault = record(KeyError("x"))
        assert absence.filter(fault)
        assert fault.exc_info is not None
