"""Steps that misbehave: daemons, deaf ones, too much output, odd output, secrets in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, Part
from tests.services import wait_for

# one agent for all: it must be as well afterwards as before
pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("faults-house"),
]

MIB = 1024 * 1024
#: What the agent may need beyond what it has at rest, whatever a step prints.
MOST_MEMORY_BYTES = 128 * MIB
SECRET = "s3cr3t-V4lue-77"


@pytest.fixture(scope="module", autouse=True)
def agent(house: Cluster) -> Iterator[Part]:
    """An agent that keeps 32 MiB of a log."""
    part = house.agent("agent-steps", max_log_size="32MiB")
    yield part
    part.stop()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository's name for this test alone."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def pipeline(*commands: str, environment: str = "{}") -> str:
    """One exec step of these commands, which are YAML; `$` needs no care."""
    lines = "\n".join(f"  - {command.replace('$', '$$')}" for command in commands)
    return f"""
kind: pipeline
type: exec
name: default
clone: {{disable: true}}
steps:
- name: odd
  environment: {environment}
  commands:
{lines}
"""


def peak_bytes(part: Part) -> int:
    """The most memory that a process ever had."""
    assert part.process is not None
    status = Path(f"/proc/{part.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def passing(house: Cluster, slug: str) -> int:
    """Build the repository, and see that it passes; the build's number."""
    number = house.build(slug)
    ended = house.ended(slug, number)
    assert ended["status"] == "success", ended
    return number


def exit_code(house: Cluster, slug: str, number: int) -> int:
    """The step's."""
    return int(house.client.build(slug, number)["stages"][0]["steps"][0]["exit_code"])


def raw_log(house: Cluster, slug: str, number: int) -> bytes:
    """The step's stored log, byte for byte."""
    path = f"/api/repos/{slug}/builds/{number}/logs/1/1/text"
    return bytes(house.client.raw("GET", path).content)


def test_daemons_end_with_the_stage(house: Cluster, tmp_path: Path, name: str) -> None:
    """In the group, out of it, in a session of their own; one of them holds on to the output."""
    pids = tmp_path / "pids"
    pids.touch()  # or the loop below may look for it too early, and end
    tell = f"echo $$ >> {pids}; exec sleep 600"
    slug = house.repo(
        pipeline(
            f"sh -c '{tell}' &",
            f"nohup sh -c '{tell}' >/dev/null 2>&1 &",
            f"setsid sh -c '{tell}' </dev/null >/dev/null 2>&1 &",
            f"( setsid sh -c 'trap \"\" TERM HUP; {tell}' & )",
            f"'while [ $(wc -l < {pids}) -lt 4 ]; do sleep 0.05; done'",
        ),
        name,
    )

    passing(house, slug)
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 4
    wait_for("the daemons are gone", lambda: not any(map(lives, left)))


def test_a_step_that_is_deaf_to_signals_is_killed(
    house: Cluster, tmp_path: Path, name: str
) -> None:
    pid = tmp_path / "pid"
    deaf = pipeline(
        "trap '' TERM INT HUP QUIT",
        f"echo $$ > {pid}",
        "echo deaf",
        "'while :; do sleep 0.1; done'",
    )
    slug = house.repo(deaf, name)
    number = house.build(slug)
    house.wait_line(slug, number, "deaf")

    house.client.cancel(slug, number)

    assert house.ended(slug, number)["status"] == "killed"
    wait_for("the step is gone", lambda: not lives(int(pid.read_text())))
    # the server says 130 until the agent has told how the step ended
    wait_for("the agent is done with it", lambda: exit_code(house, slug, number) == 137)


def test_a_gigabyte_without_a_newline(house: Cluster, agent: Part, name: str) -> None:
    slug = house.repo(pipeline("head -c 1000000000 /dev/zero | tr '\\0' x", "echo end"), name)
    before = peak_bytes(agent)

    number = passing(house, slug)

    text = raw_log(house, slug, number)
    assert peak_bytes(agent) - before < MOST_MEMORY_BYTES
    assert 20 * MIB < len(text) < 34 * MIB
    assert b"lines left out here: the log is longer than its limit" in text
    assert text.endswith(b"x+ echo end\nend\n")


def test_a_million_short_lines(house: Cluster, agent: Part, name: str) -> None:
    slug = house.repo(pipeline("seq 1000000"), name)
    before = peak_bytes(agent)

    number = passing(house, slug)

    text = raw_log(house, slug, number)
    assert peak_bytes(agent) - before < MOST_MEMORY_BYTES
    expected = b"".join(b"%d\n" % number for number in range(1, 1_000_001))
    assert text == b"+ seq 1000000\n" + expected


def test_binary_garbage(house: Cluster, tmp_path: Path, name: str) -> None:
    """Kept as it is, and shown by the API as text."""
    file = tmp_path / "garbage"
    file.write_bytes(random.Random(4).randbytes(300_000) + b"\x00\xff\x1b[2J\r\x08")
    slug = house.repo(pipeline(f"cat {file}"), name)

    number = passing(house, slug)

    assert raw_log(house, slug, number) == f"+ cat {file}\n".encode() + file.read_bytes() + b"\n"
    lines = house.client.log(slug, number, 1, 1)
    assert [line["pos"] for line in lines] == list(range(file.read_bytes().count(b"\n") + 2))


def test_a_secret_cut_at_every_byte(house: Cluster, name: str) -> None:
    """Written in two pieces cut at each place, byte by byte, and with a long silence within."""
    cut = (
        "'i=1; while [ $i -lt ${#TOKEN} ]; do "
        'printf %s "$TOKEN" | head -c $i; sleep 0.03; '
        'printf %s "$TOKEN" | tail -c +$((i+1)); echo; i=$((i+1)); done\''
    )
    each = (
        "'i=1; while [ $i -le ${#TOKEN} ]; do "
        'printf %s "$TOKEN" | tail -c +$i | head -c 1; sleep 0.02; i=$((i+1)); done; echo\''
    )
    silence = (
        '\'printf %s "$TOKEN" | head -c 9; sleep 1.5; printf %s "$TOKEN" | tail -c +10; echo\''
    )
    text = pipeline("set +e", cut, each, silence, environment="{TOKEN: {from_secret: token}}")
    slug = house.repo(text, name)
    secret = {"name": "token", "data": SECRET}
    house.client.call("POST", f"/api/repos/{slug}/secrets", json=secret)

    number = passing(house, slug)

    lines = raw_log(house, slug, number).decode().splitlines()
    printed = [line for line in lines if not line.startswith("+ ")]
    assert printed == ["******"] * (len(SECRET) - 1 + 1 + 1)
    assert not any(SECRET[:9] in line or SECRET[9:] in line for line in lines)
