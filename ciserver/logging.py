"""How every process of the server writes its log: structlog, and libraries in the same form."""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import structlog

#: The channel layer tries again every second: a longer silence ends an absence.
_ABSENCE_S: Final = 10.0


class OneLinePerAbsence(logging.Filter):
    """Lets a library that logs a traceback per try say once, in one line, that Redis is away."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last = -_ABSENCE_S

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; one of an absence is made short."""
        fault = record.exc_info[1] if record.exc_info else None
        if not _is_away(fault):
            return True
        now, last = self._clock(), self._last
        self._last = now
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = "Redis is away, and nobody hears doorbells until it is back: %s"
        record.args, record.exc_info = (fault,), None
        return now - last >= _ABSENCE_S


def _is_away(fault: BaseException | None) -> bool:
    from redis.exceptions import RedisError

    return isinstance(fault, (RedisError, OSError))


def configure(level: str, format_: str) -> None:
    """Send structlog's and the standard library's records to standard error.

    `format_` is `json`, `console`, or empty: console on a terminal.
    """
    console = format_ == "console" or (not format_ and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "one": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        renderer,
                    ],
                    "foreign_pre_chain": shared,
                }
            },
            "filters": {"absence": {"()": OneLinePerAbsence}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "one"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            "loggers": {
                "channels_redis.pubsub": {"filters": ["absence"]},
                "django.request": {"level": "ERROR"},
                "httpx": {"level": "WARNING"},
                "httpcore": {"level": "WARNING"},
                "uvicorn.error": {"level": "WARNING"},
            },
        }
    )
