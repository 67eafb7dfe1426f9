"""The files people install an agent with agree with the agent."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from agents.command import _COMMANDS
from agents.hooks import Reason
from agents.option_table import entries
from agents.options import load
from tests.services import program

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "agents.md").read_text()


def test_the_environment_file_is_a_valid_configuration() -> None:
    text = (ROOT / "compose" / "agent.env.example").read_text()
    pairs = re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE)

    options = load([], dict(pairs) | {"CISERVER_AGENT_CONCURRENCY": "1"})

    assert options.server == "https://ci.example.com"
    assert options.labels == {"disk": "ssd", "zone": "a"}


def test_the_unit_starts_a_command_that_is_there() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "compose" / "ciserver-agent.service")

    words = unit["Service"]["ExecStart"].split()

    assert words[1:3] == ["-m", "agents.command"]
    assert words[3] in _COMMANDS
    assert unit["Service"]["RestartPreventExitStatus"] == "2"


@pytest.mark.service
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "compose" / "ciserver-agent.service").read_text()
    unit = tmp_path / "ciserver-agent.service"
    unit.write_text(text.replace("/opt/ciserver/.venv/bin/python", "/bin/true"))
    argv = [program("systemd-analyze"), "verify", str(unit)]
    verified = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, told) == (0, []), verified.stderr


def test_the_image_holds_what_an_agent_needs() -> None:
    text = (ROOT / "compose" / "Dockerfile.agent").read_text()

    assert 'CMD ["agent"]' in text
    for name in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in name.split())


def test_the_page_names_options_and_reasons_that_there_are() -> None:
    keys = set(entries())
    rules = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", DOCS, re.MULTILINE)
    named = {key for cell in rules for key in re.findall(r"`([a-z-]+)`", cell)}

    assert named - keys <= {"auto", "docker", "shell"}
    assert all(reason.value in DOCS for reason in Reason)
