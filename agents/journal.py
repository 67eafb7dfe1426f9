"""What the agent says of itself: one line per event, to standard error or a file."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

import structlog

from agents.options import Options

_LEVELS: Final = {"trace": logging.DEBUG, "debug": logging.DEBUG}
#: Celery tells each ticket twice at this level; the agent tells what became of it.
_CHATTY: Final = ("celery.worker.strategy", "celery.app.trace")


def set_up_logging(options: Options) -> None:
    """Send our own and the libraries' log lines of the wanted level to the wanted place."""
    level = (
        _LEVELS.get(options.log_level) or logging.getLevelNamesMapping()[options.log_level.upper()]
    )
    stream = _stream(options)
    shared = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer(colors=True)
        if stream.isatty()
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[*shared, renderer],  # type: ignore[list-item]
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer)  # type: ignore[arg-type]
    handler.setFormatter(formatter)
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _stream(options: Options) -> TextIO:
    if not options.log_file:
        return sys.stderr
    return open(options.log_file, "a", encoding="utf-8", buffering=1)  # noqa: PTH123 - for the life of the process
