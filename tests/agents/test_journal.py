"""What the agent logs, how much of it, and where to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """\
import logging, sys
import structlog
from agents.journal import set_up_logging
from agents.options import load

set_up_logging(load(sys.argv[1:], {"CISERVER_AGENT_SERVER": "x", "CISERVER_AGENT_TOKEN": "x"}))
log = structlog.get_logger("tests")
log.debug("a.detail")
log.info("an.event", fact="two words")
log.warning("a.warning")
log.error("an.error")
logging.getLogger("library").warning("from a library")
try:
    raise ValueError("why")
except ValueError:
    log.exception("a.fault")
"""


def logged(*flags: str) -> str:
    """What is on standard error."""
    argv = [sys.executable, "-c", PROGRAM, *flags]
    root = Path(__file__).parents[2]
    ended = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=120, check=True)
    return ended.stderr


@pytest.mark.parametrize(
    ("flags", "wanted", "unwanted"),
    [
        ((), ("an.event", "a.warning"), ("a.detail",)),
        (("--debug",), ("a.detail", "an.event"), ()),
        (("--trace",), ("a.detail",), ()),
        (("--log-level", "warning"), ("a.warning", "from a library"), ("an.event",)),
        (("--log-level", "error"), ("an.error",), ("a.warning", "from a library")),
    ],
)
def test_it_logs_as_much_as_was_asked_for(
    flags: tuple[str, ...], wanted: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    text = logged(*flags)
    assert all(word in text for word in wanted), text
    assert not any(word in text for word in unwanted), text


def test_a_line_has_time_level_event_and_facts(tmp_path: Path) -> None:
    file = tmp_path / "agent.log"
    file.write_text("timestamp=earlier\n")
    assert logged("--log-file", str(file)) == ""
    earlier, event, *rest = file.read_text().splitlines()
    assert earlier == "timestamp=earlier"
    assert event.startswith("timestamp=20")
    assert event.endswith('Z level=info event=an.event fact="two words"')
    assert any('level=warning event="from a library"' in line for line in rest)
    assert any("level=error event=a.fault" in line and "ValueError: why" in line for line in rest)
